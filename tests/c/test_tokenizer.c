/* test_tokenizer.c - the parts of the tokenizer against slow, obvious versions of the same rules, small vocabularies
 * made here, damaged ones, and allocation that fails. Exit code 0 when all is well; one line per failure otherwise.
 *   test_tokenizer                      the above
 *   test_tokenizer FILE.gguf VECTORS    a real vocabulary against recorded ids (tests/unit/test_tokenizer.py writes
 *                                       VECTORS), for places without Python, like an emulated ARM */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness.h"
#include "tokenizer_impl.h"
#include "vocab.h"

static size_t below(size_t n) { return (size_t)(next_random() % n); }

static el_str str(const char *s) { return (el_str){s, strlen(s)}; }

/* ---- cutting -------------------------------------------------------------------------- */

/* Expected pieces, separated by |; the file says where they come from. */
static const struct {
    const char *pre, *text, *pieces;
} cuts[] = {
#include "../data/vocab_small/cuts.h"
};

static void show_pieces(const char *pre_name, const char *text, char *out)
{
    size_t n = strlen(text);
    uint8_t *classes = malloc(n + 1);
    const el_pretok *pre = NULL;
    el_pretok_plan plan;

    *out = 0;
    CHECK(el_pretok_find(&pre, str(pre_name)) == EDGELLM_OK, "%s", pre_name);
    if (pre && n && classes) {
        el_pretok_prepare(&plan, pre);
        el_classify(text, n, classes);
        el_pretok_cut(&plan, text, n, classes);
        for (size_t at = 0, end; at < n; at = end) {
            end = el_piece_end(classes, at, n);
            if (at)
                *out++ = '|';
            memcpy(out, text + at, end - at);
            out += end - at;
        }
        *out = 0;
    }
    free(classes);
}

static void test_cuts(void)
{
    char shown[4096];

    for (size_t i = 0; i < EL_COUNT(cuts); i++) {
        show_pieces(cuts[i].pre, cuts[i].text, shown);
        CHECK(strcmp(shown, cuts[i].pieces) == 0, "%s on '%s': '%s', expected '%s'", cuts[i].pre, cuts[i].text, shown,
              cuts[i].pieces);
    }
}

static void test_unknown_pre(void)
{
    const el_pretok *pre = NULL;

    CHECK(el_pretok_find(&pre, str("qwen3")) == EDGELLM_EUNSUPPORTED, "found");
    CHECK(strstr(el_error_text(), "'qwen3'") && strstr(el_error_text(), "'qwen2'"), "%s", el_error_text());
    CHECK(el_pretok_find(&pre, (el_str){"", 0}) == EDGELLM_OK, "no name is the default");
}

static void test_classes(void)
{
    static const struct {
        const char *text;
        uint8_t expected[4];
    } cases[] = {
        {"a", {EL_CC_LOWER}},
        {"\xC3\xA9", {EL_CC_LETTER, EL_CC_INNER}},
        {"\xCC\x81", {EL_CC_MARK, EL_CC_INNER}},
        {"\xC2\xA0", {EL_CC_SPACE, EL_CC_INNER}},
        {"\xC2\xBD", {EL_CC_NUMBER, EL_CC_INNER}},
        {"\xE3\x80\x82", {EL_CC_PUNCTUATION, EL_CC_INNER, EL_CC_INNER}},
        {"\xF0\x9F\x9A\x80", {EL_CC_SYMBOL, EL_CC_INNER, EL_CC_INNER, EL_CC_INNER}},
        {"\xFF", {EL_CC_SYMBOL}},
        {"\xE3\x80", {EL_CC_SYMBOL, EL_CC_SYMBOL}},                   /* cut */
        {"\xED\xA0\x80", {EL_CC_SYMBOL, EL_CC_SYMBOL, EL_CC_SYMBOL}}, /* surrogate */
    };

    for (size_t i = 0; i < EL_COUNT(cases); i++) {
        uint8_t classes[4] = {0};

        el_classify(cases[i].text, strlen(cases[i].text), classes);
        CHECK(memcmp(classes, cases[i].expected, 4) == 0, "case %zu: %d %d %d %d", i, classes[0], classes[1],
              classes[2], classes[3]);
    }
}

