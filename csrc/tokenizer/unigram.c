/* unigram.c - SentencePiece's unigram model ("t5": T5, XLM-R, nomic-embed v2): the text is normalized, then cut so that
 * the pieces' scores, which are log probabilities, have the highest sum; characters without a piece are unknown.
 * Source: Kudo 2018, "Subword regularization", and unigram_model.cc of SentencePiece: equal sums keep the cut that was
 * found first, an unknown character costs 10 more than the worst piece, neighbouring unknowns are one token. */
#include "tokenizer_impl.h"

#include <float.h>
#include <string.h>

#include "utf8.h"

#define BIT(c) (1u << (c))

static double score_of(const uint8_t *scores, size_t id)
{
    float score;

    memcpy(&score, scores + 4 * id, 4);
    return score >= -FLT_MAX ? (double)EL_MIN(score, FLT_MAX) : (double)-FLT_MAX; /* NaN is the worst score */
}

static edgellm_status copy_scores(el_tokenizer *t, const el_vocab_data *data)
{
    float worst = FLT_MAX;

    if (!data->scores)
        return el_fail(EDGELLM_EFORMAT, "tokenizer.ggml.scores is missing; a 't5' vocabulary needs it");
    t->scores = el_alloc(t->n_tokens, sizeof *t->scores);
    if (!t->scores)
        return el_no_memory(t->n_tokens * sizeof *t->scores);
    for (size_t id = 0; id < t->n_tokens; id++) {
        int type = el_type_of(t, (int32_t)id);

        t->scores[id] = (float)score_of(data->scores, id);
        if (type == EL_TOKEN_NORMAL)
            worst = EL_MIN(worst, t->scores[id]);
        if (type == EL_TOKEN_USER_DEFINED)
            t->scores[id] = 0;
    }
    t->unknown_score = worst - 10.0F;
    return EDGELLM_OK;
}

static edgellm_status setup(el_tokenizer *t, const el_vocab_data *data)
{
    static const int32_t usual[] = {-1, 1, -1, 2, -1, 0}; /* </s> <unk> <pad> of T5 */
    edgellm_status status = EDGELLM_OK;

    t->adds_eos = true;
    t->marked_spaces = true;
    t->merges_spaces = data->remove_extra_whitespaces == 1;
    el_usual_roles(t, usual, EL_COUNT(usual));
    t->stand_in = t->special[EDGELLM_TOKEN_UNK];
    EL_TRY(el_charsmap_open(&t->charsmap, data->charsmap, data->n_charsmap));
    EL_TRY(el_index_trie(t, data, BIT(EL_TOKEN_NORMAL) | BIT(EL_TOKEN_USER_DEFINED) | BIT(EL_TOKEN_UNUSED)));
    EL_TRY(copy_scores(t, data));
    el_find_crossings(t, t->tokens, t->n_tokens);
done:
    return status;
}

/* ---- normalizing ---------------------------------------------------------------------- */

typedef struct cleaner {
    el_encoding *run;
    size_t used;
    bool prefix;  /* a blank is still to come before the text */
    bool in_word; /* the last byte was no blank */
} cleaner;

static edgellm_status put_bytes(cleaner *c, el_str s)
{
    const el_tokenizer *t = c->run->t;
    edgellm_status status = el_encoding_grow(c->run, c->used + 3 * (s.n + 1));

    for (size_t i = 0; i < s.n && status == EDGELLM_OK; i++) {
        bool blank = s.data[i] == ' ';
        bool mark = blank ? !t->merges_spaces : !c->in_word && (c->prefix || t->merges_spaces);

        if (mark)
            c->used += el_mark_spaces(c->run->word + c->used, " ", 1);
        if (!blank) {
            c->prefix = c->prefix && c->in_word;
            c->run->word[c->used++] = s.data[i];
        }
        c->in_word = !blank;
    }
    return status;
}

