/* tokenizer.c - builds a tokenizer from a vocabulary's arrays and frames texts: special tokens, BOS and EOS, and the
 * way back. What lies between two special tokens goes to the family (el_family). */
#include "tokenizer_impl.h"

#include <string.h>

#include "utf8.h"

static const el_family *const families[] = {
    &el_family_bpe,  &el_family_spm,    &el_family_gemma4,     &el_family_unigram, &el_family_wordpiece,
    &el_family_rwkv, &el_family_plamo2, &el_family_whitespace, &el_family_test,    &el_family_none};

static const char *const role_keys[] = {
    "bos_token_id",     "eos_token_id",     "eot_token_id",     "unknown_token_id", "seperator_token_id",
    "padding_token_id", "mask_token_id",    "eom_token_id",     "fim_pre_token_id", "fim_suf_token_id",
    "fim_mid_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id",
};

const char *el_special_key(int role)
{
    return role >= 0 && (size_t)role < EL_COUNT(role_keys) ? role_keys[role] : NULL;
}

/* Texts larger than this would overflow 32-bit offsets once blanks become three bytes. */
enum { MAX_TEXT = 1 << 30 };

/* ---- building ------------------------------------------------------------------------- */

static edgellm_status find_family(el_tokenizer *t, el_str model)
{
    char shown[64];

    for (size_t i = 0; i < EL_COUNT(families); i++)
        if (el_str_eq(model, families[i]->model)) {
            t->family = families[i];
            return EDGELLM_OK;
        }
    el_utf8_escape(shown, sizeof shown, model.data, model.n);
    return el_fail(EDGELLM_EUNSUPPORTED,
                   "tokenizer.ggml.model is '%s'; this version has gpt2, gemma4 and whitespace (byte-pair encoding), "
                   "llama and t5 (SentencePiece), bert (WordPiece), rwkv, plamo2, test and none (no text)",
                   shown);
}

