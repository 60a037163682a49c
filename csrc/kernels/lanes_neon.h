/* lanes_neon.h - scalar_math.h's functions in four lanes, and sums in the order of kernels.h. On 32-bit ARM what is
 * rounded here is right as long as no subnormal number is met (aarch32_neon.h). */
#ifndef EL_LANES_NEON_H
#define EL_LANES_NEON_H

#include "aarch32_neon.h"
#include "mem.h"
#include "scalar_math.h"

INLINE float32x4_t el_load_lanes(const float *x, int64_t n) /* the first n, at most 4; the others are 0 */
{
    float lanes[4] = {0};

    if (n >= 4)
        return vld1q_f32(x);
    if (n > 0)
        memcpy(lanes, x, (size_t)n * sizeof *x);
    return vld1q_f32(lanes);
}

INLINE void el_store_lanes(float *y, float32x4_t v, int64_t n)
{
    float lanes[4];

    if (n >= 4) {
        vst1q_f32(y, v);
        return;
    }
    vst1q_f32(lanes, v);
    if (n > 0)
        memcpy(y, lanes, (size_t)n * sizeof *y);
}

/* The first two steps of the fold of 16 partial sums, v[i] holding 4 i to 4 i + 3; then all of it. */
INLINE float32x4_t el_fold_to_4(const float32x4_t v[4])
{
    return vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
}

INLINE float el_fold_lanes(const float32x4_t v[4])
{
    const float32x4_t four = el_fold_to_4(v);
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));

    return vget_lane_f32(vpadd_f32(two, two), 0);
}

/* The last two steps for four sums at once: lane i is the sum that four[i] belongs to. */
INLINE float32x4_t el_fold_four(const float32x4_t four[4])
{
    float32x4_t two[2];

    for (int i = 0; i < 2; i++) {
        const uint64x2_t a = vreinterpretq_u64_f32(four[2 * i]), b = vreinterpretq_u64_f32(four[2 * i + 1]);
        two[i] = vaddq_f32(vreinterpretq_f32_u64(vzip1q_u64(a, b)), vreinterpretq_f32_u64(vzip2q_u64(a, b)));
    }
    return vpaddq_f32(two[0], two[1]);
}

/* x > y ? x : y. fmax would return a NaN that stands in x. */
INLINE float32x4_t el_larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }

INLINE float el_largest_lane(float32x4_t v) { return vmaxvq_f32(v); } /* of no NaN */

/* On 32-bit ARM results below 2^-126 are made by the scalar unit; there are none between -104, from where on they are
 * 0, and minus infinity, the score of what is masked. */
enum { EL_EXP_FIRST_NORMAL = -87 };

INLINE float32x4_t el_exp_subnormals(float32x4_t y, float32x4_t x)
{
    const uint32x4_t zero = vcleq_f32(x, vdupq_n_f32(EL_EXP_MIN));
    const uint32x4_t small = vbicq_u32(vcltq_f32(x, vdupq_n_f32(EL_EXP_FIRST_NORMAL)), zero);
    float in[4], out[4];

    y = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), zero));
    if (vmaxvq_u32(small) == 0)
        return y;
    vst1q_f32(in, x);
    vst1q_f32(out, y);
    for (int i = 0; i < 4; i++)
        out[i] = in[i] < EL_EXP_FIRST_NORMAL ? el_expf(in[i]) : out[i];
    return vld1q_f32(out);
}

