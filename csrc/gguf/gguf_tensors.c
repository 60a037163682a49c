/* gguf_tensors.c - the tensor table: type, shape and place of each tensor, and that no two share a byte.
 * Order and gaps are free, as the specification allows. */
#include "gguf_internal.h"

static edgellm_status check_type(const el_gguf_cursor *c, const el_gguf_tensor *t, uint32_t *elements, uint32_t *bytes)
{
    const char *name;

    if (el_gguf_type_size(t->type, elements, bytes, &name))
        return EDGELLM_OK;
    if (el_gguf_type_removed(t->type))
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "%.200s: %s has type %" PRIu32
                       ", which was removed from the format; download or convert the model again",
                       c->file, c->item, t->type);
    return el_fail(EDGELLM_EUNSUPPORTED,
                   "%.200s: %s at byte %" PRIu64 " has type %" PRIu32
                   ", which is not known here (0 to 42 are): the file is newer than this edgellm, or damaged",
                   c->file, c->item, c->at - 4, t->type);
}

static edgellm_status take_shape(el_gguf_cursor *c, el_gguf_tensor *t, uint64_t *n_elements)
{
    edgellm_status status;
    uint32_t n_dims = 0;

    EL_TRY(el_gguf_take_u32(c, &n_dims));
    if (n_dims < 1 || n_dims > EL_GGUF_MAX_DIMS)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: %s at byte %" PRIu64 " has %" PRIu32
                       " dimensions, it must have 1 to %d; the file is damaged",
                       c->file, c->item, c->at - 4, n_dims, EL_GGUF_MAX_DIMS);
    t->n_dims = (int32_t)n_dims;
    *n_elements = 1;
    for (int i = 0; i < EL_GGUF_MAX_DIMS; i++) {
        uint64_t n = 1;

        if (i < t->n_dims)
            EL_TRY(el_gguf_take_u64(c, &n));
        if (n < 1 || n > INT64_MAX)
            return el_fail(EDGELLM_EFORMAT,
                           "%.200s: %s has dimension %d = %" PRId64 " at byte %" PRIu64
                           ", it must be at least 1; the file is damaged",
                           c->file, c->item, i, (int64_t)n, c->at - 8);
        if (!el_mul(*n_elements, n, n_elements) || *n_elements > INT64_MAX)
            return el_fail(EDGELLM_EFORMAT,
                           "%.200s: %s has more than 2^63 elements (dimension %d = %" PRIu64 " at byte %" PRIu64
                           "); the file is damaged",
                           c->file, c->item, i, n, c->at - 8);
        t->ne[i] = (int64_t)n;
    }
done:
    return status;
}

static edgellm_status check_size(const el_gguf_cursor *c, el_gguf_tensor *t, uint64_t n_elements)
{
    edgellm_status status;
    uint32_t elements = 1;
    uint32_t bytes = 0;

    EL_TRY(check_type(c, t, &elements, &bytes));
    if (t->ne[0] % elements != 0)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: %s has rows of %" PRId64 " elements, its type packs %" PRIu32
                       " in a block and rows must be whole blocks; the file is damaged",
                       c->file, c->item, t->ne[0], elements);
    if (!el_mul(n_elements / elements, bytes, &t->n_bytes) || t->n_bytes > INT64_MAX)
        return el_fail(EDGELLM_EFORMAT, "%.200s: %s has more than 2^63 bytes; the file is damaged", c->file, c->item);
done:
    return status;
}

/* t->offset is relative to the data section until place() has seen all of the header. */
static edgellm_status take_tensor(el_gguf_cursor *c, el_gguf_tensor *t)
{
    edgellm_status status;
    uint64_t n_elements = 0;

    EL_TRY(el_gguf_take_name(c, EL_GGUF_MAX_NAME, &t->name));
    snprintf(c->item, sizeof c->item, "tensor '%s'", el_gguf_quoted(t->name).text);
    EL_TRY(take_shape(c, t, &n_elements));
    EL_TRY(el_gguf_take_u32(c, &t->type));
    EL_TRY(check_size(c, t, n_elements));
    EL_TRY(el_gguf_take_u64(c, &t->offset));
done:
    return status;
}

