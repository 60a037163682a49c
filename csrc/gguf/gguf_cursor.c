/* gguf_cursor.c - the walk over a header: no byte is read and no memory is asked for before the bytes left allow it. */
#include "gguf_internal.h"

#include "utf8.h"

/* Smallest possible entry: name length 8, name 1, type 4, value 1; and name length 8, name 1, dimension count 4,
 * one dimension 8, type 4, offset 8. */
enum { MIN_KEY_BYTES = 14, MIN_TENSOR_BYTES = 33 };

el_gguf_quote el_gguf_quoted(el_str s)
{
    el_gguf_quote quote;

    el_utf8_escape(quote.text, sizeof quote.text - 3, s.data, EL_MIN(s.n, sizeof quote.text));
    if (s.n > 90)
        memcpy(quote.text + strlen(quote.text), "...", 4);
    return quote;
}

edgellm_status el_gguf_need(const el_gguf_cursor *c, uint64_t n_bytes)
{
    uint64_t left = c->end - c->at;

    if (n_bytes <= left)
        return EDGELLM_OK;
    if (c->end < c->file_bytes && n_bytes <= c->file_bytes - c->at)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: %s at byte %" PRIu64 " needs %" PRIu64
                       " bytes, which takes the header past its limit of "
                       "%" PRIu64 " MiB; the file is damaged or hostile",
                       c->file, c->item, c->at, n_bytes, EL_GGUF_MAX_HEADER >> 20);
    return el_fail(EDGELLM_EFORMAT,
                   "%.200s: %s at byte %" PRIu64 " needs %" PRIu64 " bytes, but the file ends after %" PRIu64
                   " more (it has %" PRIu64 "); it is damaged or was not fully downloaded",
                   c->file, c->item, c->at, n_bytes, c->file_bytes - c->at, c->file_bytes);
}

edgellm_status el_gguf_take_u32(el_gguf_cursor *c, uint32_t *value)
{
    edgellm_status status = el_gguf_need(c, 4);

    if (status == EDGELLM_OK) {
        *value = el_rd32(c->data + c->at);
        c->at += 4;
    }
    return status;
}

edgellm_status el_gguf_take_u64(el_gguf_cursor *c, uint64_t *value)
{
    edgellm_status status = el_gguf_need(c, 8);

    if (status == EDGELLM_OK) {
        *value = el_rd64(c->data + c->at);
        c->at += 8;
    }
    return status;
}

static bool is_printable(el_str s)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        int length = el_utf8_next(s.data + i, s.n - i, &cp);

        if (length <= 0 || cp < 32 || cp == 127)
            return false;
        i += (size_t)length;
    }
    return true;
}

edgellm_status el_gguf_take_name(el_gguf_cursor *c, uint64_t limit, el_str *name)
{
    edgellm_status status;
    uint64_t at = c->at;
    uint64_t n = 0;

    EL_TRY(el_gguf_take_u64(c, &n));
    if (n > limit)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: the name of %s at byte %" PRIu64 " claims %" PRIu64 " bytes, the limit is %" PRIu64
                       "; the file is damaged",
                       c->file, c->item, at, n, limit);
    if (n == 0)
        return el_fail(EDGELLM_EFORMAT, "%.200s: the name of %s at byte %" PRIu64 " is empty; the file is damaged",
                       c->file, c->item, at);
    EL_TRY(el_gguf_need(c, n));
    name->data = (const char *)c->data + c->at;
    name->n = (size_t)n;
    c->at += n;
    if (!is_printable(*name))
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: the name of %s at byte %" PRIu64 " is not printable UTF-8: '%s'; the file is damaged",
                       c->file, c->item, at, el_gguf_quoted(*name).text);
done:
    return status;
}

static edgellm_status check_version(const el_gguf_cursor *c, uint32_t version)
{
    if (version == 2 || version == 3)
        return EDGELLM_OK;
    if (version == 1)
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "%.200s is GGUF version 1, used in August 2023 only; download or convert the model again "
                       "(versions 2 and 3 are read)",
                       c->file);
    if (version != 0 && (version & 0xFFFF) == 0)
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "%.200s is a big-endian GGUF file (version bytes 0x%08" PRIx32
                       "); download the little-endian one",
                       c->file, version);
    if (version > 3 && version < 100)
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "%.200s is GGUF version %" PRIu32
                       ", newer than the versions read here (2 and 3); update edgellm",
                       c->file, version);
    return el_fail(EDGELLM_EFORMAT,
                   "%.200s: version %" PRIu32 " at byte 4 does not exist (2 and 3 are read); the file is damaged",
                   c->file, version);
}

static edgellm_status check_count(const el_gguf_cursor *c, const char *noun, uint64_t n, uint64_t limit,
                                  uint64_t min_bytes, uint64_t at)
{
    uint64_t left = c->file_bytes - c->at;

    if (n > left / min_bytes)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: the header at byte %" PRIu64 " counts %" PRIu64 " %s, but the %" PRIu64
                       " bytes left hold at most %" PRIu64 "; the file is damaged or was not fully downloaded",
                       c->file, at, n, noun, left, left / min_bytes);
    if (n > limit)
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "%.200s: the header at byte %" PRIu64 " counts %" PRIu64 " %s, the limit is %" PRIu64, c->file,
                       at, n, noun, limit);
    return EDGELLM_OK;
}

edgellm_status el_gguf_read_start(el_gguf_cursor *c, el_gguf *file)
{
    edgellm_status status;

    if (c->end < 4 || memcmp(c->data, "GGUF", 4) != 0)
        return el_gguf_not_gguf(c->data, c->end, c->file);
    c->at = 4;
    memcpy(c->item, "the header", sizeof "the header");
    EL_TRY(el_gguf_take_u32(c, &file->version));
    EL_TRY(check_version(c, file->version));
    EL_TRY(el_gguf_take_u64(c, &c->n_tensors));
    EL_TRY(el_gguf_take_u64(c, &c->n_kv));
    EL_TRY(check_count(c, "tensors", c->n_tensors, EL_GGUF_MAX_TENSORS, MIN_TENSOR_BYTES, 8));
    EL_TRY(check_count(c, "keys", c->n_kv, EL_GGUF_MAX_KEYS, MIN_KEY_BYTES, 16));
done:
    return status;
}