/* ---- joining -------------------------------------------------------------------------- */

/* Symbols are single letters; a pair's key depends on its letters alone, so keys repeat and overlap. */
static uint32_t letter_key(const void *context, const char *text, size_t n_left, size_t n_right, int32_t *made)
{
    unsigned modulo = *(const unsigned *)context;
    uint32_t h = 0;

    *made = -1;
    if (n_left + n_right > 40)
        return EL_NO_PAIR;
    for (size_t i = 0; i < n_left + n_right; i++)
        h = h * 31 + (uint8_t)text[i];
    h ^= (uint32_t)n_left * 77;
    *made = (int32_t)(h % 100000);
    return h % modulo % 3 == 0 ? h % modulo : EL_NO_PAIR;
}

static size_t join_slowly(const unsigned *modulo, const char *text, size_t n, size_t *ends)
{
    for (size_t i = 0; i < n; i++)
        ends[i] = i + 1;
    for (;;) {
        uint32_t low = EL_NO_PAIR;
        size_t best = 0;

        for (size_t i = 0; i + 1 < n; i++) {
            size_t start = i ? ends[i - 1] : 0;
            int32_t made;
            uint32_t key = letter_key(modulo, text + start, ends[i] - start, ends[i + 1] - ends[i], &made);

            if (key < low) {
                low = key;
                best = i;
            }
        }
        if (low == EL_NO_PAIR)
            return n;
        memmove(ends + best, ends + best + 1, (n - best - 1) * sizeof *ends);
        n--;
    }
}

static void test_join(void)
{
    enum { MAX = 700 };
    char text[MAX];
    size_t ends[MAX];
    unsigned modulo = 10;
    el_merger m;

    CHECK(el_merger_init(&m, letter_key, &modulo, 100) == EDGELLM_OK, "init");
    for (int round = 0; round < 400; round++) {
        size_t n = 1 + below(round % 8 == 0 ? MAX : 40), count, symbol = 0;

        modulo = 2 + (unsigned)below(300);
        memset(m.cache, 0xFF, (m.cache_mask + 1) * sizeof *m.cache);
        for (size_t i = 0; i < n; i++)
            text[i] = (char)('a' + below(1 + round % 5));
        CHECK(el_merger_reserve(&m, n) == EDGELLM_OK, "reserve");
        for (size_t i = 0; i <= n; i++)
            m.offset[i] = (uint32_t)i;
        for (size_t i = 0; i < n; i++)
            m.id[i] = -1; /* the cache is by id, and ids here do not name the text */
        m.text = text;
        el_merger_run(&m, n);
        count = join_slowly(&modulo, text, n, ends);
        for (size_t i = 0; i < count && symbol < n; i++, symbol = m.next[symbol])
            if (m.offset[m.next[symbol]] != ends[i]) {
                CHECK(false, "round %d: symbol %zu ends at %u, expected %zu", round, i, m.offset[m.next[symbol]],
                      ends[i]);
                break;
            }
        CHECK(symbol == n || n_failed, "round %d: %zu symbols expected", round, count);
    }
    el_merger_free(&m);
}

/* ---- special tokens ------------------------------------------------------------------- */

/* Longest first, then leftmost, then again in what is left: by brute force. owner[i]: token + 1 of the match there. */
static void match_slowly(const char *text, size_t n, el_str *pieces, size_t n_pieces, int *owner)
{
    memset(owner, 0, n * sizeof *owner);
    for (size_t length = n; length > 0; length--)
        for (size_t at = 0; at + length <= n; at++) {
            bool clear = true;

            for (size_t i = at; i < at + length; i++)
                clear = clear && owner[i] == 0;
            for (size_t p = 0; clear && p < n_pieces; p++)
                if (pieces[p].n == length && memcmp(pieces[p].data, text + at, length) == 0) {
                    for (size_t i = at; i < at + length; i++)
                        owner[i] = (int)p + 1;
                    clear = false;
                }
        }
}

