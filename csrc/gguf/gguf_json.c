/* gguf_json.c - the header as one JSON object, for people and for other programs. */
#include "gguf_internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

#include "utf8.h"

/* A growing text. After a failure it takes nothing more; the status is read once, at the end. */
typedef struct writer {
    char *text;
    size_t n, cap;
    edgellm_status status;
} writer;

static void fail_size(writer *w)
{
    w->status = el_fail(EDGELLM_EUNSUPPORTED, "the header as JSON passes %d MiB; ask for fewer array items (max_array)",
                        (int)(EL_GGUF_MAX_JSON >> 20));
}

/* Room for n more bytes and a NUL. */
static bool reserve(writer *w, size_t n)
{
    size_t cap = EL_MAX(w->cap + w->cap / 2, w->n + n + 1);
    char *text;

    if (w->status != EDGELLM_OK)
        return false;
    if (n < w->cap - w->n) /* equal is too little: the NUL */
        return true;
    if (n > EL_GGUF_MAX_JSON || w->n + n > EL_GGUF_MAX_JSON) {
        fail_size(w);
        return false;
    }
    text = el_realloc(w->text, cap, 1);
    if (!text) {
        w->status = el_no_memory(cap);
        return false;
    }
    w->text = text;
    w->cap = cap;
    return true;
}

static void put(writer *w, const char *s, size_t n)
{
    if (!reserve(w, n))
        return;
    memcpy(w->text + w->n, s, n);
    w->n += n;
}

static void put_text(writer *w, const char *s) { put(w, s, strlen(s)); }

static void put_format(writer *w, const char *fmt, ...) EL_PRINTF(2, 3);
static void put_format(writer *w, const char *fmt, ...)
{
    char text[128];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    put_text(w, text);
}

/* Length of what may be copied as it is: UTF-8 without quotes, backslashes and control characters. */
static size_t plain_run(const char *s, size_t n)
{
    size_t i = 0;

    while (i < n && (uint8_t)s[i] >= 32 && (uint8_t)s[i] < 127 && s[i] != '"' && s[i] != '\\')
        i++;
    return i;
}

/* One code point that plain_run stopped at, or one bad byte as U+FFFD. Returns the bytes taken. */
static size_t put_special(writer *w, const char *s, size_t n)
{
    uint32_t cp = 0;
    int length = el_utf8_next(s, n, &cp);

    if (length <= 0) {
        put(w, "\xEF\xBF\xBD", 3);
        return 1;
    }
    if (cp == '"' || cp == '\\')
        put_format(w, "\\%c", (int)cp);
    else if (cp < 32 || cp == 127)
        put_format(w, "\\u%04x", (unsigned)cp);
    else
        put(w, s, (size_t)length);
    return (size_t)length;
}

static void put_string(writer *w, el_str s)
{
    put(w, "\"", 1);
    for (size_t i = 0; i < s.n && w->status == EDGELLM_OK;) {
        size_t n = plain_run(s.data + i, s.n - i);

        put(w, s.data + i, n);
        i += n;
        if (i < s.n)
            i += put_special(w, s.data + i, s.n - i);
    }
    put(w, "\"", 1);
}

/* printf writes the decimal point of the host's locale, of one byte or more; JSON wants a point. */
static void fix_point(char *text)
{
    char *to = text;
    bool foreign = false;

    for (const char *from = text; *from; from++) {
        bool ours = (*from >= '0' && *from <= '9') || *from == '-' || *from == '+' || *from == 'e' || *from == '.';

        if (ours)
            *to++ = *from;
        else if (!foreign)
            *to++ = '.';
        foreign = !ours;
    }
    *to = 0;
}

/* The shortest digits that give the same number back; "inf", "-inf" and "nan" as strings, which JSON lacks. */
static void put_float(writer *w, double v, bool is_f32)
{
    char text[64];

    if (!isfinite(v)) {
        put_text(w, isnan(v) ? "\"nan\"" : v > 0 ? "\"inf\"" : "\"-inf\"");
        return;
    }
    for (int digits = is_f32 ? 6 : 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (is_f32 ? strtof(text, NULL) == (float)v : strtod(text, NULL) == v)
            break;
    }
    fix_point(text);
    put_text(w, text);
    if (!strpbrk(text, ".e"))
        put(w, ".0", 2);
}

