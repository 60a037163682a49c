/* plamo2.c - the tokenizer of PLaMo 2 ("plamo2"): of all ways to cut the text that with the highest sum of scores,
 * where scores are rounded to 1/10,000 and a character without a piece costs 1000 and goes out as bytes. Found from the
 * end of the text to its beginning; of equal sums the longer first piece wins. Source: tokenization_plamo.py of
 * Preferred Networks (PLaMo 2), which walks an automaton of reversed suffixes; here a trie finds the same pieces. */
#include "tokenizer_impl.h"

#include <float.h>
#include <string.h>

#include "utf8.h"

#define BIT(c) (1u << (c))

enum { SCALE = 10000, UNKNOWN_COST = 10000000, UNUSABLE_COST = 20000000 };

/* Costs of pieces, whole numbers; those that must not be used stay out of the trie. */
static edgellm_status copy_costs(el_tokenizer *t, const el_vocab_data *data)
{
    t->scores = el_alloc(t->n_tokens, sizeof *t->scores);
    if (!t->scores)
        return el_no_memory(t->n_tokens * sizeof *t->scores);
    for (size_t id = 0; id < t->n_tokens && data->scores; id++) {
        float score;
        double scaled;

        memcpy(&score, data->scores + 4 * id, 4);
        scaled = (double)score * SCALE;
        if (!(scaled > -UNUSABLE_COST && score <= FLT_MAX))
            t->traits[id] |= EL_TRAIT_NO_TEXT;
        else
            t->scores[id] = (float)(int64_t)EL_MIN(scaled < 0 ? scaled - 0.5 : scaled + 0.5, 1e9);
    }
    return EDGELLM_OK;
}

static edgellm_status check_bytes(const el_tokenizer *t)
{
    for (int byte = 0; byte < 256; byte++)
        if (t->byte_ids[byte] < 0)
            return el_fail(EDGELLM_EFORMAT,
                           "the vocabulary has no byte token <0x%02X>; a 'plamo2' vocabulary needs all",
                           (unsigned)byte);
    return EDGELLM_OK;
}

static edgellm_status setup(el_tokenizer *t, const el_vocab_data *data)
{
    static const int32_t usual[] = {1, 2, -1, 0, -1, 3}; /* bos eos unk pad of PLaMo 2 */
    edgellm_status status = EDGELLM_OK;

    t->frames_never = true;
    t->plain_pieces = true;
    el_usual_roles(t, usual, EL_COUNT(usual));
    EL_TRY(copy_costs(t, data));
    EL_TRY(el_index_trie(
        t, data, BIT(EL_TOKEN_UNDEFINED) | BIT(EL_TOKEN_NORMAL) | BIT(EL_TOKEN_USER_DEFINED) | BIT(EL_TOKEN_UNUSED)));
    el_index_bytes(t);
    EL_TRY(check_bytes(t));
done:
    return status;
}

/* The cell at each beginning of a character: what goes first from there. Other cells have length 0. */
static void find_best(const el_tokenizer *t, el_cell *cells, const char *text, size_t n)
{
    for (size_t at = n; at-- > 0;) {
        el_cell best = cells[at]; /* its length is the character's */
        uint32_t node = 0;

        if (best.length == 0)
            continue;
        best.score = cells[at + best.length].score + UNKNOWN_COST;
        for (size_t i = at; i < n && (node = el_prefix_step(&t->trie, node, (uint8_t)text[i])); i++) {
            int32_t id = t->trie.ids[node];
            double score;

            if (id < 0 || (i + 1 < n && cells[i + 1].length == 0))
                continue;
            score = cells[i + 1].score - t->scores[id];
            if (score <= best.score)
                best = (el_cell){score, (uint32_t)(i + 1 - at), id};
        }
        cells[at] = best;
    }
}

static edgellm_status encode(el_encoding *run, const char *text, size_t n)
{
    edgellm_status status = EDGELLM_OK;

    if (n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) { /* a byte order mark is no text */
        text += 3;
        n -= 3;
    }
    EL_TRY(el_encoding_cells(run, n + 1));
    memset(run->cells, 0, (n + 1) * sizeof *run->cells);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int length = el_utf8_next(text + i, n - i, &cp);

        run->cells[i] = (el_cell){0, (uint32_t)EL_MAX(length, 1), -1}; /* a byte that is not UTF-8 stands alone */
        i += run->cells[i].length;
    }
    find_best(run->t, run->cells, text, n);
    for (size_t at = 0; at < n; at += run->cells[at].length)
        if (run->cells[at].id >= 0)
            el_emit(run, run->cells[at].id);
        else
            for (size_t i = at; i < at + run->cells[at].length; i++)
                EL_TRY(el_emit_byte(run, (uint8_t)text[i]));
done:
    return status;
}

const el_family el_family_plamo2 = {"plamo2", setup, encode};