static void test_specials(void)
{
    enum { N = 60, PIECES = 12 };

    for (int round = 0; round < 3000; round++) {
        char text[N], letters[PIECES][8];
        el_str pieces[PIECES];
        int expected[N], found[N] = {0};
        el_specials s = {0};
        el_special_walk walk;
        el_match match;
        int alphabet = 1 + round % 3;

        for (size_t p = 0; p < PIECES; p++) {
            pieces[p] = (el_str){letters[p], 1 + below(round % 2 ? 4 : 8)};
            for (size_t i = 0; i < pieces[p].n; i++)
                letters[p][i] = (char)('a' + below((size_t)alphabet));
            CHECK(el_specials_add(&s, pieces[p], (int32_t)p, true) == EDGELLM_OK, "add");
        }
        for (size_t i = 0; i < N; i++)
            text[i] = (char)('a' + below((size_t)alphabet + (round % 4 == 0)));
        match_slowly(text, N, pieces, PIECES, expected);
        el_special_walk_init(&walk, &s, text, N, false);
        do {
            CHECK(el_special_walk_next(&walk, &match) == EDGELLM_OK, "next");
            for (size_t i = 0; i < match.n; i++)
                found[match.start + i] = match.token + 1;
        } while (match.n);
        CHECK(memcmp(found, expected, sizeof found) == 0, "round %d: '%.*s'", round, N, text);
        el_special_walk_free(&walk);
        el_specials_free(&s);
    }
}

/* ---- vocabularies made here ----------------------------------------------------------- */

enum { MAX_TOKENS = 400 };

