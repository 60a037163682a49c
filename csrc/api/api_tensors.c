/* api_tensors.c - the table behind edgellm.tensors: kernels as they are, and ggml's formats behind checks, because
 * ggml ends the process where its rules are broken. */
#include "tensors_table.h"

#include <math.h>
#include <string.h>

#include "error.h"
#include "ggml_guard.h"
#include "mem.h"

#include "ggml.h"

static bool is_weight(int type)
{
    const struct ggml_type_traits *t = ggml_get_type_traits((enum ggml_type)type);

    return t->blck_size > 0 && (t->to_float || type == GGML_TYPE_F32);
}

/* Formats of products' inputs are no weights; everything else that ggml reads it also writes. */
static bool quantizes(int type) { return type != GGML_TYPE_Q8_1 && type != GGML_TYPE_Q8_K; }

static void describe(int type, el_tensor_type *out)
{
    const struct ggml_type_traits *t = ggml_get_type_traits((enum ggml_type)type);

    *out = (el_tensor_type){.number = type,
                            .elements = t->blck_size,
                            .bytes = t->type_size,
                            .own_kernel = el_kernels_act_kind(type) >= 0,
                            .quantizes = quantizes(type),
                            .needs_imatrix = ggml_quantize_requires_imatrix((enum ggml_type)type)};
    for (size_t i = 0; i + 1 < sizeof out->name && t->type_name[i]; i++) /* ggml writes "q4_K" */
        out->name[i] = (char)(t->type_name[i] >= 'a' ? t->type_name[i] - 'a' + 'A' : t->type_name[i]);
}

static bool type_at(size_t i, el_tensor_type *out)
{
    for (int type = 0; type < GGML_TYPE_COUNT; type++)
        if (is_weight(type) && i-- == 0) {
            describe(type, out);
            return true;
        }
    return false;
}

static void to_floats(int type, float *y, const void *row, int64_t k)
{
    if (type == GGML_TYPE_F32)
        memcpy(y, row, (size_t)k * sizeof *y);
    else
        ggml_get_type_traits((enum ggml_type)type)->to_float(row, y, k);
}

/* The first value that is no finite number, or k. */
static int64_t first_fault(const float *x, int64_t k)
{
    int64_t i = 0;

    while (i < k && isfinite(x[i]))
        i++;
    return i;
}

/* What ggml's searches for scales are given, so that none of their sums of squares and no reciprocal leaves float: from
 * there on they convert and shift what is no int (UBSan, Q2_K of values near 1e-45). No f16 scale reaches further up
 * (127 * 65504) or half as far down. */
static const float LARGEST = 127.0f * 65504.0f, SMALLEST = 1e-15f;

/* The imatrix scaled to at most 1 by a power of four: only ratios count, and these stay as they are, as do those of the
 * square roots that some formats take. */
static void scale_weights(float *to, const float *imatrix, int64_t k)
{
    float largest = 0;
    int exponent = 0;

    for (int64_t i = 0; i < k; i++)
        largest = EL_MAX(largest, imatrix[i]);
    (void)frexpf(largest, &exponent);
    exponent += exponent & 1;
    for (int64_t i = 0; i < k; i++)
        to[i] = imatrix[i] > 0 ? EL_MIN(ldexpf(imatrix[i], -exponent), 1.0f) : 0.0f;
}

typedef struct chunk {
    int type;
    const float *in, *imatrix;
    uint8_t *out;
    int64_t k;
} chunk;

static void quantize_chunk(void *data)
{
    const chunk *c = data;

    (void)ggml_quantize_chunk((enum ggml_type)c->type, c->in, c->out, 0, 1, c->k, c->imatrix);
}

/* The types that index a grid: ggml's search for their codes ends the process ("found point not on grid",
 * GGML_ASSERT(scale >= 0)) when a block's arithmetic overflows or its weights are all zero, and no check of the input
 * alone shows in advance whether it will. Columns that never carried anything are common; a second try lets them count
 * a little. */
static bool guarded_chunk(chunk *c, float *weights)
{
    if (el_ggml_guarded(quantize_chunk, c))
        return true;
    for (int64_t i = 0; weights && i < c->k; i++)
        weights[i] = EL_MAX(weights[i], 1e-6f);
    return weights && el_ggml_guarded(quantize_chunk, c);
}