/* Writes value i of a key and moves *p behind it (strings have no fixed place). */
static void put_value(writer *w, const el_gguf_kv *kv, uint64_t i, const uint8_t **p)
{
    double f64 = 0;
    int64_t i64 = 0;

    switch (kv->item_type) {
    case EL_GGUF_STR:
        put_string(w, (el_str){(const char *)*p + 8, (size_t)el_rd64(*p)});
        *p += 8 + el_rd64(*p);
        return;
    case EL_GGUF_BOOL:
        put_text(w, kv->data[i] ? "true" : "false");
        return;
    case EL_GGUF_F32:
    case EL_GGUF_F64:
        el_gguf_item_f64(kv, i, &f64);
        put_float(w, f64, kv->item_type == EL_GGUF_F32);
        return;
    case EL_GGUF_U64:
        put_format(w, "%" PRIu64, el_rd64(kv->data + 8 * i));
        return;
    default:
        el_gguf_item_i64(kv, i, &i64);
        put_format(w, "%" PRId64, i64);
    }
}

static void put_array(writer *w, const el_gguf_kv *kv, uint64_t max_array)
{
    uint64_t n = EL_MIN(kv->n, max_array);
    const uint8_t *p = kv->data;

    put_text(w, n < kv->n ? "{\"items\": [" : "[");
    for (uint64_t i = 0; i < n && w->status == EDGELLM_OK; i++) {
        if (i > 0)
            put(w, ", ", 2);
        put_value(w, kv, i, &p);
    }
    put(w, "]", 1);
    if (n < kv->n)
        put_format(w, ", \"count\": %" PRIu64 "}", kv->n);
}

static void put_metadata(writer *w, const el_gguf *file, uint64_t max_array)
{
    for (size_t i = 0; i < file->n_kv && w->status == EDGELLM_OK; i++) {
        const el_gguf_kv *kv = &file->kv[i];
        const uint8_t *p = kv->data;

        if (i > 0)
            put(w, ", ", 2);
        put_string(w, kv->key);
        put(w, ": ", 2);
        if (kv->type == EL_GGUF_ARR)
            put_array(w, kv, max_array);
        else
            put_value(w, kv, 0, &p);
    }
}

static void put_tensor(writer *w, const el_gguf *file, const el_gguf_tensor *t)
{
    uint32_t elements, bytes;
    const char *type = "";

    el_gguf_type_size(t->type, &elements, &bytes, &type);
    put_text(w, "{\"name\": ");
    put_string(w, t->name);
    put_text(w, ", \"shape\": [");
    for (int i = 0; i < t->n_dims; i++)
        put_format(w, i > 0 ? ", %" PRId64 : "%" PRId64, t->ne[i]);
    put_format(w, "], \"type\": \"%s\", \"offset\": %" PRIu64 ", \"n_bytes\": %" PRIu64, type, t->offset, t->n_bytes);
    if (file->split_count > 0)
        put_format(w, ", \"part\": %" PRId32, t->part);
    put(w, "}", 1);
}

edgellm_status el_gguf_json(const el_gguf *file, int32_t max_array, char **json, size_t *n_bytes)
{
    writer w = {0};

    *json = NULL;
    *n_bytes = 0;
    if (max_array < 0)
        return el_fail(EDGELLM_EINVAL, "max_array is %" PRId32 ", it must be 0 or more", max_array);
    put_format(&w, "{\"version\": %" PRIu32 ", \"alignment\": %" PRIu64 ", \"metadata\": {", file->version,
               file->alignment);
    put_metadata(&w, file, (uint64_t)max_array);
    put_text(&w, "}, \"tensors\": [");
    for (size_t i = 0; i < file->n_tensors && w.status == EDGELLM_OK; i++) {
        if (i > 0)
            put(&w, ", ", 2);
        put_tensor(&w, file, &file->tensors[i]);
    }
    put_text(&w, "]}");
    if (w.status != EDGELLM_OK) {
        el_free(w.text);
        return w.status;
    }
    w.text[w.n] = 0;
    *json = w.text;
    *n_bytes = w.n;
    return EDGELLM_OK;
}
