/* test_pieces.c - what the families beside BPE stand on: the trie and the best cuts against slow, obvious versions, the
 * normalizer's table and whole vocabularies when they are damaged, allocation that fails. Exit code 0 when all is well.
 * What real tokenizers make of real vocabularies: tests/unit/test_tokenizer.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness.h"
#include "tokenizer_impl.h"
#include "unicode_fold.h"

static size_t below(size_t n) { return (size_t)(next_random() % n); }

static el_str str(const char *s) { return (el_str){s, strlen(s)}; }

static void test_trie(void)
{
    enum { N = 40, TEXT = 30 };

    for (int round = 0; round < 500; round++) {
        el_trie_item items[N], sorted[N];
        char letters[N][8], text[TEXT];
        el_prefix_trie trie;
        size_t alphabet = 1 + (size_t)round % 4;

        for (size_t i = 0; i < N; i++) {
            items[i] = (el_trie_item){{letters[i], below(7)}, (int32_t)i};
            for (size_t k = 0; k < sizeof letters[i]; k++)
                letters[i][k] = (char)(0x7E + below(alphabet)); /* on both sides of the sign bit */
        }
        for (size_t k = 0; k < TEXT; k++)
            text[k] = (char)(0x7E + below(alphabet));
        memcpy(sorted, items, sizeof items);
        CHECK(el_prefix_trie_new(&trie, sorted, N) == EDGELLM_OK, "%s", el_error_text());
        for (size_t at = 0; at < TEXT; at++) {
            size_t longest = 0;
            int32_t expected = -1, id = -1;

            for (size_t i = 0; i < N; i++)
                if (items[i].text.n > longest && items[i].text.n <= TEXT - at &&
                    memcmp(items[i].text.data, text + at, items[i].text.n) == 0) {
                    longest = items[i].text.n;
                    expected = (int32_t)i; /* of equal ones the first */
                }
            CHECK(el_prefix_longest(&trie, text + at, TEXT - at, &id) == longest && id == expected,
                  "round %d, at %zu: %d, expected %d", round, at, id, expected);
        }
        el_prefix_trie_free(&trie);
    }
}

static void test_folds(void)
{
    CHECK(el_lower_of('A') == 'a' && el_lower_of('[') == '[' && el_lower_of(0xC4) == 0xE4, "letters");
    CHECK(el_lower_of(0xD7) == 0xD7 && el_lower_of(0x101) == 0x101 && el_lower_of(0x100) == 0x101, "gaps in a run");
    CHECK(el_lower_of(0x130) == 'i' && el_lower_of(0x10FFFF) == 0x10FFFF, "ends");
    CHECK(el_unaccented(0xE9) == 'e' && el_unaccented(0xAC01) == 0x1100 && el_unaccented(0x4E00) == 0x4E00, "bases");
    CHECK(el_is_control_cp(7) && el_is_control_cp(0xAD) && el_is_control_cp(0xE000) && !el_is_control_cp(0x378), "C");
}

/* ---- vocabularies --------------------------------------------------------------------- */

enum { MAX_TOKENS = 320 };

typedef struct vocab {
    el_vocab_data data;
    el_str tokens[MAX_TOKENS];
    uint8_t types[4 * MAX_TOKENS], scores[4 * MAX_TOKENS];
    char letters[256][8];
} vocab;

static void add_token(vocab *v, const char *piece, int type, float score)
{
    size_t i = v->data.n_tokens++;

    v->tokens[i] = str(piece);
    v->types[4 * i] = (uint8_t)type;
    memcpy(v->scores + 4 * i, &score, 4);
}

static void make(vocab *v, const char *model)
{
    memset(v, 0, sizeof *v);
    v->data.model = str(model);
    v->data.tokens = v->tokens;
    v->data.types = v->types;
    v->data.scores = v->scores;
    memset(v->data.special, 0xFF, sizeof v->data.special);
    v->data.cls = -1;
    v->data.add_bos = v->data.add_eos = v->data.add_sep = v->data.add_space_prefix = -1;
    v->data.remove_extra_whitespaces = v->data.ignore_merges = v->data.lowercase = v->data.strip_accents = -1;
    add_token(v, "<pad>", EL_TOKEN_CONTROL, 0);
    add_token(v, "</s>", EL_TOKEN_CONTROL, 0);
    add_token(v, "<unk>", EL_TOKEN_UNKNOWN, 0);
    for (int byte = 0; byte < 256; byte++) {
        snprintf(v->letters[byte], sizeof v->letters[byte], strcmp(model, "rwkv") ? "<0x%02X>" : "\\x%02x", byte);
        add_token(v, v->letters[byte], strcmp(model, "rwkv") ? EL_TOKEN_BYTE : EL_TOKEN_NORMAL, 0);
    }
    add_token(v, "\xE2\x96\x81", EL_TOKEN_NORMAL, -3); /* 259 */
    add_token(v, "a", EL_TOKEN_NORMAL, -4);            /* 260 */
    add_token(v, "b", EL_TOKEN_NORMAL, -5);            /* 261 */
    add_token(v, "ab", EL_TOKEN_NORMAL, -8);           /* 262 */
    add_token(v, "aba", EL_TOKEN_NORMAL, -12.5f);      /* 263 */
    add_token(v,
              "\xE2\x96\x81"
              "a",
              EL_TOKEN_NORMAL, -6.5f);                 /* 264 */
    add_token(v, "<user>", EL_TOKEN_USER_DEFINED, -9); /* 265 */
    add_token(v, "\xE4\xB8", EL_TOKEN_NORMAL, -2);     /* 266: part of a character */
}