typedef struct vocab { /* el_vocab_data with its arrays */
    el_vocab_data data;
    el_str tokens[MAX_TOKENS], merges[MAX_TOKENS];
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

static void start_vocab(vocab *v, const char *model)
{
    memset(v, 0, sizeof *v);
    v->data.model = str(model);
    v->data.tokens = v->tokens;
    v->data.types = v->types;
    for (size_t i = 0; i < EL_COUNT(v->data.special); i++)
        v->data.special[i] = -1;
    v->data.add_bos = v->data.add_eos = v->data.add_sep = v->data.add_space_prefix = -1;
    v->data.remove_extra_whitespaces = v->data.ignore_merges = v->data.lowercase = v->data.strip_accents = -1;
    v->data.cls = -1;
}

/* The byte alphabet, then "he" "ll" "hell" "hello" "Ġhello", a control and a user-defined token. */
static void make_bpe(vocab *v, const char *pre)
{
    static const char *const merges[] = {"h e", "l l", "he ll", "hell o", "\xC4\xA0 hello"};

    start_vocab(v, "gpt2");
    v->data.pre = str(pre);
    for (int byte = 0; byte < 256; byte++) {
        el_byte_letter((uint8_t)byte, v->letters[byte]);
        add_token(v, v->letters[byte], EL_TOKEN_NORMAL, 0);
    }
    add_token(v, "he", EL_TOKEN_NORMAL, 0);            /* 256 */
    add_token(v, "ll", EL_TOKEN_NORMAL, 0);            /* 257 */
    add_token(v, "hell", EL_TOKEN_NORMAL, 0);          /* 258 */
    add_token(v, "hello", EL_TOKEN_NORMAL, 0);         /* 259 */
    add_token(v, "\xC4\xA0hello", EL_TOKEN_NORMAL, 0); /* 260 */
    add_token(v, "<|im_end|>", EL_TOKEN_CONTROL, 0);   /* 261 */
    add_token(v, "<user>", EL_TOKEN_USER_DEFINED, 0);  /* 262 */
    add_token(v, "<s>", EL_TOKEN_CONTROL, 0);          /* 263 */
    for (size_t i = 0; i < EL_COUNT(merges); i++)
        v->merges[i] = str(merges[i]);
    v->data.merges = v->merges;
    v->data.n_merges = EL_COUNT(merges);
    v->data.special[EDGELLM_TOKEN_BOS] = 263;
}

/* <unk> <s> </s>, byte tokens 3 to 258, then pieces. */
static void make_spm(vocab *v, bool bytes)
{
    start_vocab(v, "llama");
    v->data.scores = v->scores;
    add_token(v, "<unk>", EL_TOKEN_UNKNOWN, 0);
    add_token(v, "<s>", EL_TOKEN_CONTROL, 0);
    add_token(v, "</s>", EL_TOKEN_CONTROL, 0);
    for (int byte = 0; byte < 256 && bytes; byte++) {
        snprintf(v->letters[byte], sizeof v->letters[byte], "<0x%02X>", byte);
        add_token(v, v->letters[byte], EL_TOKEN_BYTE, 0);
    }
    add_token(v, "\xE2\x96\x81", EL_TOKEN_NORMAL, -9); /* 259 */
    add_token(v, "a", EL_TOKEN_NORMAL, -8);            /* 260 */
    add_token(v, "b", EL_TOKEN_NORMAL, -7);            /* 261 */
    add_token(v, "ab", EL_TOKEN_NORMAL, -2);           /* 262 */
    add_token(v,
              "\xE2\x96\x81"
              "a",
              EL_TOKEN_NORMAL, -1);                /* 263 */
    add_token(v, "<u>", EL_TOKEN_USER_DEFINED, 0); /* 264 */
}

static el_tokenizer *build(const vocab *v)
{
    el_tokenizer *t = NULL;
    edgellm_status status = el_tokenizer_new(&t, &v->data);

    CHECK(status == EDGELLM_OK, "%s", el_error_text());
    return t;
}

#define IDS(...) (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static void expect_ids(const el_tokenizer *t, const char *text, size_t n_text, uint32_t flags, const int32_t *expected,
                       size_t n_expected)
{
    int32_t ids[64] = {0};
    size_t n = 0;
    edgellm_status status = el_tokenize(t, text, n_text, flags, ids, 64, &n);

    CHECK(status == EDGELLM_OK, "'%s': %s", text, el_error_text());
    CHECK(n == n_expected && (n == 0 || memcmp(ids, expected, n * sizeof *ids) == 0),
          "'%s' flags %u: %zu ids, first %d %d %d", text, flags, n, ids[0], ids[1], ids[2]);
    for (size_t cap = 0; cap < n; cap++) { /* never more than cap, always the full count */
        int32_t guarded[65];
        size_t again = 0;

        memset(guarded, 0x55, sizeof guarded);
        CHECK(el_tokenize(t, text, n_text, flags, guarded, cap, &again) == EDGELLM_OK && again == n, "cap %zu", cap);
        CHECK(guarded[cap] == 0x55555555, "wrote past cap %zu", cap);
    }
}

static void expect_text(const el_tokenizer *t, const int32_t *ids, size_t n_ids, uint32_t flags, const char *expected)
{
    char buf[256] = {0}, small[4] = {0};
    size_t n = 0;
    edgellm_status status = el_detokenize(t, ids, n_ids, flags, buf, sizeof buf, &n);

    CHECK(status == EDGELLM_OK && n == strlen(expected) && memcmp(buf, expected, n) == 0, "'%.*s', expected '%s'",
          (int)n, buf, expected);
    CHECK(el_detokenize(t, ids, n_ids, flags, small, 3, &n) == EDGELLM_OK && n == strlen(expected) && small[3] == 0,
          "small buffer");
}