static edgellm_status place(const el_gguf_cursor *c, el_gguf_tensor *t, uint64_t start, uint64_t alignment,
                            unsigned flags)
{
    el_gguf_quote quote = el_gguf_quoted(t->name);
    uint64_t end;

    if (t->offset % alignment != 0)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: tensor '%s' has offset %" PRIu64 ", which is not a multiple of the alignment %" PRIu64
                       "; the file is damaged",
                       c->file, quote.text, t->offset, alignment);
    if (!el_add(start, t->offset, &t->offset) || !el_add(t->offset, t->n_bytes, &end) || end > INT64_MAX)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: tensor '%s' has an offset and a size (%" PRIu64
                       " bytes) that add up to more than 2^63; the file is damaged",
                       c->file, quote.text, t->n_bytes);
    if (flags & EL_GGUF_HEADER_ONLY)
        return EDGELLM_OK;
    if (end > c->file_bytes)
        return el_fail(EDGELLM_EFORMAT,
                       "%.200s: tensor '%s' lies at bytes %" PRIu64 " to %" PRIu64 ", but the file ends at %" PRIu64
                       "; it is damaged or was not fully downloaded",
                       c->file, quote.text, t->offset, end, c->file_bytes);
    t->data = c->data + t->offset;
    return EDGELLM_OK;
}

/* By place in the file; equal places by number, so that the order is one and the same everywhere. */
static bool before(const el_gguf_tensor *t, uint32_t a, uint32_t b)
{
    return t[a].offset != t[b].offset ? t[a].offset < t[b].offset : a < b;
}

static void sift_down(const el_gguf_tensor *t, uint32_t *order, size_t i, size_t n)
{
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        uint32_t held = order[i];

        if (child + 1 < n && before(t, order[child], order[child + 1]))
            child++;
        if (!before(t, held, order[child]))
            return;
        order[i] = order[child];
        order[child] = held;
    }
}

/* Heapsort: n log n whatever the file says, unlike the C library's qsort. */
static void sort_by_place(const el_gguf_tensor *t, uint32_t *order, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(t, order, i, n);
    for (size_t i = n; i-- > 1;) {
        uint32_t last = order[i];

        order[i] = order[0];
        order[0] = last;
        sift_down(t, order, 0, i);
    }
}

static edgellm_status check_overlap(const el_gguf_cursor *c, const el_gguf_tensor *t, size_t n)
{
    edgellm_status status = EDGELLM_OK;
    uint32_t *order = el_alloc(n, sizeof *order);
    bool sorted = true;

    if (!order)
        return el_no_memory(n * sizeof *order);
    for (size_t i = 0; i < n; i++) {
        order[i] = (uint32_t)i;
        sorted = sorted && (i == 0 || t[i - 1].offset < t[i].offset);
    }
    if (!sorted)
        sort_by_place(t, order, n);
    for (size_t i = 1; i < n && status == EDGELLM_OK; i++) {
        const el_gguf_tensor *a = &t[order[i - 1]];
        const el_gguf_tensor *b = &t[order[i]];

        if (a->offset + a->n_bytes > b->offset)
            status = el_fail(EDGELLM_EFORMAT,
                             "%.200s: tensors '%s' (bytes %" PRIu64 " to %" PRIu64 ") and '%s' (from byte %" PRIu64
                             ") overlap; the file is damaged",
                             c->file, el_gguf_quoted(a->name).text, a->offset, a->offset + a->n_bytes,
                             el_gguf_quoted(b->name).text, b->offset);
    }
    el_free(order);
    return status;
}

static edgellm_status grow(el_gguf *into, size_t n, const char *file)
{
    size_t total = into->n_tensors + n; /* both at most EL_GGUF_MAX_TENSORS */
    el_gguf_tensor *tensors;

    if (total > EL_GGUF_MAX_TENSORS)
        return el_fail(EDGELLM_EUNSUPPORTED, "%.200s: with its tensors the parts have %zu together, the limit is %d",
                       file, total, EL_GGUF_MAX_TENSORS);
    tensors = el_realloc(into->tensors, total, sizeof *tensors);
    if (!tensors)
        return el_no_memory(total * sizeof *tensors);
    memset(tensors + into->n_tensors, 0, n * sizeof *tensors);
    into->tensors = tensors;
    return EDGELLM_OK;
}

edgellm_status el_gguf_read_tensors(el_gguf_cursor *c, el_gguf *into, uint64_t alignment, int32_t part, unsigned flags)
{
    edgellm_status status;
    size_t n = (size_t)c->n_tensors; /* at most EL_GGUF_MAX_TENSORS */
    el_gguf_tensor *t;
    uint64_t start;

    EL_TRY(grow(into, n, c->file));
    t = into->tensors + into->n_tensors;
    for (size_t i = 0; i < n; i++) {
        snprintf(c->item, sizeof c->item, "tensor %zu of %zu", i + 1, n);
        EL_TRY(take_tensor(c, &t[i]));
        t[i].part = part;
    }
    start = (c->at + alignment - 1) & ~(alignment - 1); /* at: under 64 MiB, alignment: at most 64 KiB */
    for (size_t i = 0; i < n; i++)
        EL_TRY(place(c, &t[i], start, alignment, flags));
    EL_TRY(check_overlap(c, t, n));
    into->n_tensors += n;
done:
    return status;
}
