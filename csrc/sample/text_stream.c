/* text_stream.c - bytes in, finished text out: looks for stop strings, then makes whole, valid UTF-8.
 * A byte waits while it may still belong to a stop string, so at most the longest stop string waits.
 * One automaton per stop string: Knuth, Morris, Pratt, "Fast pattern matching in strings", 1977; a byte costs
 * amortised constant time per stop string. */
#include "sample.h"

#include <string.h>

#include "utf8.h"

enum { MAX_STOPS = 256, MAX_STOP_BYTES = 4096 };

typedef struct stop {
    char *text;
    int32_t *fallback; /* fallback[k]: length of the longest proper prefix that ends the first k bytes */
    int32_t n;
    int32_t matched; /* the longest prefix that ends the bytes so far */
} stop;

typedef struct bytes { /* data[head .. end) are waiting */
    char *data;
    size_t head, end, cap;
} bytes;

struct el_text_stream {
    stop *stops;
    size_t n_stops;
    bytes held;    /* may become part of a stop string */
    bytes ready;   /* valid UTF-8 */
    char split[4]; /* the beginning of a code point whose rest has not come */
    size_t n_split;
    uint64_t n_seen; /* bytes pushed; held ends there */
    uint64_t found;  /* start of the earliest stop string found, UINT64_MAX: none */
    bool stopped;
};

/* ---- a queue of bytes ----------------------------------------------------------------- */

static edgellm_status reserve(bytes *b, size_t n)
{
    const size_t used = b->end - b->head;
    uint64_t wanted, doubled;
    char *data;

    if (b->cap - b->end >= n)
        return EDGELLM_OK;
    if (b->head >= used && b->cap - used >= n) { /* moving costs no more than what was taken out since */
        memmove(b->data, b->data + b->head, used);
        b->head = 0;
        b->end = used;
        return EDGELLM_OK;
    }
    if (!el_add(b->end, n, &wanted) || !el_mul(b->cap, 2, &doubled) || EL_MAX(wanted, doubled) > SIZE_MAX)
        return el_no_memory(SIZE_MAX);
    wanted = EL_MAX(EL_MAX(wanted, doubled), 64);
    data = el_realloc(b->data, (size_t)wanted, 1);
    if (!data)
        return el_no_memory((size_t)wanted);
    b->data = data;
    b->cap = (size_t)wanted;
    return EDGELLM_OK;
}

static void append(bytes *b, const char *data, size_t n) /* after reserve */
{
    if (n)
        memcpy(b->data + b->end, data, n);
    b->end += n;
}

static void drop(bytes *b, size_t n)
{
    b->head += n;
    if (b->head == b->end)
        b->head = b->end = 0;
}

/* ---- life ----------------------------------------------------------------------------- */

static edgellm_status check_stop(const edgellm_text *text, size_t i)
{
    uint32_t cp;

    if (!text->data || text->n_bytes == 0)
        return el_fail(EDGELLM_EINVAL, "stop string %zu is empty; leave it out", i);
    if (text->n_bytes > MAX_STOP_BYTES)
        return el_fail(EDGELLM_EINVAL, "stop string %zu has %zu bytes; the limit is %d", i, text->n_bytes,
                       MAX_STOP_BYTES);
    for (size_t at = 0; at < text->n_bytes;) {
        const int length = el_utf8_next(text->data + at, text->n_bytes - at, &cp);

        if (length <= 0)
            return el_fail(EDGELLM_EINVAL, "stop string %zu is not UTF-8 at byte %zu", i, at);
        at += (size_t)length;
    }
    return EDGELLM_OK;
}

static edgellm_status stop_init(stop *s, const edgellm_text *text)
{
    const int32_t n = (int32_t)text->n_bytes;

    s->text = el_strndup(text->data, text->n_bytes);
    s->fallback = el_alloc(text->n_bytes + 1, sizeof *s->fallback);
    if (!s->text || !s->fallback)
        return el_no_memory(text->n_bytes * (1 + sizeof *s->fallback));
    s->n = n;
    for (int32_t k = 1, matched = 0; k < n; k++) {
        while (matched > 0 && s->text[k] != s->text[matched])
            matched = s->fallback[matched];
        matched += s->text[k] == s->text[matched];
        s->fallback[k + 1] = matched;
    }
    return EDGELLM_OK;
}

edgellm_status el_text_stream_new(el_text_stream **out, const edgellm_text *stops, size_t n_stops)
{
    edgellm_status status = EDGELLM_OK;
    el_text_stream *s = NULL;

    *out = NULL;
    if (n_stops > MAX_STOPS || (n_stops && !stops))
        return el_fail(EDGELLM_EINVAL, "%zu stop strings%s; the limit is %d", n_stops, stops ? "" : " at NULL",
                       MAX_STOPS);
    for (size_t i = 0; i < n_stops; i++)
        EL_TRY(check_stop(&stops[i], i));
    s = el_alloc(1, sizeof *s);
    if (!s)
        return el_no_memory(sizeof *s);
    s->found = UINT64_MAX;
    s->stops = el_alloc(n_stops, sizeof *s->stops);
    if (!s->stops)
        EL_TRY(el_no_memory(n_stops * sizeof *s->stops));
    s->n_stops = n_stops;
    for (size_t i = 0; i < n_stops; i++)
        EL_TRY(stop_init(&s->stops[i], &stops[i]));
    *out = s;
    s = NULL;
done:
    el_text_stream_free(s);
    return status;
}