static void test_bpe(void)
{
    vocab v;
    el_tokenizer *t;

    make_bpe(&v, "gpt-2");
    t = build(&v);
    if (!t)
        return;
    expect_ids(t, "", 0, 0, NULL, 0);
    expect_ids(t, "hello hello", 11, 0, IDS(259, 260));
    expect_ids(t, "helhello", 8, 0, IDS(256, 'l', 259)); /* ranks, not lengths, decide */
    expect_ids(t, "hello<|im_end|>", 15, EDGELLM_PARSE_SPECIAL, IDS(259, 261));
    expect_ids(t, "<user>hello", 11, 0, IDS(262, 259));
    expect_ids(t, "<s>", 3, 0, IDS('<', 's', '>'));
    expect_ids(t, "he", 2, EDGELLM_ADD_SPECIAL, IDS(256));
    expect_ids(t, "\xFF\x00h", 3, 0, IDS(0xFF, 0, 'h'));
    expect_text(t, IDS(259, 260, 0xFF), 0, "hello hello\xFF");
    expect_text(t, IDS(263, 259, 261), 0, "hello");
    expect_text(t, IDS(263, 259, 261), EDGELLM_KEEP_SPECIAL, "<s>hello<|im_end|>");
    expect_text(t, IDS(259, ' ', '!'), 0, "hello!"); /* gpt-2 cleans */
    CHECK(el_tokenizer_special(t, EDGELLM_TOKEN_EOT) == 261, "by its spelling");
    CHECK(el_tokenizer_is_eog(t, 261) && !el_tokenizer_is_eog(t, 263) && !el_tokenizer_is_eog(t, -1), "ends");
    CHECK(!el_tokenizer_is_eog(t, 264) && el_tokenizer_piece(t, 264).n == 0, "outside");
    CHECK(el_token_bytes(t, 260, 0, NULL, 0) == 6, "length only");
    el_tokenizer_free(t);

    v.data.add_bos = 1;
    v.data.pre = str("smollm");
    t = build(&v);
    if (t) {
        expect_ids(t, "he", 2, EDGELLM_ADD_SPECIAL, IDS(263, 256));
        expect_text(t, IDS(259, ' ', '!'), 0, "hello !");
        CHECK(el_tokenizer_adds(t, EDGELLM_TOKEN_BOS) && !el_tokenizer_adds(t, EDGELLM_TOKEN_EOS), "adds");
    }
    el_tokenizer_free(t);
}

/* Text must not become a control token through merges either. */
static void test_no_control_by_merge(void)
{
    vocab v;
    el_tokenizer *t;

    make_bpe(&v, "gpt-2");
    v.types[4 * 259] = EL_TOKEN_CONTROL; /* "hello" */
    t = build(&v);
    if (!t)
        return;
    expect_ids(t, "hello", 5, 0, IDS('h', 'e', 'l', 'l', 'o'));
    expect_ids(t, "hello", 5, EDGELLM_PARSE_SPECIAL, IDS(259));
    el_tokenizer_free(t);
}

static void test_spm(void)
{
    vocab v;
    el_tokenizer *t;

    make_spm(&v, true);
    t = build(&v);
    if (!t)
        return;
    expect_ids(t, "ab", 2, 0, IDS(263, 261)); /* the prefix blank joins first: -1 beats -2 */
    expect_ids(t, "bab ab", 6, 0, IDS(259, 261, 262, 263, 261));
    expect_ids(t, "a", 1, EDGELLM_ADD_SPECIAL, IDS(1, 263));
    expect_ids(t, "<u>a", 4, 0, IDS(264, 263)); /* user-defined; the text after it begins anew */
    expect_ids(t, "</s>", 4, EDGELLM_PARSE_SPECIAL, IDS(2));
    expect_ids(t, "\xC3\xA9", 2, 0, IDS(259, 3 + 0xC3, 3 + 0xA9));
    expect_ids(t, "\xFF", 1, 0, IDS(259, 3 + 0xFF));
    expect_ids(t, "<0x0A>", 6, 0, IDS(259, 3 + '<', 3 + '0', 3 + 'x', 3 + '0', 3 + 'A', 3 + '>'));
    expect_text(t, IDS(1, 263, 261), 0, "ab"); /* without the blank that was put before */
    expect_text(t, IDS(263, 263), 0, "a a");
    CHECK(el_tokenizer_special(t, EDGELLM_TOKEN_EOS) == 2 && el_tokenizer_is_eog(t, 2), "SentencePiece's numbers");
    el_tokenizer_free(t);

    make_spm(&v, false); /* pieces only: what has none is unknown */
    t = build(&v);
    if (t)
        expect_ids(t, "ax", 2, 0, IDS(7, 0));
    el_tokenizer_free(t);

    make_spm(&v, false);
    v.types[0] = EL_TOKEN_CONTROL; /* no stand-in either */
    t = build(&v);
    if (t) {
        size_t n = 5;
        CHECK(el_tokenize(t, "x", 1, 0, NULL, 0, &n) == EDGELLM_EUNSUPPORTED && n == 0, "no token for x");
        CHECK(strstr(el_error_text(), "0x78") != NULL, "%s", el_error_text());
    }
    el_tokenizer_free(t);
}