/* fmin and fmax keep a NaN, as the function wants. */
INLINE float32x4_t el_exp_lanes(float32x4_t x)
{
    const float least = EL_AARCH32 ? (float)EL_EXP_FIRST_NORMAL : EL_EXP_MIN;
    const float32x4_t one = vdupq_n_f32(1.0f);
    const float32x4_t y = vmaxq_f32(vdupq_n_f32(least), vminq_f32(vdupq_n_f32(EL_EXP_MAX), x));
    const float32x4_t k = vrndnq_f32(vmulq_f32(y, vdupq_n_f32(EL_EXP_LOG2E)));
    const int32x4_t n = vcvtq_s32_f32(k), half = vshrq_n_s32(n, 1), bias = vdupq_n_s32(127);
    float32x4_t r = vfmaq_f32(y, k, vdupq_n_f32(-EL_EXP_LN2_HIGH));
    float32x4_t p = vdupq_n_f32(0x1.6c16c2p-10f);
    int32x4_t a, b;

    r = vfmaq_f32(r, k, vdupq_n_f32(-EL_EXP_LN2_LOW));
    p = vfmaq_f32(p, vdupq_n_f32(0x1.a01a02p-13f), r);
    p = vfmaq_f32(vdupq_n_f32(0x1.111112p-7f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.555556p-5f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.555556p-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0.5f), p, r);
    p = vfmaq_f32(one, p, r);
    p = vfmaq_f32(one, p, r);
    a = vshlq_n_s32(vaddq_s32(half, bias), 23);
    b = vshlq_n_s32(vaddq_s32(vsubq_s32(n, half), bias), 23);
    p = vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(a)), vreinterpretq_f32_s32(b));
    return EL_AARCH32 ? el_exp_subnormals(p, x) : p;
}

INLINE float32x4_t el_tanh_lanes(float32x4_t x)
{
    const float32x4_t one = vdupq_n_f32(1.0f);
    const float32x4_t e = el_exp_lanes(vmulq_f32(vdupq_n_f32(-2.0f), vabsq_f32(x)));
    const float32x4_t y = vdivq_f32(vsubq_f32(one, e), vaddq_f32(one, e));

    return vbslq_f32(vdupq_n_u32(0x80000000u), x, y);
}

INLINE float32x4_t el_silu_lanes(float32x4_t x)
{
    return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), el_exp_lanes(vnegq_f32(x))));
}

INLINE float32x4_t el_gelu_lanes(float32x4_t x)
{
    const float32x4_t one = vdupq_n_f32(1.0f);
    const float32x4_t u = vmulq_f32(x, vfmaq_f32(one, vmulq_f32(x, x), vdupq_n_f32(0.044715f)));

    return vdivq_f32(x, vaddq_f32(one, el_exp_lanes(vmulq_f32(u, vdupq_n_f32(-1.5957691216057308f)))));
}

/* Four f16 as floats, and back, to nearest. */
INLINE float32x4_t el_floats_of(uint16x4_t v) { return vcvt_f32_f16(vreinterpret_f16_u16(v)); }
INLINE uint16x4_t el_halves_of(float32x4_t v) { return vreinterpret_u16_f16(vcvt_f16_f32(v)); }

/* ---- quantizing: what activations and EL_KV_Q8_0 share ---------------------------------- */

/* The bits of the largest |x| of n values; they order like the values, with infinity and NaN on top. */
INLINE uint32_t el_peak_bits(const float *x, int n)
{
    uint32x4_t peak = vdupq_n_u32(0);

    for (int i = 0; i < n; i += 4)
        peak = vmaxq_u32(peak, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
    return vmaxvq_u32(peak);
}

/* The lower halves of all words, and of all dwords. */
INLINE int8x16_t el_low_bytes(int16x8_t a, int16x8_t b)
{
    return vuzpq_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b)).val[0];
}

INLINE int16x8_t el_low_words(int32x4_t a, int32x4_t b)
{
    return vuzpq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)).val[0];
}

/* 16 values times inverse, rounded to the nearest, ties to even. */
INLINE int8x16_t el_rounded_16(const float *x, float32x4_t inverse)
{
    int32x4_t v[4];

    for (int i = 0; i < 4; i++)
        v[i] = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + 4 * i), inverse));
    return el_low_bytes(el_low_words(v[0], v[1]), el_low_words(v[2], v[3]));
}

#endif
