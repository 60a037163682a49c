/* encoding.c - what the families share while they turn one text into ids: memory, bytes without a piece, symbols of the
 * merger, places where a text may be cut, and the words that were there before. */
#include "tokenizer_impl.h"

#include <string.h>

#include "utf8.h"

void el_encoding_free(el_encoding *run)
{
    el_merger_free(&run->merger);
    el_free(run->word);
    el_free(run->classes);
    el_free(run->cells);
    el_free(run->words);
}

edgellm_status el_encoding_word(el_encoding *run, size_t n)
{
    char *word;

    if (n <= run->word_room)
        return EDGELLM_OK;
    n = EL_MAX(n, 1024);
    word = el_alloc(n, 1);
    if (!word)
        return el_no_memory(n);
    el_free(run->word);
    run->word = word;
    run->word_room = n;
    return EDGELLM_OK;
}

edgellm_status el_encoding_grow(el_encoding *run, size_t n)
{
    char *word;

    if (n <= run->word_room)
        return EDGELLM_OK;
    if (n > UINT32_MAX - 4)
        return el_fail(EDGELLM_EINVAL, "the text has more than 4 GB once it is normalized; pass it in parts");
    n = EL_MAX(EL_MAX(n, 2 * run->word_room), 1024);
    word = el_realloc(run->word, n, 1);
    if (!word)
        return el_no_memory(n);
    run->word = word;
    run->word_room = n;
    return EDGELLM_OK;
}

edgellm_status el_encoding_cells(el_encoding *run, size_t n)
{
    if (n <= run->cells_room)
        return EDGELLM_OK;
    n = EL_MAX(n, 64);
    el_free(run->cells);
    run->cells = el_alloc(n, sizeof *run->cells);
    run->cells_room = run->cells ? n : 0;
    return run->cells ? EDGELLM_OK : el_no_memory(n * sizeof *run->cells);
}

edgellm_status el_emit_byte(el_encoding *run, uint8_t byte)
{
    const el_tokenizer *t = run->t;
    int32_t id = t->byte_ids[byte] >= 0 ? t->byte_ids[byte] : t->stand_in;

    if (id >= 0)
        el_emit(run, id);
    else if (!t->drops_bytes)
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "the vocabulary has no token for the byte 0x%02X, nor an unknown token to put in its place",
                       byte);
    return EDGELLM_OK;
}

size_t el_mark_spaces(char *out, const char *text, size_t n)
{
    size_t used = 0;

    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ') {
            memcpy(out + used, "\xE2\x96\x81", 3);
            used += 3;
        } else {
            out[used++] = text[i];
        }
    }
    return used;
}

edgellm_status el_symbols_of(el_encoding *run, size_t n, size_t *count)
{
    const el_tokenizer *t = run->t;
    el_merger *m = &run->merger;
    edgellm_status status = el_merger_reserve(m, n);
    size_t used = 0;

    if (status != EDGELLM_OK)
        return status;
    for (size_t i = 0, length; i < n; i += length) {
        uint8_t byte = (uint8_t)run->word[i];
        uint32_t cp;
        int decoded = byte < 128 ? 1 : el_utf8_next(run->word + i, n - i, &cp);

        length = decoded > 0 ? (size_t)decoded : 1; /* a byte that is not UTF-8 stands alone */
        m->offset[used] = (uint32_t)i;
        m->id[used++] =
            byte < 128 ? t->ascii_ids[byte] : el_piece_table_find(&t->pieces, t->tokens, run->word + i, length);
    }
    m->offset[used] = (uint32_t)n;
    m->text = run->word;
    *count = used;
    return EDGELLM_OK;
}

edgellm_status el_emit_symbols(el_encoding *run, size_t count)
{
    const el_merger *m = &run->merger;
    edgellm_status status = EDGELLM_OK;

    for (size_t i = 0; i < count && status == EDGELLM_OK; i = m->next[i]) {
        if (m->id[i] >= 0)
            el_emit(run, m->id[i]);
        else
            for (size_t k = m->offset[i]; k < m->offset[m->next[i]] && status == EDGELLM_OK; k++)
                status = el_emit_byte(run, (uint8_t)run->word[k]);
    }
    return status;
}

