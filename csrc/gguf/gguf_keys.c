/* gguf_keys.c - the key-value section: every value's extent is proved here, so that the getters can read freely. */
#include "gguf_internal.h"

/* Finds the end of an array of strings. This loop is most of the time an open takes (a vocabulary has hundreds of
 * thousands), so it keeps its state in registers and leaves the sentence to the caller. Returns n, or the first
 * string that does not fit. */
static uint64_t skip_strings(const uint8_t *data, uint64_t end, uint64_t *at, uint64_t n)
{
    uint64_t p = *at;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t left = end - p;
        uint64_t length;

        if (left < 8 || (length = el_rd64(data + p)) > left - 8) {
            *at = p;
            return i;
        }
        p += 8 + length;
    }
    *at = p;
    return n;
}

/* The sentence for a string that does not fit; c->at is at its length. */
static edgellm_status long_string(el_gguf_cursor *c)
{
    edgellm_status status = EDGELLM_OK;
    uint64_t n = 0;

    EL_TRY(el_gguf_take_u64(c, &n));
    EL_TRY(el_gguf_need(c, n));
done:
    return status;
}

static edgellm_status check_bools(const el_gguf_cursor *c, const uint8_t *values, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (values[i] > 1)
            return el_fail(EDGELLM_EFORMAT,
                           "%.200s: %s has the bool %d at byte %" PRIu64 ", which must be 0 or 1; the file is damaged",
                           c->file, c->item, values[i], (uint64_t)(values - c->data) + i);
    return EDGELLM_OK;
}

static edgellm_status take_strings(el_gguf_cursor *c, el_gguf_kv *kv)
{
    if (kv->n > (c->end - c->at) / 8)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: %s at byte %" PRIu64 " counts %" PRIu64 " strings, but the %" PRIu64
                       " bytes left hold at most %" PRIu64 "; the file is damaged or was not fully downloaded",
                       c->file, c->item, c->at, kv->n, c->end - c->at, (c->end - c->at) / 8);
    if (kv->n > EL_GGUF_MAX_STRINGS)
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "%.200s: %s at byte %" PRIu64 " counts %" PRIu64 " strings, the limit is %d", c->file, c->item,
                       c->at, kv->n, EL_GGUF_MAX_STRINGS);
    if (skip_strings(c->data, c->end, &c->at, kv->n) < kv->n)
        return long_string(c);
    return EDGELLM_OK;
}

static edgellm_status take_values(el_gguf_cursor *c, el_gguf_kv *kv)
{
    edgellm_status status = EDGELLM_OK;
    uint64_t n_bytes;

    kv->data = c->data + c->at;
    if (kv->item_type == EL_GGUF_STR) {
        EL_TRY(take_strings(c, kv));
    } else {
        if (!el_mul(kv->n, el_gguf_value_bytes(kv->item_type), &n_bytes))
            return el_fail(EDGELLM_EFORMAT,
                           "%.200s: %s at byte %" PRIu64 " counts %" PRIu64
                           " values, more than any file holds; the file is damaged",
                           c->file, c->item, c->at, kv->n);
        EL_TRY(el_gguf_need(c, n_bytes));
        if (kv->item_type == EL_GGUF_BOOL)
            EL_TRY(check_bools(c, kv->data, kv->n));
        c->at += n_bytes;
    }
    kv->n_bytes = (uint64_t)(c->data + c->at - kv->data);
done:
    return status;
}

static edgellm_status unknown_type(const el_gguf_cursor *c, const char *what, uint32_t type)
{
    return el_fail(EDGELLM_EFORMAT,
                   "%.200s: %s at byte %" PRIu64 " has %s type %" PRIu32
                   ", which does not exist (0 to 12 do); the file is damaged",
                   c->file, c->item, c->at - 4, what, type);
}

static edgellm_status take_array_start(el_gguf_cursor *c, el_gguf_kv *kv)
{
    edgellm_status status;
    uint32_t type = 0;

    EL_TRY(el_gguf_take_u32(c, &type));
    if (type == EL_GGUF_ARR)
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "%.200s: %s at byte %" PRIu64 " is an array of arrays, which no model uses and is not read",
                       c->file, c->item, c->at - 4);
    if (type > EL_GGUF_F64)
        return unknown_type(c, "array item", type);
    kv->item_type = (el_gguf_type)type;
    EL_TRY(el_gguf_take_u64(c, &kv->n));
done:
    return status;
}

static edgellm_status take_kv(el_gguf_cursor *c, el_gguf_kv *kv)
{
    edgellm_status status;
    uint32_t type = 0;

    EL_TRY(el_gguf_take_name(c, EL_GGUF_MAX_KEY, &kv->key));
    snprintf(c->item, sizeof c->item, "key '%s'", el_gguf_quoted(kv->key).text);
    EL_TRY(el_gguf_take_u32(c, &type));
    if (type > EL_GGUF_F64)
        return unknown_type(c, "value", type);
    kv->type = kv->item_type = (el_gguf_type)type;
    kv->n = 1;
    if (type == EL_GGUF_ARR)
        EL_TRY(take_array_start(c, kv));
    EL_TRY(take_values(c, kv));
done:
    return status;
}

static edgellm_status read_alignment(const el_gguf_cursor *c, el_gguf *file)
{
    edgellm_status status;

    file->alignment = 32; /* the specification's default */
    EL_TRY(el_gguf_get_u64(file, "general.alignment", &file->alignment));
    if (file->alignment < 8 || file->alignment > 65536 || (file->alignment & (file->alignment - 1)) != 0)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: general.alignment is %" PRIu64
                       ", it must be a power of two from 8 to 65536; the file is damaged",
                       c->file, file->alignment);
done:
    return status;
}

static edgellm_status read_split(const el_gguf_cursor *c, el_gguf *file)
{
    edgellm_status status;

    EL_TRY(el_gguf_get_u32(file, "split.count", &file->split_count));
    EL_TRY(el_gguf_get_u32(file, "split.no", &file->split_no));
    if (file->split_count > EL_GGUF_MAX_PARTS)
        return el_fail(EDGELLM_EUNSUPPORTED, "%.200s: split.count is %" PRIu32 ", the limit is %d parts", c->file,
                       file->split_count, EL_GGUF_MAX_PARTS);
    if (file->split_count > 0 && file->split_no >= file->split_count)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: split.no is %" PRIu32 ", it must be below split.count, which is %" PRIu32
                       "; the file is damaged",
                       c->file, file->split_no, file->split_count);
    if (file->split_count <= 1)
        file->split_count = file->split_no = 0;
done:
    return status;
}

edgellm_status el_gguf_read_keys(el_gguf_cursor *c, el_gguf *file)
{
    edgellm_status status = EDGELLM_OK;
    size_t n = (size_t)c->n_kv; /* at most EL_GGUF_MAX_KEYS */

    file->kv = el_alloc(n, sizeof *file->kv);
    if (!file->kv)
        return el_no_memory(n * sizeof *file->kv);
    for (size_t i = 0; i < n; i++) {
        snprintf(c->item, sizeof c->item, "key %zu of %zu", i + 1, n);
        EL_TRY(take_kv(c, &file->kv[i]));
    }
    file->n_kv = n;
    EL_TRY(el_gguf_index_build(&file->keys, file->kv, n, sizeof *file->kv, c->file, "key"));
    EL_TRY(read_alignment(c, file));
    EL_TRY(read_split(c, file));
done:
    return status;
}
