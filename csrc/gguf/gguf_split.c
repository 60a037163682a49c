/* gguf_split.c - the names of the parts of a split model: NAME-00001-of-00003.gguf and so on, in one folder.
 * Naming as llama.cpp's gguf-split writes it. */
#include "gguf_internal.h"

enum { TAIL = sizeof "-00001-of-00003.gguf" - 1 };

static bool digits(const char *s, uint32_t *value)
{
    *value = 0;
    for (int i = 0; i < 5; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *value = *value * 10 + (uint32_t)(s[i] - '0');
    }
    return true;
}

/* Reads the tail of a path; false when it has none. number is from 0. */
static bool read_tail(const char *path, uint32_t *number, uint32_t *count)
{
    size_t n = strlen(path);
    const char *tail;

    if (n < TAIL)
        return false;
    tail = path + n - TAIL;
    if (tail[0] != '-' || !digits(tail + 1, number) || memcmp(tail + 6, "-of-", 4) != 0 || !digits(tail + 10, count) ||
        strcmp(tail + 15, ".gguf") != 0 || *number == 0)
        return false;
    *number -= 1;
    return true;
}

edgellm_status el_gguf_part_path(const el_gguf *file, const char *path, uint32_t number, char **out)
{
    size_t n = strlen(path);

    *out = el_strndup(path, n); /* check_first has seen that it has the tail */
    if (!*out)
        return el_no_memory(n + 1);
    snprintf(*out + n - TAIL, TAIL + 1, "-%05u-of-%05u.gguf", (unsigned)(number + 1) % 100000,
             (unsigned)file->split_count % 100000);
    return EDGELLM_OK;
}

edgellm_status el_gguf_check_first(const el_gguf *file, const char *path)
{
    uint32_t number, count;
    size_t stem = strlen(file->name);
    bool has_tail = read_tail(path, &number, &count) && count == file->split_count && stem >= TAIL;

    if (file->split_no > 0 && has_tail)
        return el_fail(EDGELLM_EINVAL,
                       "%.200s is part %" PRIu32 " of %" PRIu32
                       " of a split model; open the first: %.*s-00001-of-%05u.gguf",
                       file->name, file->split_no + 1, file->split_count, (int)EL_MIN(stem - TAIL, 400), file->name,
                       (unsigned)file->split_count);
    if (file->split_no > 0)
        return el_fail(EDGELLM_EINVAL,
                       "%.200s is part %" PRIu32 " of %" PRIu32
                       " of a split model; open the first, whose name ends in -00001-of-%05u.gguf",
                       file->name, file->split_no + 1, file->split_count, (unsigned)file->split_count);
    if (!has_tail || number != 0)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s is the first of %" PRIu32
                       " parts, and the others are found by its name: it must end in -00001-of-%05u.gguf",
                       file->name, file->split_count, (unsigned)file->split_count);
    return EDGELLM_OK;
}