static const char *const models[] = {"bert", "t5", "rwkv", "plamo2"};

static el_tokenizer *build(const vocab *v)
{
    el_tokenizer *t = NULL;

    CHECK(el_tokenizer_new(&t, &v->data) == EDGELLM_OK, "%s", el_error_text());
    return t;
}

#define IDS(...) (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static void expect(const el_tokenizer *t, const char *text, uint32_t flags, const int32_t *expected, size_t n_expected)
{
    int32_t ids[65];
    size_t n = 0;

    for (size_t cap = 0; cap <= n_expected; cap++) {
        memset(ids, 0x55, sizeof ids);
        CHECK(el_tokenize(t, text, strlen(text), flags, ids, cap, &n) == EDGELLM_OK, "%s", el_error_text());
        CHECK(n == n_expected && memcmp(ids, expected, EL_MIN(cap, n) * sizeof *ids) == 0 && ids[cap] == 0x55555555,
              "'%s', cap %zu: %zu ids, first %d %d %d", text, cap, n, ids[0], ids[1], ids[2]);
    }
}

static void test_families(void)
{
    vocab v;
    el_tokenizer *t;

    make(&v, "t5"); /* unknown: -12.5 - 10 */
    t = build(&v);
    expect(t, "ab", EDGELLM_ADD_SPECIAL, IDS(262, 1)); /* -8 beats -4 - 5 */
    expect(t, "abab", 0, IDS(262, 262));
    expect(t, "aba a", 0, IDS(262, 260, 264)); /* -12 beats -12.5 */
    expect(t, "xyzaxy", 0, IDS(2, 260, 2));    /* neighbouring unknowns are one */
    expect(t, "x<user>y", 0, IDS(2, 265, 2));
    expect(t, "</s>", EDGELLM_PARSE_SPECIAL, IDS(1));
    expect(t, "", EDGELLM_ADD_SPECIAL, IDS(1));
    el_tokenizer_free(t);

    make(&v, "plamo2");
    v.data.special[EDGELLM_TOKEN_BOS] = 0;
    t = build(&v);
    expect(t, "abab", EDGELLM_ADD_SPECIAL, IDS(262, 262));
    expect(t, "\xE4\xB8\x96", 0, IDS(3 + 0xE4, 3 + 0xB8, 3 + 0x96)); /* pieces end where characters do */
    expect(t,
           "\xEF\xBB\xBF"
           "a\xFF",
           0, IDS(260, 3 + 0xFF));
    el_tokenizer_free(t);
    make(&v, "plamo2");
    v.tokens[40] = str("zz");
    CHECK(el_tokenizer_new(&t, &v.data) == EDGELLM_EFORMAT && strstr(el_error_text(), "<0x25>"), "%s", el_error_text());

    make(&v, "rwkv");
    v.tokens[2] = str("a\\tb\\");
    t = build(&v);
    expect(t, "abaab", 0, IDS(263, 262));
    expect(t, "\xE4\xB8\x96", 0, IDS(266, 3 + 0x96));
    expect(t, "</s>", 0, IDS(3 + '<', 3 + '/', 3 + 's', 3 + '>')); /* text is no control token */
    el_tokenizer_free(t);

    make(&v, "bert");
    t = build(&v);
    expect(t, "A aB \xC3\x81x", EDGELLM_ADD_SPECIAL, IDS(101, 264, 264, 261, 100, 102));
    el_tokenizer_free(t);
}

