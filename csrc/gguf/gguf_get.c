/* gguf_get.c - typed reads of keys and array items. Extents were proved when the file was opened. */
#include "gguf_internal.h"

#include <math.h>

/* An integer of the file: the sign apart, so that all of i64 and u64 fit. */
typedef struct whole {
    bool negative;
    uint64_t bits; /* two's complement when negative */
} whole;

static bool is_integer(el_gguf_type type)
{
    return type != EL_GGUF_F32 && type != EL_GGUF_F64 && type != EL_GGUF_STR && type != EL_GGUF_ARR &&
           type != EL_GGUF_BOOL;
}

static whole signed_whole(int64_t v) { return (whole){v < 0, (uint64_t)v}; }

static whole read_whole(const el_gguf_kv *kv, uint64_t i)
{
    const uint8_t *p = kv->data + i * el_gguf_value_bytes(kv->item_type);

    switch (kv->item_type) {
    case EL_GGUF_I8:
        return signed_whole((int8_t)*p);
    case EL_GGUF_U16:
        return (whole){false, el_rd16(p)};
    case EL_GGUF_I16:
        return signed_whole((int16_t)el_rd16(p));
    case EL_GGUF_U32:
        return (whole){false, el_rd32(p)};
    case EL_GGUF_I32:
        return signed_whole((int32_t)el_rd32(p));
    case EL_GGUF_U64:
        return (whole){false, el_rd64(p)};
    case EL_GGUF_I64:
        return signed_whole((int64_t)el_rd64(p));
    default: /* u8 and bool */
        return (whole){false, *p};
    }
}

static double read_float(const el_gguf_kv *kv, uint64_t i)
{
    const uint8_t *p = kv->data + i * el_gguf_value_bytes(kv->item_type);
    uint64_t bits64;
    uint32_t bits32;
    double f64;
    float f32;

    if (kv->item_type == EL_GGUF_F64) {
        bits64 = el_rd64(p);
        memcpy(&f64, &bits64, sizeof f64);
        return f64;
    }
    bits32 = el_rd32(p);
    memcpy(&f32, &bits32, sizeof f32);
    return (double)f32;
}

static edgellm_status wrong_type(const char *file, const el_gguf_kv *kv, const char *wanted)
{
    bool is_array = kv->type == EL_GGUF_ARR;

    return el_fail(EDGELLM_EFORMAT, "%.200s%skey '%s' is %s%s, it must be %s", file, *file ? ": " : "",
                   el_gguf_quoted(kv->key).text, is_array ? "an array of " : "of type ",
                   el_gguf_value_name(kv->item_type), wanted);
}

static edgellm_status out_of_range(const char *file, const el_gguf_kv *kv, whole v, int64_t low, uint64_t high)
{
    char text[24];

    snprintf(text, sizeof text, v.negative ? "%" PRId64 : "%" PRIu64, v.bits);
    return el_fail(EDGELLM_EFORMAT, "%.200s%skey '%s' has the value %s, it must be from %" PRId64 " to %" PRIu64, file,
                   *file ? ": " : "", el_gguf_quoted(kv->key).text, text, low, high);
}

static edgellm_status get_whole(const el_gguf *file, const char *key, int64_t low, uint64_t high,
                                const el_gguf_kv **found, whole *value)
{
    const el_gguf_kv *kv = el_gguf_find(file, key);

    *found = kv;
    if (!kv)
        return EDGELLM_OK;
    if (!is_integer(kv->type))
        return wrong_type(file->name, kv, "an integer");
    *value = read_whole(kv, 0);
    if (value->negative ? (int64_t)value->bits < low : value->bits > high)
        return out_of_range(file->name, kv, *value, low, high);
    return EDGELLM_OK;
}

edgellm_status el_gguf_get_u32(const el_gguf *file, const char *key, uint32_t *value)
{
    const el_gguf_kv *kv;
    whole v = {0};
    edgellm_status status = get_whole(file, key, 0, UINT32_MAX, &kv, &v);

    if (status == EDGELLM_OK && kv)
        *value = (uint32_t)v.bits;
    return status;
}

edgellm_status el_gguf_get_i32(const el_gguf *file, const char *key, int32_t *value)
{
    const el_gguf_kv *kv;
    whole v = {0};
    edgellm_status status = get_whole(file, key, INT32_MIN, INT32_MAX, &kv, &v);

    if (status == EDGELLM_OK && kv)
        *value = (int32_t)(int64_t)v.bits;
    return status;
}

