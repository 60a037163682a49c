/* arch.c - the table of families, and a helpful word when a file's family is not in it. */
#include "arch.h"

#include <stdio.h>
#include <string.h>

/* families.inc is made by CMake from the files in families/: EL_FAMILY(ident) for each of them. */
#define EL_FAMILY(ident) extern EL_ARCH(ident);
#include "families.inc"
#undef EL_FAMILY

#define EL_FAMILY(ident) &el_arch_##ident,
static const el_arch *const families[] = {
#include "families.inc"
};
#undef EL_FAMILY

const el_arch *el_arch_at(size_t i) { return i < EL_COUNT(families) ? families[i] : NULL; }

enum { NAME_MAX_LENGTH = 48, NEAREST = 3 };

/* Files that belong to a language model or lie beside them on the same shelves, but are none. Names: those that the
 * programs which write such files give as general.architecture. */
static const struct {
    const char *name, *what;
} others[] = {
    {"clip", "the part of a model that reads images or sound (mmproj); open the language model's own file"},
    {"wavtokenizer-dec", "a vocoder, which makes sound"},
    {"whisper", "a speech recognizer"},
    {"flux", "an image generator"},
    {"sd1", "an image generator"},
    {"sd3", "an image generator"},
    {"sdxl", "an image generator"},
    {"stable-diffusion", "an image generator"},
    {"lumina2", "an image generator"},
    {"qwen_image", "an image generator"},
    {"wan", "a video generator"},
    {"hyvid", "a video generator"},
    {"ltxv", "a video generator"},
};

/* Levenshtein distance of two short names; a common prefix counts in favour ("qwen2" is near "qwen3moe"). */
static int distance(el_str a, const char *b)
{
    int row[NAME_MAX_LENGTH + 1];
    int n = (int)strlen(b), prefix = 0;
    int m = a.n < NAME_MAX_LENGTH ? (int)a.n : NAME_MAX_LENGTH;

    for (int j = 0; j <= n && j <= NAME_MAX_LENGTH; j++)
        row[j] = j;
    for (int i = 1; i <= m; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n && j <= NAME_MAX_LENGTH; j++) {
            int up = row[j];
            int best = diagonal + (a.data[i - 1] != b[j - 1]);
            best = EL_MIN(best, up + 1);
            best = EL_MIN(best, row[j - 1] + 1);
            row[j] = best;
            diagonal = up;
        }
    }
    while (prefix < m && prefix < n && a.data[prefix] == b[prefix])
        prefix++;
    return row[EL_MIN(n, NAME_MAX_LENGTH)] * 2 - prefix;
}

edgellm_status el_arch_find(const el_arch **out, el_str name)
{
    char nearest[256] = "";
    bool told[EL_COUNT(families)] = {false};

    for (size_t i = 0; i < EL_COUNT(families); i++) {
        if (el_str_eq(name, families[i]->name)) {
            *out = families[i];
            return EDGELLM_OK;
        }
    }
    for (size_t i = 0; i < EL_COUNT(others); i++)
        if (el_str_eq(name, others[i].name))
            return el_fail(EDGELLM_EUNSUPPORTED, "general.architecture is \"%s\": this is no language model but %s",
                           others[i].name, others[i].what);
    for (int k = 0; k < NEAREST && k < (int)EL_COUNT(families); k++) {
        size_t best = EL_COUNT(families);
        size_t used = strlen(nearest);
        for (size_t i = 0; i < EL_COUNT(families); i++)
            if (!told[i] && (best == EL_COUNT(families) ||
                             distance(name, families[i]->name) < distance(name, families[best]->name)))
                best = i;
        told[best] = true;
        snprintf(nearest + used, sizeof nearest - used, "%s%s", used ? ", " : "", families[best]->name);
    }
    return el_fail(EDGELLM_EUNSUPPORTED,
                   "general.architecture is \"%.*s\", which this version cannot run; the nearest it can are: %s",
                   (int)EL_MIN(name.n, (size_t)NAME_MAX_LENGTH), name.data, nearest);
}