/* One row: `in`, `out` and `weights` are places of this call's own, so that nobody changes what was checked. */
static edgellm_status quantize_row(const el_tensor_type *type, uint8_t *out, float *in, int64_t row, int64_t k,
                                   float *weights)
{
    int64_t at = first_fault(in, k);
    chunk c = {.type = type->number, .in = in, .imatrix = weights, .out = out, .k = k};
    float largest = 0;

    if (at < k)
        return el_fail(EDGELLM_EINVAL, "row %lld, column %lld is %s; only finite numbers can be quantized",
                       (long long)row, (long long)at, isnan(in[at]) ? "NaN" : "infinite");
    for (int64_t i = 0; i < k; i++) {
        largest = EL_MAX(largest, fabsf(in[i]));
        if (type->elements > 1 && fabsf(in[i]) < SMALLEST)
            in[i] = 0;
    }
    if (type->elements > 1 && largest > LARGEST)
        return el_fail(EDGELLM_EINVAL, "row %lld reaches %g, more than %s can hold", (long long)row, (double)largest,
                       type->name);
    if (!guarded_chunk(&c, weights))
        return el_fail(EDGELLM_EINVAL, "row %lld%s is more than %s can hold: ggml finds no codes for it",
                       (long long)row, weights ? " with these weights of its columns" : "", type->name);
    to_floats(type->number, in, out, k);
    if (first_fault(in, k) < k)
        return el_fail(EDGELLM_EINVAL, "row %lld reaches %g%s, more than %s can hold", (long long)row, (double)largest,
                       weights ? " with these weights of its columns" : "", type->name);
    return EDGELLM_OK;
}

static edgellm_status quantize(int type, void *dst, const float *src, int64_t row0, int64_t n_rows, int64_t k,
                               const float *imatrix)
{
    const size_t row_bytes = ggml_row_size((enum ggml_type)type, k);
    edgellm_status status = EDGELLM_OK;
    float *in = NULL, *weights = NULL;
    uint8_t *out = NULL;
    el_tensor_type t;

    el_error_clear();
    describe(type, &t);
    if (!t.quantizes)
        return el_fail(EDGELLM_EINVAL, "%s can be read but not written here; types() tells which can", t.name);
    if (t.needs_imatrix && !imatrix)
        return el_fail(EDGELLM_EINVAL, "%s needs an importance matrix", t.name);
    in = el_alloc((size_t)k, sizeof *in);
    weights = el_alloc((size_t)k, sizeof *weights);
    out = el_alloc(row_bytes, 1);
    if (!in || !weights || !out)
        EL_TRY(el_no_memory((size_t)k * sizeof *in));
    for (int64_t r = row0; r < row0 + n_rows; r++) {
        memcpy(in, src + r * k, (size_t)k * sizeof *in);
        if (imatrix)
            scale_weights(weights, imatrix, k); /* each row: a second try changes them */
        EL_TRY(quantize_row(&t, out, in, r, k, imatrix ? weights : NULL));
        memcpy((char *)dst + (size_t)r * row_bytes, out, row_bytes);
    }
done:
    el_free(in);
    el_free(weights);
    el_free(out);
    return status;
}

static edgellm_status dequantize(int type, float *dst, const void *src, int64_t row0, int64_t n_rows, int64_t k)
{
    const size_t row_bytes = ggml_row_size((enum ggml_type)type, k);
    void *row = el_alloc(row_bytes, 1); /* a tensor's own place may be odd, and ggml reads whole words of its blocks */

    el_error_clear();
    if (!row)
        return el_no_memory(row_bytes);
    for (int64_t r = row0; r < row0 + n_rows; r++) {
        memcpy(row, (const char *)src + (size_t)r * row_bytes, row_bytes);
        to_floats(type, dst + r * k, row, k);
    }
    el_free(row);
    return EDGELLM_OK;
}

static const el_tensors_table table = {
    .struct_size = sizeof(el_tensors_table),
    .kernels_size = sizeof(el_kernels),
    .version = EDGELLM_VERSION,
    .type_at = type_at,
    .isa_at = el_kernels_isa,
    .kernels_get = el_kernels_get,
    .kernels_named = el_kernels_named,
    .act_kind = el_kernels_act_kind,
    .act_row_bytes = el_act_row_bytes,
    .matmul_scratch = el_matmul_scratch,
    .quantize = quantize,
    .dequantize = dequantize,
    .last_error = el_error_text,
};

const el_tensors_table *edgellm_tensors_table(void) { return &table; }