edgellm_status el_gguf_get_u64(const el_gguf *file, const char *key, uint64_t *value)
{
    const el_gguf_kv *kv;
    whole v = {0};
    edgellm_status status = get_whole(file, key, 0, UINT64_MAX, &kv, &v);

    if (status == EDGELLM_OK && kv)
        *value = v.bits;
    return status;
}

edgellm_status el_gguf_get_f32(const el_gguf *file, const char *key, float *value)
{
    const el_gguf_kv *kv = el_gguf_find(file, key);
    double v;

    if (!kv)
        return EDGELLM_OK;
    if (kv->type != EL_GGUF_F32 && kv->type != EL_GGUF_F64)
        return wrong_type(file->name, kv, "a float");
    v = read_float(kv, 0);
    if (isfinite(v) && fabs(v) > 3.4028234663852886e38) /* FLT_MAX: the cast would be undefined */
        return el_fail(EDGELLM_EFORMAT, "%.200s: key '%s' has the value %g, which a 32-bit float cannot hold",
                       file->name, el_gguf_quoted(kv->key).text, v);
    *value = (float)v;
    return EDGELLM_OK;
}

edgellm_status el_gguf_get_bool(const el_gguf *file, const char *key, bool *value)
{
    const el_gguf_kv *kv = el_gguf_find(file, key);

    if (!kv)
        return EDGELLM_OK;
    if (kv->type != EL_GGUF_BOOL)
        return wrong_type(file->name, kv, "a bool");
    *value = kv->data[0] != 0;
    return EDGELLM_OK;
}

static el_str string_at(const uint8_t *p) { return (el_str){(const char *)p + 8, (size_t)el_rd64(p)}; }

edgellm_status el_gguf_get_str(const el_gguf *file, const char *key, el_str *value)
{
    const el_gguf_kv *kv = el_gguf_find(file, key);

    if (!kv)
        return EDGELLM_OK;
    if (kv->type != EL_GGUF_STR)
        return wrong_type(file->name, kv, "a string");
    *value = string_at(kv->data);
    return EDGELLM_OK;
}

static edgellm_status check_item(const el_gguf_kv *kv, uint64_t i)
{
    if (i < kv->n)
        return EDGELLM_OK;
    return el_fail(EDGELLM_EINVAL, "key '%s' has %" PRIu64 " values, number %" PRIu64 " (from 0) was asked for",
                   el_gguf_quoted(kv->key).text, kv->n, i);
}

edgellm_status el_gguf_item_i64(const el_gguf_kv *kv, uint64_t i, int64_t *value)
{
    edgellm_status status;
    whole v;

    EL_TRY(check_item(kv, i));
    if (!is_integer(kv->item_type) && kv->item_type != EL_GGUF_BOOL)
        return wrong_type("", kv, "integers");
    v = read_whole(kv, i);
    if (!v.negative && v.bits > INT64_MAX)
        return out_of_range("", kv, v, INT64_MIN, INT64_MAX);
    *value = (int64_t)v.bits;
done:
    return status;
}

edgellm_status el_gguf_item_f64(const el_gguf_kv *kv, uint64_t i, double *value)
{
    edgellm_status status;

    EL_TRY(check_item(kv, i));
    if (kv->item_type != EL_GGUF_F32 && kv->item_type != EL_GGUF_F64)
        return wrong_type("", kv, "floats");
    *value = read_float(kv, i);
done:
    return status;
}

edgellm_status el_gguf_strings(const el_gguf_kv *kv, el_str **out)
{
    const uint8_t *p = kv->data;
    el_str *strings;

    *out = NULL;
    if (kv->item_type != EL_GGUF_STR)
        return wrong_type("", kv, "an array of strings");
    strings = el_alloc((size_t)kv->n, sizeof *strings); /* at most EL_GGUF_MAX_STRINGS */
    if (!strings)
        return el_no_memory((size_t)kv->n * sizeof *strings);
    for (size_t i = 0; i < kv->n; i++) {
        strings[i] = string_at(p);
        p += 8 + strings[i].n;
    }
    *out = strings;
    return EDGELLM_OK;
}
