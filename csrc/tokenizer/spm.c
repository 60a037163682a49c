/* spm.c - SentencePiece-style BPE ("llama"): the pair whose joined piece scores highest goes first, blanks are U+2581,
 * characters without a piece become byte tokens. Source: Kudo & Richardson 2018, "SentencePiece"; the order of equal
 * scores (leftmost first) is that of its bpe_model.cc. */
#include "tokenizer_impl.h"

#include <string.h>

/* Lower key, higher score. NaN counts as the lowest score. */
static uint32_t key_of(const uint8_t *p)
{
    uint32_t bits = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;

    if ((bits & 0x7FFFFFFF) > 0x7F800000)
        bits = 0xFF800000;
    if (bits == 0x80000000)
        bits = 0; /* -0 and 0 are equal */
    return bits & 0x80000000 ? bits : ~(bits | 0x80000000);
}

static uint32_t pair_score(const void *context, const char *text, size_t n_left, size_t n_right, int32_t *made)
{
    const el_tokenizer *t = context;

    *made = el_piece_table_find(&t->pieces, t->tokens, text, n_left + n_right);
    return *made < 0 ? EL_NO_PAIR : t->keys ? t->keys[*made] : 0;
}

void el_index_bytes(el_tokenizer *t)
{
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        int32_t id = el_piece_table_find(&t->pieces, t->tokens, &c, 1);

        t->byte_ids[byte] = id;
        if (byte < 128)
            t->ascii_ids[byte] = id;
    }
    for (size_t id = t->n_tokens; id-- > 0;) { /* of equal ones the first stays */
        int byte = t->tokens[id].n == 6 ? el_byte_of(t->tokens[id]) : -1;

        if (byte >= 0)
            t->byte_ids[byte] = (int32_t)id;
    }
}

static edgellm_status setup(el_tokenizer *t, const el_vocab_data *data)
{
    static const int32_t usual[] = {1, 2, -1, 0}; /* SentencePiece's own numbers */
    edgellm_status status = EDGELLM_OK;

    t->pair = pair_score;
    t->adds_bos = true;
    t->space_prefix = true;
    t->marked_spaces = true;
    el_usual_roles(t, usual, EL_COUNT(usual));
    EL_TRY(el_index_text(t, data));
    el_index_bytes(t);
    el_find_crossings(t, t->tokens, t->n_tokens);
    if (t->special[EDGELLM_TOKEN_UNK] >= 0 && el_type_of(t, t->special[EDGELLM_TOKEN_UNK]) != EL_TOKEN_CONTROL)
        t->stand_in = t->special[EDGELLM_TOKEN_UNK];
    if (data->scores) {
        t->keys = el_alloc(t->n_tokens, sizeof *t->keys);
        if (!t->keys)
            return el_no_memory(t->n_tokens * sizeof *t->keys);
        for (size_t i = 0; i < t->n_tokens; i++)
            t->keys[i] = key_of(data->scores + 4 * i);
    }
done:
    return status;
}

static edgellm_status encode_word(el_encoding *run, const char *text, size_t n, bool prefix)
{
    edgellm_status status = EDGELLM_OK;
    size_t used = 0, count;

    EL_TRY(el_encoding_word(run, 3 * (n + 1)));
    if (prefix)
        used = el_mark_spaces(run->word, " ", 1);
    used += el_mark_spaces(run->word + used, text, n);
    EL_TRY(el_symbols_of(run, used, &count));
    el_merger_run(&run->merger, count);
    EL_TRY(el_emit_symbols(run, count));
done:
    return status;
}

static edgellm_status encode(el_encoding *run, const char *text, size_t n)
{
    bool prefix = run->t->space_prefix && run->after_special;
    edgellm_status status = el_known_words(run, n);

    for (size_t at = 0, end; at < n && status == EDGELLM_OK; at = end) {
        bool first = prefix && at == 0;
        el_known_word key = {0};

        end = el_next_blank(run->t, text, at, n);
        if (!first && el_known_word_emit(run, text + at, end - at, n - at, &key))
            continue;
        status = encode_word(run, text + at, end - at, first);
        el_known_word_keep(run, &key);
    }
    return status;
}

const el_family el_family_spm = {"llama", setup, encode};