static int32_t load_i32(const uint8_t *p)
{
    return (int32_t)((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
}

static edgellm_status copy_tokens(el_tokenizer *t, const el_vocab_data *data)
{
    if (data->n_tokens == 0 && t->family != &el_family_none)
        return el_fail(EDGELLM_EFORMAT, "tokenizer.ggml.tokens is empty; a vocabulary needs at least one token");
    if (data->n_tokens > EL_MAX_PIECES || data->n_merges > EL_MAX_PIECES)
        return el_fail(EDGELLM_EFORMAT, "the vocabulary has %zu tokens and %zu merges; at most %d of each are possible",
                       data->n_tokens, data->n_merges, EL_MAX_PIECES);
    t->n_tokens = data->n_tokens;
    t->tokens = el_alloc(t->n_tokens, sizeof *t->tokens);
    t->traits = el_alloc(t->n_tokens, 1);
    if (!t->tokens || !t->traits)
        return el_no_memory(t->n_tokens * (sizeof *t->tokens + 1));
    if (t->n_tokens)
        memcpy(t->tokens, data->tokens, t->n_tokens * sizeof *t->tokens);
    for (size_t i = 0; i < t->n_tokens; i++) {
        int32_t type = data->types ? load_i32(data->types + 4 * i) : EL_TOKEN_NORMAL;

        t->traits[i] = (uint8_t)(type < 0 || type > EL_TOKEN_BYTE ? EL_TOKEN_UNDEFINED : type);
    }
    return EDGELLM_OK;
}

/* Text may become any piece but control, unknown and byte tokens, so only the others go into the table: no merge can
 * end in a token that the text merely spells. */
static edgellm_status index_tokens(el_tokenizer *t)
{
    edgellm_status status = el_piece_table_new(&t->pieces, t->n_tokens);

    for (size_t i = 0; i < t->n_tokens && status == EDGELLM_OK; i++) {
        int type = t->traits[i];

        if (type == EL_TOKEN_CONTROL || type == EL_TOKEN_UNKNOWN ||
            (type == EL_TOKEN_BYTE && el_byte_of(t->tokens[i]) >= 0))
            t->traits[i] |= EL_TRAIT_NO_TEXT;
        if (type == EL_TOKEN_CONTROL || type == EL_TOKEN_UNKNOWN || type == EL_TOKEN_USER_DEFINED)
            status = el_specials_add(&t->specials, t->tokens[i], (int32_t)i, type == EL_TOKEN_USER_DEFINED);
    }
    if (status != EDGELLM_OK)
        return status;
    return el_piece_table_fill(&t->pieces, t->tokens, t->n_tokens, SIZE_MAX, t->traits, EL_TRAIT_NO_TEXT, "token");
}

int32_t el_find_any(const el_tokenizer *t, const char *data, size_t n)
{
    int32_t id = el_specials_find(&t->specials, data, n);

    return id >= 0 ? id : el_piece_table_find(&t->pieces, t->tokens, data, n);
}

int el_byte_of(el_str piece)
{
    int value = 0;

    if (piece.n != 6 || memcmp(piece.data, "<0x", 3) != 0 || piece.data[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = piece.data[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;

        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static edgellm_status copy_roles(el_tokenizer *t, const el_vocab_data *data)
{
    for (size_t role = 0; role < EL_N_ROLES; role++) {
        int32_t id = data->special[role];

        if (id >= 0 && (size_t)id >= t->n_tokens)
            return el_fail(EDGELLM_EFORMAT, "tokenizer.ggml.%s is %d, but the vocabulary has only %zu tokens",
                           role < EL_COUNT(role_keys) ? role_keys[role] : "token_id", id, t->n_tokens);
        t->special[role] = id < 0 ? -1 : id;
    }
    return EDGELLM_OK;
}

edgellm_status el_tokenizer_new(el_tokenizer **out, const el_vocab_data *data)
{
    edgellm_status status = EDGELLM_OK;
    el_tokenizer *t = el_alloc(1, sizeof *t);

    *out = NULL;
    if (!t)
        return el_no_memory(sizeof *t);
    memset(t->byte_ids, 0xFF, sizeof t->byte_ids);
    t->stand_in = -1;
    EL_TRY(find_family(t, data->model));
    EL_TRY(copy_tokens(t, data));
    EL_TRY(copy_roles(t, data));
    EL_TRY(t->family->setup(t, data));
    if (data->add_bos >= 0 && !(t->pre && t->pre->flags & EL_PRE_BOS_ALWAYS))
        t->adds_bos = data->add_bos;
    if (data->add_eos >= 0)
        t->adds_eos = data->add_eos;
    if (data->add_sep >= 0)
        t->adds_sep = data->add_sep;
    if (data->add_space_prefix >= 0)
        t->space_prefix = data->add_space_prefix;
    if (t->frames_always)
        t->adds_bos = t->adds_sep = true;
    if (t->frames_never)
        t->adds_bos = t->adds_eos = t->adds_sep = false;
    *out = t;
    t = NULL;
done:
    el_tokenizer_free(t);
    return status;
}

void el_usual_roles(el_tokenizer *t, const int32_t *usual, size_t n)
{
    for (size_t role = 0; role < n; role++)
        if (t->special[role] < 0 && usual[role] >= 0 && (size_t)usual[role] < t->n_tokens)
            t->special[role] = usual[role];
}

edgellm_status el_index_text(el_tokenizer *t, const el_vocab_data *data)
{
    edgellm_status status = index_tokens(t);

    return status == EDGELLM_OK ? el_known_tokens(t, data) : status;
}

edgellm_status el_index_trie(el_tokenizer *t, const el_vocab_data *data, unsigned types)
{
    edgellm_status status = EDGELLM_OK;
    el_trie_item *items = NULL;
    size_t n = 0;

    EL_TRY(el_index_text(t, data));
    items = el_alloc(t->n_tokens, sizeof *items);
    if (!items)
        return el_no_memory(t->n_tokens * sizeof *items);
    for (size_t id = 0; id < t->n_tokens; id++)
        if (types >> el_type_of(t, (int32_t)id) & 1 && !(t->traits[id] & EL_TRAIT_NO_TEXT))
            items[n++] = (el_trie_item){t->texts ? t->texts[id] : t->tokens[id], (int32_t)id};
    EL_TRY(el_prefix_trie_new(&t->trie, items, n));
done:
    el_free(items);
    return status;
}

void el_tokenizer_free(el_tokenizer *t)
{
    if (!t)
        return;
    el_free(t->tokens);
    el_free(t->traits);
    el_free(t->merges);
    el_free(t->keys);
    el_free(t->scores);
    el_free(t->texts);
    el_free(t->text_bytes);
    el_prefix_trie_free(&t->trie);
    el_piece_table_free(&t->pieces);
    el_piece_table_free(&t->merge_ranks);
    el_specials_free(&t->specials);
    el_free(t);
}

/* ---- questions ------------------------------------------------------------------------ */

static bool in_range(const el_tokenizer *t, int32_t id) { return id >= 0 && (size_t)id < t->n_tokens; }

size_t el_tokenizer_n_tokens(const el_tokenizer *t) { return t->n_tokens; }

el_str el_tokenizer_piece(const el_tokenizer *t, int32_t id)
{
    return in_range(t, id) ? t->tokens[id] : (el_str){"", 0};
}

int el_tokenizer_type(const el_tokenizer *t, int32_t id)
{
    return in_range(t, id) ? el_type_of(t, id) : EL_TOKEN_UNDEFINED;
}

int32_t el_tokenizer_special(const el_tokenizer *t, int role)
{
    return role >= 0 && role < EL_N_ROLES ? t->special[role] : -1;
}

bool el_tokenizer_is_eog(const el_tokenizer *t, int32_t id) { return in_range(t, id) && t->traits[id] & EL_TRAIT_EOG; }

bool el_tokenizer_adds(const el_tokenizer *t, int role)
{
    switch (role) {
    case EDGELLM_TOKEN_BOS:
        return t->adds_bos && t->special[role] >= 0;
    case EDGELLM_TOKEN_EOS:
        return t->adds_eos && t->special[role] >= 0;
    case EDGELLM_TOKEN_SEP:
        return t->adds_sep && t->special[role] >= 0;
    default:
        return false;
    }
}

bool el_tokenizer_has_text(const el_tokenizer *t) { return t->family->encode != NULL; }

static edgellm_status no_text(const el_tokenizer *t)
{
    return el_fail(EDGELLM_EUNSUPPORTED, "the vocabulary's tokenizer is '%s', which has no text; pass token ids",
                   t->family->model);
}

/* ---- text to ids ---------------------------------------------------------------------- */

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static edgellm_status encode_fragment(el_encoding *run, const char *text, size_t n)
{
    edgellm_status status = n ? run->t->family->encode(run, text, n) : EDGELLM_OK;

    run->after_special &= n == 0;
    return status;
}

/* White space that belongs to the tokens beside it is dropped. */
static void strip(el_special_walk *walk, const el_match *match, uint8_t traits, size_t from, size_t *n)
{
    size_t limit = walk->n_held ? walk->held[walk->n_held - 1].start : walk->n;

    if (traits & EL_TRAIT_LSTRIP)
        while (*n > 0 && is_space(walk->text[from + *n - 1]))
            --*n;
    if (traits & EL_TRAIT_RSTRIP && walk->at == match->start + match->n)
        while (walk->at < limit && is_space(walk->text[walk->at]))
            walk->at++;
}

static edgellm_status encode_text(el_encoding *run, const char *text, size_t n, bool parse)
{
    const el_tokenizer *t = run->t;
    edgellm_status status = EDGELLM_OK;
    el_special_walk walk;

    el_special_walk_init(&walk, &t->specials, text, n, parse);
    for (size_t from = 0; from < n; from = walk.at) {
        el_match match;
        size_t length;

        EL_TRY(el_special_walk_next(&walk, &match));
        length = match.start - from;
        if (match.n && t->has_strip)
            strip(&walk, &match, t->traits[match.token], from, &length);
        EL_TRY(encode_fragment(run, text + from, length));
        if (match.n) {
            el_emit(run, match.token);
            run->after_special = true;
        }
    }
done:
    el_special_walk_free(&walk);
    return status;
}

edgellm_status el_tokenize(const el_tokenizer *t, const char *text, size_t n_bytes, uint32_t flags, int32_t *ids,
                           size_t cap, size_t *n)
{
    edgellm_status status = EDGELLM_OK;
    el_encoding run = {.t = t, .ids = ids, .cap = cap, .after_special = true};

    *n = 0;
    if (!t->family->encode)
        return no_text(t);
    if (n_bytes > MAX_TEXT)
        return el_fail(EDGELLM_EINVAL, "the text has %zu bytes; at most %d are possible in one call", n_bytes,
                       MAX_TEXT);
    if (t->pair)
        EL_TRY(el_merger_init(&run.merger, t->pair, t, n_bytes));
    if (flags & EDGELLM_ADD_SPECIAL && el_tokenizer_adds(t, EDGELLM_TOKEN_BOS))
        el_emit(&run, t->special[EDGELLM_TOKEN_BOS]);
    EL_TRY(encode_text(&run, text, n_bytes, flags & EDGELLM_PARSE_SPECIAL));
    if (flags & EDGELLM_ADD_SPECIAL && el_tokenizer_adds(t, EDGELLM_TOKEN_EOS) && !t->frames_always)
        el_emit(&run, t->special[EDGELLM_TOKEN_EOS]);
    if (flags & EDGELLM_ADD_SPECIAL && el_tokenizer_adds(t, EDGELLM_TOKEN_SEP) && t->frames_always)
        el_emit(&run, t->special[EDGELLM_TOKEN_SEP]);
    *n = run.n;
done:
    el_encoding_free(&run);
    return status;
}
