/* fuzz_tokenizer.c - libFuzzer target: any bytes as a small vocabulary and a text for it. The first byte chooses
 * family and pre-tokenizer; then come lines "TYPE PIECE" (tokens, with the byte alphabet of the family before them),
 * after an empty line merges (for t5 the normalizer's table instead), after another the text. The corpus is written by
 * hand, a file for each family. */
#include "tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum { MAX_LINES = 600 };

static const struct {
    const char *model, *pre;
} kinds[] = {{"gpt2", "gpt-2"},     {"gpt2", "llama3"},  {"gpt2", "qwen35"},     {"gpt2", "deepseek-llm"},
             {"gpt2", "tekken"},    {"gpt2", "gpt-4o"},  {"gpt2", "exaone-moe"}, {"gpt2", "jais-2"},
             {"gpt2", "afmoe"},     {"gpt2", "kimi-k2"}, {"gpt2", "superbpe"},   {"gpt2", "youtu"},
             {"gpt2", "chameleon"}, {"gemma4", ""},      {"llama", ""},          {"test", ""},
             {"bert", ""},          {"t5", ""},          {"rwkv", ""},           {"plamo2", ""},
             {"whitespace", ""}};

typedef struct cursor {
    const char *at, *end;
} cursor;

/* The next line without its newline; false at an empty one, which is skipped, and at the end. */
static bool next_line(cursor *c, el_str *line)
{
    const char *start = c->at;

    while (c->at < c->end && *c->at != '\n')
        c->at++;
    *line = (el_str){start, (size_t)(c->at - start)};
    c->at += c->at < c->end;
    return line->n > 0;
}

static size_t add_bytes(el_str *tokens, char letters[256][8], bool spelled)
{
    for (int b = 0; b < 256; b++) {
        size_t n = 6;

        if (spelled)
            memcpy(letters[b], (char[]){'<', '0', 'x', "0123456789ABCDEF"[b >> 4], "0123456789ABCDEF"[b & 15], '>'}, 6);
        else
            n = (size_t)el_byte_letter((uint8_t)b, letters[b]);
        tokens[b] = (el_str){letters[b], n};
    }
    return 256;
}

static void use(const el_tokenizer *t, const char *text, size_t n)
{
    size_t n_ids = 0, n_out = 0, n_again = 0;
    int32_t *ids = NULL;
    char small[7];

    for (uint32_t flags = 0; flags < 4; flags++) {
        if (el_tokenize(t, text, n, flags, NULL, 0, &n_ids) != EDGELLM_OK)
            continue;
        free(ids);
        ids = malloc((n_ids + 1) * sizeof *ids);
        if (!ids)
            return;
        if (el_tokenize(t, text, n, flags, ids, n_ids, &n_again) != EDGELLM_OK || n_again != n_ids)
            abort();
        for (size_t i = 0; i < n_ids; i++) {
            if (ids[i] < 0 || (size_t)ids[i] >= el_tokenizer_n_tokens(t))
                abort();
            if (flags == 0 && el_tokenizer_type(t, ids[i]) == EL_TOKEN_CONTROL &&
                ids[i] != el_tokenizer_special(t, EDGELLM_TOKEN_UNK))
                abort(); /* text became a control token */
        }
        if (el_detokenize(t, ids, n_ids, EDGELLM_KEEP_SPECIAL, small, sizeof small, &n_out) != EDGELLM_OK)
            abort();
    }
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static el_str tokens[MAX_LINES + 256], merges[MAX_LINES];
    static uint8_t types[4 * (MAX_LINES + 256)], scores[4 * (MAX_LINES + 256)];
    static char letters[256][8];
    el_vocab_data vocab = {.tokens = tokens, .types = types, .scores = scores, .merges = merges};
    cursor c = {(const char *)data + 1, (const char *)data + n_bytes};
    el_tokenizer *t = NULL;
    el_str line;
    size_t kind;

    if (n_bytes == 0)
        return 0;
    kind = (data[0] & 31) % EL_COUNT(kinds);
    vocab.model = (el_str){kinds[kind].model, strlen(kinds[kind].model)};
    vocab.pre = (el_str){kinds[kind].pre, strlen(kinds[kind].pre)};
    vocab.name = (el_str){"Phi-3", data[0] & 64 ? 5 : 0};
    memset(vocab.special, 0xFF, sizeof vocab.special);
    vocab.add_bos = vocab.add_eos = data[0] & 128 ? 1 : -1;
    vocab.add_sep = vocab.add_space_prefix = vocab.remove_extra_whitespaces = vocab.ignore_merges = -1;
    vocab.lowercase = vocab.strip_accents = -1;
    vocab.cls = -1;
    memset(types, 0, sizeof types);
    if (!(data[0] & 32))
        vocab.n_tokens = add_bytes(tokens, letters, strcmp(kinds[kind].model, "gpt2") != 0);
    for (size_t i = 0; i < vocab.n_tokens; i++)
        types[4 * i] = strcmp(kinds[kind].model, "gpt2") ? EL_TOKEN_BYTE : EL_TOKEN_NORMAL;
    while (vocab.n_tokens < EL_COUNT(tokens) && next_line(&c, &line)) {
        size_t i = vocab.n_tokens++;

        types[4 * i] = (uint8_t)(line.data[0] - '0');
        tokens[i] = (el_str){line.data + (line.n > 1 ? 2 : 1), line.n > 1 ? line.n - 2 : 0};
        memcpy(scores + 4 * i, line.data, EL_MIN(line.n, 4));
    }
    vocab.charsmap = (const uint8_t *)c.at;
    while (vocab.n_merges < EL_COUNT(merges) && next_line(&c, &line))
        merges[vocab.n_merges++] = line;
    vocab.n_charsmap = vocab.n_merges ? (size_t)(merges[vocab.n_merges - 1].data - (const char *)vocab.charsmap) +
                                            merges[vocab.n_merges - 1].n
                                      : 0;
    if (vocab.n_tokens)
        vocab.special[data[0] & 7] = (int32_t)(n_bytes % vocab.n_tokens);
    el_error_clear();
    if (el_tokenizer_new(&t, &vocab) == EDGELLM_OK)
        use(t, c.at, (size_t)(c.end - c.at));
    else if (t || !*el_error_text())
        abort();
    el_tokenizer_free(t);
    return 0;
}
