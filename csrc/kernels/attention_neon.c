/* attention_neon.c - attention over one segment, as in attention_avx2.c with four lanes: K and V are converted to float
 * once per block of 32 positions and used by all queries; scores of four positions are folded together. The same bits
 * as attention_ref.c. */
#include "lanes_neon.h"

#include "attention_spans.h"
#include "blocks.h"

INLINE int64_t round16(int64_t n) { return (n + 15) & ~(int64_t)15; }

/* ---- rows of the cache as floats ------------------------------------------------------ */

static void convert_row(float *y, el_kv_type type, const uint8_t *row, int32_t n)
{
    int32_t i = 0;

    if (type == EL_KV_F32) {
        memcpy(y, row, (size_t)n * sizeof *y);
        i = n;
    } else if (type == EL_KV_F16) {
        for (; i + 4 <= n; i += 4)
            vst1q_f32(y + i, el_floats_of(vreinterpret_u16_u8(vld1_u8(row + 2 * i))));
        for (; i < n; i++)
            y[i] = el_f16_value(el_load16(row + 2 * i));
    } else {
        for (; i < n; i += 32, row += 34) {
            const float d = el_f16_value(el_load16(row));
            for (int32_t e = 0; e < 32; e += 8) {
                const int16x8_t q = vmovl_s8(vreinterpret_s8_u8(vld1_u8(row + 2 + e)));
                vst1q_f32(y + i + e, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(q))), d));
                vst1q_f32(y + i + e + 4, vmulq_n_f32(vcvtq_f32_s32(vmovl_high_s16(q)), d));
            }
        }
    }
    for (; i < round16(n); i++)
        y[i] = 0;
}

/* ---- scores --------------------------------------------------------------------------- */

/* Four positions at once: lane i is position i. */
INLINE float32x4_t dot_4(const float *q, const float *k, int64_t stride, int64_t n)
{
    float32x4_t p[4][4], four[4];

    for (int i = 0; i < 4; i++)
        for (int l = 0; l < 4; l++)
            p[i][l] = vdupq_n_f32(0);
    for (int64_t e = 0; e < n; e += 16)
        for (int l = 0; l < 4; l++) {
            const float32x4_t v = vld1q_f32(q + e + 4 * l);
            for (int i = 0; i < 4; i++)
                p[i][l] = vfmaq_f32(p[i][l], v, vld1q_f32(k + i * stride + e + 4 * l));
        }
    for (int i = 0; i < 4; i++)
        four[i] = el_fold_to_4(p[i]);
    return el_fold_four(four);
}

INLINE float32x4_t finished(float32x4_t dots, const el_attn *a)
{
    const float32x4_t s = vmulq_n_f32(dots, a->scale), cap = vdupq_n_f32(a->softcap);

    return a->softcap != 0 ? vmulq_f32(cap, el_tanh_lanes(vdivq_f32(s, cap))) : s;
}

/* Whole groups of four, so also for a few positions around the span; those are discarded by weigh(). */
INLINE void score(float *scores, const float *q, const float *rows, int64_t stride, const el_attn *a, span in)
{
    const int64_t n = round16(a->head_k);

    for (int32_t p = in.begin & ~3; p < in.end; p += 4)
        vst1q_f32(scores + p, finished(dot_4(q, rows + p * stride, stride, n), a));
}