static void test_no_text(void)
{
    vocab v;
    el_tokenizer *t;
    size_t n = 1;

    start_vocab(&v, "test");
    add_token(&v, "one", EL_TOKEN_NORMAL, 0);
    t = build(&v);
    if (!t)
        return;
    CHECK(!el_tokenizer_has_text(t) && el_tokenizer_n_tokens(t) == 1, "test");
    CHECK(el_tokenize(t, "a", 1, 0, NULL, 0, &n) == EDGELLM_EUNSUPPORTED && n == 0, "text");
    CHECK(el_detokenize(t, IDS(0), 0, NULL, 0, &n) == EDGELLM_EUNSUPPORTED, "ids");
    CHECK(el_detokenize(t, IDS(1), 0, NULL, 0, &n) == EDGELLM_EINVAL, "id outside");
    CHECK(el_token_bytes(t, 0, 0, NULL, 0) == 0 && !el_tokenizer_is_eog(t, 0), "nothing to write, nothing ends");
    el_tokenizer_free(t);
}

/* ---- damaged vocabularies ------------------------------------------------------------- */

static void expect_refused(const vocab *v, edgellm_status expected, const char *word)
{
    el_tokenizer *t = NULL;
    edgellm_status status = el_tokenizer_new(&t, &v->data);

    CHECK(status == expected && !t, "status %d", status);
    CHECK(strstr(el_error_text(), word), "'%s' does not name %s", el_error_text(), word);
    el_tokenizer_free(t);
}

/* Opens and survives any text; what comes out is not the point. */
static void expect_alive(const vocab *v)
{
    el_tokenizer *t = build(v);
    char text[512];
    int32_t ids[2048];
    size_t n = 0;

    if (!t)
        return;
    for (int round = 0; round < 20; round++) {
        char out[64];

        for (size_t i = 0; i < sizeof text; i++)
            text[i] = round % 2 ? (char)next_random() : "hello <s>ab"[below(11)];
        if (el_tokenize(t, text, sizeof text, (uint32_t)round % 4, ids, EL_COUNT(ids), &n) == EDGELLM_OK)
            el_detokenize(t, ids, EL_MIN(n, EL_COUNT(ids)), (uint32_t)round & 4, out, sizeof out, &n);
    }
    for (size_t id = 0; id < el_tokenizer_n_tokens(t); id++)
        el_token_bytes(t, (int32_t)id, EDGELLM_KEEP_SPECIAL, text, sizeof text);
    el_tokenizer_free(t);
}