/* Opens, or is refused with a text, and survives any text. */
static void survive(const vocab *v)
{
    el_tokenizer *t = NULL;
    char text[256], out[64];
    int32_t ids[600];
    size_t n;

    if (el_tokenizer_new(&t, &v->data) != EDGELLM_OK)
        CHECK(!t && *el_error_text(), "refused without a reason");
    for (int round = 0; t && round < 12; round++) {
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = round % 2 ? (char)next_random() : "ab <user>\xC3\xA9"[below(11)];
        if (el_tokenize(t, text, sizeof text, (uint32_t)round % 4, ids, EL_COUNT(ids), &n) == EDGELLM_OK)
            el_detokenize(t, ids, EL_MIN(n, EL_COUNT(ids)), (uint32_t)round & 4, out, sizeof out, &n);
    }
    el_tokenizer_free(t);
}

static void test_damage(void)
{
    static const char *const odd[] = {"", "\\", "\\x", "\\x4", "\xFF\xFE", "<0xZZ>", "\xE2\x96", " ", "\xE2\x96\x81"};
    static const uint32_t scores[] = {0x7FC00000, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0xFF7FFFFF};
    uint8_t map[64];
    vocab v;

    for (size_t m = 0; m < EL_COUNT(models); m++) {
        for (size_t k = 0; k < EL_COUNT(odd); k++)
            for (int type = 0; type <= 7; type++) {
                make(&v, models[m]);
                v.tokens[261] = v.tokens[5] = str(odd[k]);
                v.types[4 * 261] = v.types[4 * 5] = (uint8_t)type;
                survive(&v);
            }
        for (size_t k = 0; k < EL_COUNT(scores); k++) {
            make(&v, models[m]);
            for (size_t i = 0; i < v.data.n_tokens; i += 2)
                memcpy(v.scores + 4 * i, &scores[k], 4);
            survive(&v);
        }
        make(&v, models[m]);
        v.data.scores = v.data.types = NULL;
        survive(&v);
        for (size_t n = 1; n < 4; n++) {
            make(&v, models[m]);
            v.data.n_tokens = n;
            survive(&v);
        }
        for (int round = 0; round < 2000; round++) { /* tables of noise, some of whose units lead on */
            size_t n = below(sizeof map);

            make(&v, models[m]);
            for (size_t i = 0; i < n; i++)
                map[i] = (uint8_t)(round % 2 ? next_random() : next_random() & 3);
            if (n > 8)
                map[0] = (uint8_t)(n - 8), map[1] = map[2] = map[3] = 0;
            v.data.charsmap = map;
            v.data.n_charsmap = n;
            v.data.remove_extra_whitespaces = (int8_t)(round & 1);
            survive(&v);
        }
    }
}

static void test_no_memory(void)
{
    for (size_t m = 0; m < EL_COUNT(models); m++) {
        edgellm_status status = EDGELLM_ENOMEM;

        for (int64_t n = 1; status == EDGELLM_ENOMEM && n < 1000; n++) {
            el_tokenizer *t = NULL;
            size_t count;
            vocab v;

            make(&v, models[m]);
            el_test_fail_after(n);
            status = el_tokenizer_new(&t, &v.data);
            if (status == EDGELLM_OK)
                status = el_tokenize(t, "ab <user>ab", 11, 0, NULL, 0, &count);
            el_test_fail_after(-1);
            CHECK(status == EDGELLM_OK || status == EDGELLM_ENOMEM, "%s, allocation %d: %s", models[m], (int)n,
                  el_error_text());
            el_tokenizer_free(t);
        }
        CHECK(status == EDGELLM_OK, "%s", models[m]);
    }
}

/* Time must grow with the text, not with its square. */
static void test_long_texts(void)
{
    static const char *const units[] = {"a", "ab", " ", "\n", " a", "x", "<", "\xE4\xBD\xA0", NULL};
    enum { N = 1 << 18 };
    char *text = malloc(N);

    for (size_t m = 0; text && m < EL_COUNT(models); m++) {
        vocab v;
        el_tokenizer *t;

        make(&v, models[m]);
        t = build(&v);
        for (size_t u = 0; t && u < EL_COUNT(units); u++) {
            clock_t start = clock();
            size_t n = 0;
            double seconds;

            for (size_t i = 0; i < N; i++)
                text[i] = units[u] ? units[u][i % strlen(units[u])] : (char)next_random();
            CHECK(el_tokenize(t, text, N, EDGELLM_PARSE_SPECIAL, NULL, 0, &n) == EDGELLM_OK, "%s", el_error_text());
            seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            CHECK(seconds < 10, "%s, unit %zu: %.1f s", models[m], u, seconds); /* under 0.1 s */
        }
        el_tokenizer_free(t);
    }
    free(text);
}

int main(void)
{
    test_trie();
    test_folds();
    test_families();
    test_damage();
    test_no_memory();
    test_long_texts();
    if (n_failed)
        printf("%d failures\n", n_failed);
    return n_failed != 0;
}
