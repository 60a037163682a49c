/* attention_ref.c - attention of a few queries over one segment of the cache, and the joining of segments, as plain
 * loops. A softmax cut into segments: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; here
 * the segments lie at fixed positions, so that the result does not depend on who computes them. */
#include "blocks.h"
#include "mem.h"
#include "scalar_math.h"

size_t el_attn_partial_floats(int32_t head_v) { return (((size_t)head_v + 15) & ~(size_t)15) + 16; }

/* Scores of all queries over the segment, the queries padded to whole sums of 16, and for the positions of a block
 * their rows of K or V converted, and K once more by columns. */
size_t el_attn_scratch(int32_t n_q, int32_t head_k, int32_t head_v)
{
    const size_t width = ((size_t)EL_MAX(head_k, head_v) + 15) & ~(size_t)15;

    return ((size_t)n_q * (EL_ATTN_SEGMENT + width) + 2 * (size_t)EL_ATTN_BLOCK * width) * sizeof(float);
}

static void load_row(float *y, el_kv_type type, const uint8_t *row, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        const uint8_t *block = row + i / 32 * 34;
        y[i] = type == EL_KV_F32   ? el_float_of(el_load32(row + 4 * i))
               : type == EL_KV_F16 ? el_f16_value(el_load16(row + 2 * i))
                                   : el_f16_value(el_load16(block)) * (float)(int8_t)block[2 + i % 32];
    }
}

static size_t slot_of(const el_attn *a, int32_t position)
{
    return (size_t)a->blocks[position / EL_ATTN_BLOCK] * EL_ATTN_BLOCK + (size_t)(position % EL_ATTN_BLOCK);
}

static float score(const el_attn *a, const float *q, const float *k)
{
    float p[16] = {0}, s;

    for (int32_t i = 0; i < a->head_k; i++)
        p[i % 16] = fmaf(q[i], k[i], p[i % 16]);
    for (int32_t i = a->head_k; i % 16; i++)
        p[i % 16] += 0.0f;
    s = el_fold16(p) * a->scale;
    return a->softcap != 0 ? a->softcap * el_tanhf(s / a->softcap) : s;
}

static void one_query(const el_attn *a, int32_t i, int32_t begin, int32_t end, float *partial, float *row,
                      float *scores)
{
    float *acc = partial, *max = partial + el_attn_partial_floats(a->head_v) - 16, *sum = max + 1;
    float p[16] = {0};

    *max = -INFINITY;
    for (int32_t at = begin; at < end; at++) {
        load_row(row, a->k_type, (const uint8_t *)a->k + slot_of(a, at) * a->k_stride, a->head_k);
        scores[at - begin] = score(a, a->q + (size_t)i * a->q_stride, row);
        if (a->slopes)
            scores[at - begin] = fmaf(-a->slopes[i], fabsf((float)(a->positions[i] - at)), scores[at - begin]);
        *max = scores[at - begin] > *max ? scores[at - begin] : *max;
    }
    for (int32_t at = begin; at < end; at++) {
        const float e = el_expf(scores[at - begin] - *max);
        p[at % 16] += e;
        load_row(row, a->v_type, (const uint8_t *)a->v + slot_of(a, at) * a->v_stride, a->head_v);
        for (int32_t d = 0; d < a->head_v; d++)
            acc[d] = fmaf(e, row[d], acc[d]);
    }
    *sum = el_fold16(p);
}

static void attn_segment(const el_attn *a, int32_t segment, float *partials, void *scratch)
{
    const size_t stride = el_attn_partial_floats(a->head_v);
    float *scores = scratch, *row = scores + EL_ATTN_SEGMENT;

    for (int32_t i = 0; i < a->n_q; i++) {
        float *partial = partials + (size_t)i * stride;
        memset(partial, 0, stride * sizeof *partial);
        one_query(a, i, EL_MAX(a->first[i], segment * EL_ATTN_SEGMENT),
                  EL_MIN(a->last[i], (segment + 1) * EL_ATTN_SEGMENT), partial, row, scores);
    }
}

static void attn_combine(float *y, const float *partials, size_t stride, int64_t n, float sink, int32_t head_v)
{
    const size_t at = el_attn_partial_floats(head_v) - 16;
    float max = sink, total = 0;

    for (int64_t s = 0; s < n; s++)
        max = partials[(size_t)s * stride + at] > max ? partials[(size_t)s * stride + at] : max;
    if (sink > -INFINITY)
        total = el_expf(sink - max);
    for (int32_t d = 0; d < head_v; d++)
        y[d] = 0;
    for (int64_t s = 0; s < n; s++) {
        const float *partial = partials + (size_t)s * stride;
        const float f = partial[at] > -INFINITY ? el_expf(partial[at] - max) : 0;
        if (partial[at + 1] == 0) /* nothing visible */
            continue;
        total = fmaf(partial[at + 1], f, total);
        for (int32_t d = 0; d < head_v; d++)
            y[d] = fmaf(partial[d], f, y[d]);
    }
    for (int32_t d = 0; d < head_v; d++)
        y[d] *= 1.0f / total;
}

void el_attention_use_ref(el_kernels *t)
{
    t->attn_segment = attn_segment;
    t->attn_combine = attn_combine;
}