static void test_damage(void)
{
    static const char *const odd[] = {"he", "", "\x00\x01", "\xFF\xFE", "<0xZZ>", "<0x>", "\xE2\x96", " ", "<s>"};
    static const char *const merges[] = {"", " ", "  ", "h", " e", "h e", "h e l", "\xFF \xFE", "he "};
    vocab v;

    start_vocab(&v, "wordpiece");
    expect_refused(&v, EDGELLM_EUNSUPPORTED, "wordpiece");
    start_vocab(&v, "gpt2");
    expect_refused(&v, EDGELLM_EFORMAT, "tokens");
    make_bpe(&v, "gpt-2");
    v.data.n_merges = 0;
    expect_refused(&v, EDGELLM_EFORMAT, "merges");
    make_bpe(&v, "mistral-9");
    expect_refused(&v, EDGELLM_EUNSUPPORTED, "mistral-9");
    make_bpe(&v, "gpt-2");
    v.data.special[EDGELLM_TOKEN_EOS] = 264;
    expect_refused(&v, EDGELLM_EFORMAT, "eos_token_id");

    for (size_t k = 0; k < EL_COUNT(odd); k++)
        for (int type = -1; type <= 7; type++) {
            make_bpe(&v, k % 2 ? "llama3" : "gemma4");
            v.tokens[257] = (el_str){odd[k], k == 2 ? 2 : strlen(odd[k])};
            v.types[4 * 257] = (uint8_t)type;
            v.types[4 * 257 + 3] = type < 0 ? 0xFF : 0;
            expect_alive(&v);
            make_spm(&v, k % 2 == 0);
            v.tokens[5] = v.tokens[6] = (el_str){odd[k], k == 2 ? 2 : strlen(odd[k])};
            v.types[4 * 5] = (uint8_t)type;
            expect_alive(&v);
        }
    for (size_t k = 0; k < EL_COUNT(merges); k++) {
        make_bpe(&v, "gpt-2");
        v.merges[0] = v.merges[3] = str(merges[k]);
        expect_alive(&v);
    }
    for (int k = 0; k < 4; k++) { /* scores: NaN of both signs, infinities */
        static const uint32_t bits[] = {0x7FC00000, 0xFFFFFFFF, 0x7F800000, 0xFF800000};

        make_spm(&v, true);
        for (size_t i = 0; i < v.data.n_tokens; i += 2)
            memcpy(v.scores + 4 * i, &bits[k], 4);
        expect_alive(&v);
    }
    make_spm(&v, true);
    v.data.scores = NULL;
    v.data.types = NULL;
    expect_alive(&v);
    make_bpe(&v, "gpt-2");
    v.data.n_tokens = 1; /* no alphabet */
    v.data.special[EDGELLM_TOKEN_BOS] = -1;
    expect_alive(&v);
}

/* Any allocation may fail: an error, no leak (the sanitizer looks), and the next try works. */
static void test_no_memory(void)
{
    vocab v;
    bool spm = false;

    for (int family = 0; family < 2; family++, spm = true) {
        int64_t n = 1;

        for (edgellm_status status = EDGELLM_ENOMEM; status == EDGELLM_ENOMEM && n < 1000; n++) {
            el_tokenizer *t = NULL;
            int32_t ids[64];
            char buf[64];
            size_t count;

            if (spm)
                make_spm(&v, true);
            else
                make_bpe(&v, "gpt-2");
            el_test_fail_after(n);
            status = el_tokenizer_new(&t, &v.data);
            if (status == EDGELLM_OK)
                status = el_tokenize(t, "hello <user>ab", 14, 0, ids, 64, &count);
            if (status == EDGELLM_OK)
                status = el_detokenize(t, ids, count, 0, buf, sizeof buf, &count);
            el_test_fail_after(-1);
            CHECK(status == EDGELLM_OK || status == EDGELLM_ENOMEM, "allocation %d: %s", (int)n, el_error_text());
            el_tokenizer_free(t);
        }
        CHECK(n > 10 && n < 1000, "%d allocations", (int)n);
    }
}