void el_text_stream_free(el_text_stream *s)
{
    if (!s)
        return;
    for (size_t i = 0; s->stops && i < s->n_stops; i++) {
        el_free(s->stops[i].text);
        el_free(s->stops[i].fallback);
    }
    el_free(s->stops);
    el_free(s->held.data);
    el_free(s->ready.data);
    el_free(s);
}

/* ---- UTF-8 ---------------------------------------------------------------------------- */

/* Bytes of one faulty sequence: as many as begin a code point, at least 1. Source: Unicode standard, section 3.9,
 * "U+FFFD substitution of maximal subparts"; Python's errors="replace" does the same. */
static size_t faulty_length(const char *s, size_t n)
{
    uint32_t cp;
    size_t length = 1;

    while (length < n && length < 3 && el_utf8_next(s, length + 1, &cp) < 0)
        length++;
    return length;
}

/* Moves what is decided from split to ready. A byte that leaves split becomes at most 3: push reserves as many. */
static void settle(el_text_stream *s, bool at_end)
{
    while (s->n_split > 0) {
        uint32_t cp;
        const int length = el_utf8_next(s->split, s->n_split, &cp);
        size_t taken;

        if (length < 0 && !at_end)
            return;
        if (length > 0) {
            taken = (size_t)length;
            append(&s->ready, s->split, taken);
        } else {
            taken = faulty_length(s->split, s->n_split);
            append(&s->ready, "\xEF\xBF\xBD", 3);
        }
        s->n_split -= taken;
        memmove(s->split, s->split + taken, s->n_split);
    }
}

static void make_ready(el_text_stream *s, const char *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        s->split[s->n_split++] = data[i];
        settle(s, false);
    }
}

static void release(el_text_stream *s, uint64_t until)
{
    const uint64_t begin = s->n_seen - (s->held.end - s->held.head);
    const size_t n = (size_t)(until - begin);

    if (n == 0)
        return;
    make_ready(s, s->held.data + s->held.head, n);
    drop(&s->held, n);
}

/* ---- stop strings --------------------------------------------------------------------- */

/* Feeds one byte to every automaton. Returns the earliest position where a stop string may still be growing. */
static uint64_t advance(el_text_stream *s, char byte)
{
    uint64_t growing = ++s->n_seen;

    for (size_t i = 0; i < s->n_stops; i++) {
        stop *t = &s->stops[i];

        while (t->matched > 0 && t->text[t->matched] != byte)
            t->matched = t->fallback[t->matched];
        t->matched += t->text[t->matched] == byte;
        if (t->matched == t->n) {
            s->found = EL_MIN(s->found, s->n_seen - (uint64_t)t->n);
            t->matched = t->fallback[t->n];
        }
        growing = EL_MIN(growing, s->n_seen - (uint64_t)t->matched);
    }
    return growing;
}

/* The text ends before the stop string at `found`. */
static void end_at_stop(el_text_stream *s)
{
    release(s, s->found);
    settle(s, true);
    drop(&s->held, s->held.end - s->held.head);
    s->stopped = true;
}

edgellm_status el_text_stream_push(el_text_stream *s, const char *data, size_t n, bool *stopped)
{
    edgellm_status status = EDGELLM_OK;
    uint64_t room, growing = s->n_seen - (s->held.end - s->held.head);

    *stopped = s->stopped;
    if (s->stopped || n == 0)
        return EDGELLM_OK;
    /* Everything that can fail comes first: each waiting byte becomes at most 3 of ready text. */
    if (!el_add(n, s->held.end - s->held.head + sizeof s->split, &room) || !el_mul(room, 3, &room) || room > SIZE_MAX)
        return el_no_memory(SIZE_MAX);
    EL_TRY(reserve(&s->ready, (size_t)room));
    EL_TRY(reserve(&s->held, n));
    for (size_t i = 0; i < n && !s->stopped; i++) {
        append(&s->held, &data[i], 1);
        growing = advance(s, data[i]);
        if (s->found <= growing) /* no earlier one can appear any more */
            end_at_stop(s);
    }
    if (!s->stopped)
        release(s, growing);
    *stopped = s->stopped;
done:
    return status;
}

edgellm_status el_text_stream_finish(el_text_stream *s)
{
    edgellm_status status = EDGELLM_OK;

    if (s->stopped)
        return EDGELLM_OK;
    EL_TRY(reserve(&s->ready, 3 * (s->held.end - s->held.head + sizeof s->split)));
    if (s->found != UINT64_MAX) { /* it waited for an earlier one that now never comes */
        end_at_stop(s);
        return EDGELLM_OK;
    }
    release(s, s->n_seen);
    settle(s, true);
    s->stopped = true; /* nothing may follow */
done:
    return status;
}

size_t el_text_stream_take(el_text_stream *s, char *buf, size_t cap)
{
    size_t n = EL_MIN(cap, s->ready.end - s->ready.head);

    while (n > 0 && n < s->ready.end - s->ready.head && (s->ready.data[s->ready.head + n] & 0xC0) == 0x80)
        n--; /* the next byte continues a code point: leave it whole */
    if (n == 0)
        return 0;
    memcpy(buf, s->ready.data + s->ready.head, n);
    drop(&s->ready, n);
    return n;
}
