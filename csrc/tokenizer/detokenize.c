/* detokenize.c - ids back to bytes. */
#include "tokenizer_impl.h"

#include <string.h>

#include "utf8.h"

typedef struct output { /* counts everything, writes what fits */
    char *buf;
    size_t cap, n;
} output;

static void put(output *out, const char *data, size_t n)
{
    if (out->n < out->cap)
        memcpy(out->buf + out->n, data, EL_MIN(n, out->cap - out->n));
    out->n += n;
}

/* U+2581 to a blank; with `skip` without one blank at the beginning. */
static void put_marked(output *out, el_str piece, bool skip)
{
    for (size_t i = 0; i < piece.n;) {
        bool mark = piece.n - i >= 3 && memcmp(piece.data + i, "\xE2\x96\x81", 3) == 0;

        if (!(skip && i == 0 && (mark || piece.data[0] == ' ')))
            put(out, mark ? " " : piece.data + i, 1);
        i += mark ? 3 : 1;
    }
}

/* The byte alphabet back to bytes; what is not of the alphabet stays as it is. */
static void put_letters(output *out, el_str piece)
{
    for (size_t i = 0; i < piece.n;) {
        uint32_t cp;
        int length = el_utf8_next(piece.data + i, piece.n - i, &cp);
        int byte = length > 0 ? el_letter_byte(cp) : -1;
        char c = (char)byte;

        length = EL_MAX(length, 1);
        put(out, byte >= 0 ? &c : piece.data + i, byte >= 0 ? 1 : (size_t)length);
        i += (size_t)length;
    }
}

static void put_token(output *out, const el_tokenizer *t, int32_t id, uint32_t flags, bool skip_blank)
{
    el_str piece = t->texts ? t->texts[id] : t->tokens[id];
    int type = el_type_of(t, id);
    int byte = type == EL_TOKEN_BYTE ? el_byte_of(piece) : -1;
    char c = (char)byte;

    if (type == EL_TOKEN_CONTROL || type == EL_TOKEN_UNKNOWN) {
        if (flags & EDGELLM_KEEP_SPECIAL)
            put(out, piece.data, piece.n);
    } else if (byte >= 0) {
        put(out, &c, 1);
    } else if (type == EL_TOKEN_USER_DEFINED || t->plain_pieces) {
        skip_blank = skip_blank && piece.n > 0 && piece.data[0] == ' ';
        put(out, piece.data + skip_blank, piece.n - skip_blank);
    } else if (t->marked_spaces) {
        put_marked(out, piece, skip_blank);
    } else {
        put_letters(out, piece);
    }
}

size_t el_token_bytes(const el_tokenizer *t, int32_t id, uint32_t flags, char *buf, size_t cap)
{
    output out = {buf, cap, 0};

    if (t->family->encode)
        put_token(&out, t, id, flags, false);
    return out.n;
}

/* Old vocabularies come with a clean-up of whole texts that was meant for word tokenizers; expected texts were
 * recorded with it, so it is kept where it was (tokenization_utils_base.py of transformers, clean_up_tokenization;
 * llama.cpp's reading of it, which leaves out n't and 'd). Three passes in place; each gives the new length. */
static size_t drop_before_stops(char *s, size_t n)
{
    size_t used = n ? 1 : 0;

    for (size_t i = 1; i < n; i++) {
        char c = s[i];

        if (s[i - 1] == ' ' && (c == '?' || c == '!' || c == '.' || c == ','))
            used--;
        s[used++] = c;
    }
    return used;
}

static size_t drop_around_quote(char *s, size_t n)
{
    size_t used = n ? 1 : 0;

    for (size_t i = 1; i < n; i++) {
        char c = s[i];

        if (c == '\'' && i + 1 < n && s[i - 1] == ' ' && s[i + 1] == ' ') {
            used--;
            s[++i] = 0; /* so that it is no blank for what follows */
        }
        s[used++] = c;
    }
    return used;
}

static size_t drop_before_contractions(char *s, size_t n)
{
    size_t used = n ? 1 : 0;

    for (size_t i = 1; i < n; i++) {
        char c = s[i];

        if (c == '\'' && s[i - 1] == ' ' && i + 1 < n) {
            char a = s[i + 1], b = i + 2 < n ? s[i + 2] : 0;

            if (a == 's' || a == 'm' || ((a == 'r' || a == 'v') && b == 'e'))
                used--;
        }
        s[used++] = c;
    }
    return used;
}

static void put_all(output *out, const el_tokenizer *t, const int32_t *ids, size_t n_ids, uint32_t flags)
{
    bool first = t->space_prefix; /* the blank that el_tokenize put before the text */

    for (size_t i = 0; i < n_ids; i++) {
        int type = el_type_of(t, ids[i]);

        put_token(out, t, ids[i], flags, first);
        first = first && (type == EL_TOKEN_CONTROL || type == EL_TOKEN_UNKNOWN);
    }
}

edgellm_status el_detokenize(const el_tokenizer *t, const int32_t *ids, size_t n_ids, uint32_t flags, char *buf,
                             size_t cap, size_t *n_bytes)
{
    output out = {buf, cap, 0};
    char *whole;

    *n_bytes = 0;
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= t->n_tokens)
            return el_fail(EDGELLM_EINVAL, "token %zu of the list is %d; the vocabulary has ids 0 to %zu", i, ids[i],
                           t->n_tokens - 1);
    if (!t->family->encode)
        return el_fail(EDGELLM_EUNSUPPORTED, "the vocabulary's tokenizer is '%s', which has no text", t->family->model);
    if (!t->clean_spaces) {
        put_all(&out, t, ids, n_ids, flags);
        *n_bytes = out.n;
        return EDGELLM_OK;
    }
    out.cap = 0;
    put_all(&out, t, ids, n_ids, flags);
    whole = el_alloc(out.n, 1);
    if (!whole)
        return el_no_memory(out.n);
    out = (output){whole, out.n, 0};
    put_all(&out, t, ids, n_ids, flags);
    *n_bytes = drop_before_contractions(whole, drop_around_quote(whole, drop_before_stops(whole, out.n)));
    if (cap)
        memcpy(buf, whole, EL_MIN(cap, *n_bytes));
    el_free(whole);
    return EDGELLM_OK;
}