/* One letter, one pair, blanks, random bytes: time must grow with the text, not with its square. */
static void test_long_texts(void)
{
    static const char *const units[] = {"h", "he", "hello", " ", "\n", " x", "<", "\xE4\xBD\xA0", NULL};
    enum { N = 1 << 18 };
    char *text = malloc(N);
    vocab v;

    for (int family = 0; text && family < 4; family++) {
        el_tokenizer *t;

        if (family == 3)
            make_spm(&v, true);
        else
            make_bpe(&v, family == 0 ? "gpt-2" : family == 1 ? "deepseek-llm" : "gemma4");
        t = build(&v);
        for (size_t u = 0; t && u < EL_COUNT(units); u++) {
            clock_t start = clock();
            size_t n = 0;
            double seconds;

            for (size_t i = 0; i < N; i++)
                text[i] = units[u] ? units[u][i % strlen(units[u])] : (char)next_random();
            CHECK(el_tokenize(t, text, N, EDGELLM_PARSE_SPECIAL, NULL, 0, &n) == EDGELLM_OK, "%s", el_error_text());
            seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            CHECK(seconds < 10, "family %d, unit %zu: %.1f s", family, u, seconds); /* 0.1 s; squared: hours */
        }
        el_tokenizer_free(t);
    }
    free(text);
}

/* ---- a real vocabulary ---------------------------------------------------------------- */

static uint32_t read_u32(FILE *f)
{
    uint8_t b[4] = {0};

    return fread(b, 1, 4, f) == 4 ? b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24 : 0;
}

/* A length, then that many items; NULL at the end. */
static void *read_items(FILE *f, size_t size, size_t *n)
{
    void *items = calloc((*n = read_u32(f)) + 1, size);

    if (items && fread(items, size, *n, f) != *n) {
        free(items);
        items = NULL;
    }
    return items;
}

static void check_vector(const el_tokenizer *t, FILE *f, int number)
{
    size_t n_text, n_expected[2], n_bytes, n = 0;
    char *text = read_items(f, 1, &n_text);
    int32_t *expected[2] = {read_items(f, 4, &n_expected[0]), read_items(f, 4, &n_expected[1])};
    char *bytes = read_items(f, 1, &n_bytes);
    size_t cap = 4 * n_text + 64;
    int32_t *ids = calloc(cap, sizeof *ids);
    char *out = calloc(n_bytes + 1, 1);

    if (text && expected[0] && expected[1] && bytes && ids && out) {
        for (uint32_t k = 0; k < 2; k++) {
            el_tokenize(t, text, n_text, k ? EDGELLM_ADD_SPECIAL | EDGELLM_PARSE_SPECIAL : 0, ids, cap, &n);
            CHECK(n == n_expected[k] && memcmp(ids, expected[k], 4 * n) == 0, "vector %d, flags %u: '%s'", number, k,
                  text);
        }
        el_detokenize(t, expected[0], n_expected[0], 0, out, n_bytes, &n);
        CHECK(n == n_bytes && memcmp(out, bytes, n) == 0, "vector %d: text back from ids of '%s'", number, text);
    } else {
        CHECK(false, "vector %d cannot be read", number);
    }
    free(text);
    free(expected[0]);
    free(expected[1]);
    free(bytes);
    free(ids);
    free(out);
}

static void test_file(const char *path, const char *vectors)
{
    el_gguf *file = NULL;
    el_tokenizer *t = NULL;
    FILE *f = fopen(vectors, "rb");
    edgellm_status status = el_gguf_open(&file, path, EL_GGUF_HEADER_ONLY);

    if (status == EDGELLM_OK)
        status = el_vocab_from_gguf(&t, file);
    CHECK(status == EDGELLM_OK && f, "%s", el_error_text());
    if (t && f) {
        int n = (int)read_u32(f);

        for (int i = 0; i < n; i++)
            check_vector(t, f, i);
        printf("%d vectors, %d failures\n", n, n_failed);
    }
    if (f)
        fclose(f);
    el_tokenizer_free(t);
    el_gguf_close(file);
}

int main(int argc, char **argv)
{
    if (argc == 3) {
        test_file(argv[1], argv[2]);
        return n_failed != 0;
    }
    test_classes();
    test_cuts();
    test_unknown_pre();
    test_join();
    test_specials();
    test_bpe();
    test_no_control_by_merge();
    test_spm();
    test_no_text();
    test_damage();
    test_no_memory();
    test_long_texts();
    if (n_failed)
        printf("%d failures\n", n_failed);
    return n_failed != 0;
}