/* Fills run->word; *n gets the length. */
static edgellm_status normalize(el_encoding *run, const char *text, size_t n, size_t *n_out)
{
    edgellm_status status = EDGELLM_OK;
    cleaner c = {run, 0, run->t->space_prefix, false};

    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int length;
        el_str piece;
        size_t covered = el_charsmap_match(&run->t->charsmap, text + i, n - i, &piece);

        if (covered == 0) {
            length = el_utf8_next(text + i, n - i, &cp);
            covered = (size_t)EL_MAX(length, 1);
            piece = length > 0 ? (el_str){text + i, covered} : (el_str){"\xEF\xBF\xBD", 3};
        }
        EL_TRY(put_bytes(&c, piece));
        i += covered;
    }
    *n_out = c.used;
done:
    return status;
}

/* ---- the best cut --------------------------------------------------------------------- */

/* By the first byte, as SentencePiece counts: what follows is not looked at. */
static size_t char_length(const char *text, size_t n)
{
    static const uint8_t lengths[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};

    return EL_MIN(lengths[(uint8_t)text[0] >> 4], n);
}

static void offer(el_cell *cell, size_t length, int32_t id, double score)
{
    if (score > cell->score)
        *cell = (el_cell){score, (uint32_t)length, id};
}

/* Fills cells 1 to n; cell 0 holds the sum of what stands before. */
static void find_best(const el_tokenizer *t, el_cell *cells, const char *text, size_t n)
{
    for (size_t i = 1; i <= n; i++)
        cells[i] = (el_cell){-DBL_MAX, 0, -1};
    for (size_t at = 0, length; at < n; at += length) {
        bool whole = false; /* some piece is just this character */
        uint32_t node = 0;

        length = char_length(text + at, n - at);
        for (size_t i = at; i < n && (node = el_prefix_step(&t->trie, node, (uint8_t)text[i])); i++) {
            int32_t id = t->trie.ids[node];

            if (id < 0)
                continue;
            whole |= i + 1 - at == length;
            offer(&cells[i + 1], i + 1 - at, id, cells[at].score + t->scores[id]);
        }
        if (!whole)
            offer(&cells[at + length], length, -1, cells[at].score + t->unknown_score);
    }
}

/* Turns the links around: afterwards cell i holds the piece that begins at i. */
static void reverse_links(el_cell *cells, size_t n)
{
    el_cell next = cells[n];

    for (size_t at = n; at > 0;) {
        el_cell here = next;

        at -= here.length;
        next = cells[at];
        cells[at] = here;
    }
}

static edgellm_status encode_part(el_encoding *run, const char *text, size_t n, double *sum, bool *unknown)
{
    edgellm_status status = el_encoding_cells(run, n + 1);

    if (status != EDGELLM_OK)
        return status;
    run->cells[0] = (el_cell){*sum, 0, -1};
    find_best(run->t, run->cells, text, n);
    *sum = run->cells[n].score;
    reverse_links(run->cells, n);
    for (size_t at = 0; at < n; at += run->cells[at].length) {
        int32_t id = run->cells[at].id;

        if (id >= 0)
            el_emit(run, id);
        else if (!*unknown && run->t->stand_in >= 0)
            el_emit(run, run->t->stand_in);
        *unknown = id < 0;
    }
    return EDGELLM_OK;
}

static edgellm_status encode(el_encoding *run, const char *text, size_t n)
{
    const el_tokenizer *t = run->t;
    edgellm_status status = EDGELLM_OK;
    double sum = 0; /* goes on from part to part, so that rounding is that of the whole text */
    bool unknown = false;
    size_t used;

    EL_TRY(normalize(run, text, n, &used));
    for (size_t at = 0, end; at < used; at = end) {
        end = el_next_mark(t, run->word, at, used);
        EL_TRY(encode_part(run, run->word + at, end - at, &sum, &unknown));
    }
done:
    return status;
}

const el_family el_family_unigram = {"t5", setup, encode};