/* Scores to exp(score - max) over the span; 0 around it, up to whole groups of 16. */
INLINE void weigh(float *scores, span in, float *max, float *sum)
{
    const int32_t begin = in.begin & ~15, end = (in.end + 15) & ~15;
    float32x4_t peak = vdupq_n_f32(-INFINITY), p[4];

    for (int32_t i = begin; i < in.begin; i++)
        scores[i] = -INFINITY;
    for (int32_t i = in.end; i < end; i++)
        scores[i] = -INFINITY;
    for (int32_t i = begin; i < end; i += 4)
        peak = el_larger(vld1q_f32(scores + i), peak);
    *max = el_largest_lane(peak);
    for (int l = 0; l < 4; l++)
        p[l] = vdupq_n_f32(0);
    for (int32_t i = begin; i < end; i += 16)
        for (int l = 0; l < 4; l++) {
            const float32x4_t e = el_exp_lanes(vsubq_f32(vld1q_f32(scores + i + 4 * l), vdupq_n_f32(*max)));
            vst1q_f32(scores + i + 4 * l, e);
            p[l] = vaddq_f32(p[l], e);
        }
    *sum = el_fold_lanes(p);
}

/* ---- weighted sums of V --------------------------------------------------------------- */

/* 4 * n_lanes floats of acc, kept in registers over the positions. */
INLINE void gather_lanes(int n_lanes, float *acc, const float *weights, const float *rows, int64_t stride, span in)
{
    float32x4_t sum[16];

    for (int i = 0; i < n_lanes; i++)
        sum[i] = vld1q_f32(acc + 4 * i);
    for (int32_t p = in.begin; p < in.end; p++) {
        const float32x4_t weight = vdupq_n_f32(weights[p]);
        for (int i = 0; i < n_lanes; i++)
            sum[i] = vfmaq_f32(sum[i], weight, vld1q_f32(rows + p * stride + 4 * i));
    }
    for (int i = 0; i < n_lanes; i++)
        vst1q_f32(acc + 4 * i, sum[i]);
}

INLINE void gather(float *acc, const float *weights, const float *rows, int64_t stride, int64_t n, span in)
{
    int64_t d = 0;

    for (; d + 64 <= n; d += 64)
        gather_lanes(16, acc + d, weights, rows + d, stride, in);
    for (; d < n; d += 16)
        gather_lanes(4, acc + d, weights, rows + d, stride, in);
}

#define attn_segment segment_in_lanes
#include "attention_blocks.h"
#undef attn_segment

static void attn_segment(const el_attn *a, int32_t segment, float *partials, void *scratch)
{
    el_watch_subnormals();
    segment_in_lanes(a, segment, partials, scratch);
    if (el_met_subnormals())
        el_kernels_named("ref")->attn_segment(a, segment, partials, scratch);
}

/* ---- segments joined ------------------------------------------------------------------- */

static void attn_combine(float *y, const float *partials, size_t stride, int64_t n, float sink, int32_t head_v)
{
    const size_t at = el_attn_partial_floats(head_v) - 16;
    float max = sink, total = 0;

    for (int64_t s = 0; s < n; s++)
        max = partials[(size_t)s * stride + at] > max ? partials[(size_t)s * stride + at] : max;
    if (sink > -INFINITY)
        total = el_expf(sink - max);
    memset(y, 0, (size_t)head_v * sizeof *y);
    el_watch_subnormals();
    for (int64_t s = 0; s < n; s++) {
        const float *partial = partials + (size_t)s * stride;
        const float f = partial[at] > -INFINITY ? el_expf(partial[at] - max) : 0;
        if (partial[at + 1] == 0)
            continue;
        total = fmaf(partial[at + 1], f, total);
        for (int64_t d = 0, left = head_v; left > 0; d += 4, left -= 4)
            el_store_lanes(
                y + d, vfmaq_f32(el_load_lanes(y + d, left), el_load_lanes(partial + d, left), vdupq_n_f32(f)), left);
    }
    for (int64_t d = 0, left = head_v; left > 0; d += 4, left -= 4)
        el_store_lanes(y + d, vmulq_n_f32(el_load_lanes(y + d, left), 1.0f / total), left);
    if (el_met_subnormals())
        el_kernels_named("ref")->attn_combine(y, partials, stride, n, sink, head_v);
}

void el_attention_use_neon(el_kernels *t)
{
    t->attn_segment = attn_segment;
    t->attn_combine = attn_combine;
}