/* ---- places to cut -------------------------------------------------------------------- */

void el_find_crossings(el_tokenizer *t, const el_str *pieces, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        const char *piece = pieces[k].data, *end = piece + pieces[k].n;
        const char *at = pieces[k].n ? memchr(piece, 0xE2, pieces[k].n) : NULL;

        for (; at && end - at >= 3; at = memchr(at + 1, 0xE2, (size_t)(end - at - 1))) {
            const char *before = at > piece && at[-1] == ' ' ? at - 1 : at; /* the blank between two parts of a merge */

            if (at[1] == '\x96' && at[2] == '\x81' && before > piece)
                t->crosses_blank[(uint8_t)before[-1]] = true;
        }
    }
    t->crosses_blank[(uint8_t)'\x81'] = true; /* runs of blanks stay whole: the last byte of U+2581 */
    t->crosses_blank[(uint8_t)' '] = true;
}

size_t el_next_mark(const el_tokenizer *t, const char *text, size_t at, size_t n)
{
    for (size_t i = at + 1; i + 2 < n; i++)
        if (text[i] == '\xE2' && text[i + 1] == '\x96' && text[i + 2] == '\x81' &&
            !t->crosses_blank[(uint8_t)text[i - 1]])
            return i;
    return n;
}

size_t el_next_blank(const el_tokenizer *t, const char *text, size_t at, size_t n)
{
    for (size_t i = at + 1; i < n; i++)
        if (text[i] == ' ' && !t->crosses_blank[(uint8_t)text[i - 1]])
            return i;
    return n;
}

/* ---- known words ---------------------------------------------------------------------- */

/* Most words of a text have occurred in it before: in English nine of ten, and looking one up takes a tenth of the time
 * of joining it. Short texts go without, the table would cost more than they do. */
enum { LONG_TEXT = 512, MAX_WORDS = 1 << 14, MAX_KEY = 15 };

edgellm_status el_known_words(el_encoding *run, size_t n)
{
    size_t n_words = 128;

    if (run->words || n < LONG_TEXT)
        return EDGELLM_OK;
    while (n_words < MAX_WORDS && n_words < n / 8)
        n_words *= 2;
    run->words = el_alloc(n_words, sizeof *run->words);
    run->words_mask = n_words - 1;
    return run->words ? EDGELLM_OK : el_no_memory(n_words * sizeof *run->words);
}

static el_known_word *place_of(const el_encoding *run, const el_known_word *key)
{
    uint64_t hash = (key->low ^ key->high * UINT64_C(0xA0761D6478BD642F)) * UINT64_C(0x9E3779B97F4A7C15);

    return &run->words[hash >> 40 & run->words_mask];
}

bool el_known_word_emit(el_encoding *run, const char *text, size_t n, size_t left, el_known_word *key)
{
    uint64_t part[2] = {0, 0};
    const el_known_word *word;

    key->high = 0;
    if (!run->words || n > MAX_KEY)
        return false;
    memcpy(part, text, left >= sizeof part ? sizeof part : n);
    if (n < 8) { /* little-endian, as all supported machines are */
        part[0] &= (UINT64_C(1) << 8 * n) - 1;
        part[1] = 0;
    } else {
        part[1] &= (UINT64_C(1) << 8 * (n - 8)) - 1;
    }
    key->low = part[0];
    key->high = part[1] | (uint64_t)n << 56;
    key->n = (int32_t)run->n; /* where its ids begin */
    word = place_of(run, key);
    if (word->low != key->low || word->high != key->high)
        return false;
    for (int32_t i = 0; i < word->n; i++)
        el_emit(run, word->ids[i]);
    return true;
}

void el_known_word_keep(el_encoding *run, el_known_word *key)
{
    size_t before = (size_t)key->n, n = run->n - before;

    if (key->high == 0 || run->n > run->cap || n > EL_COUNT(key->ids))
        return;
    key->n = (int32_t)n;
    if (n)
        memcpy(key->ids, run->ids + before, n * sizeof *key->ids);
    *place_of(run, key) = *key;
}
