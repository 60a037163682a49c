/* lanes_avx512.h - scalar_math.h's functions in sixteen lanes, and sums in the order of kernels.h: here the 16 partial
 * sums are one register. For *_avx512.c only. */
#ifndef EL_LANES_AVX512_H
#define EL_LANES_AVX512_H

#include <immintrin.h>

#include "scalar_math.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __mmask16 el_first_lanes(int64_t n) { return (__mmask16)(n >= 16 ? 0xffff : n > 0 ? (1u << n) - 1 : 0); }

INLINE __m512 el_load_lanes(const float *x, int64_t n) /* 0 <= n; the others are 0 */
{
    return n >= 16 ? _mm512_loadu_ps(x) : _mm512_maskz_loadu_ps(el_first_lanes(n), x);
}

INLINE void el_store_lanes(float *y, __m512 v, int64_t n)
{
    if (n >= 16)
        _mm512_storeu_ps(y, v);
    else
        _mm512_mask_storeu_ps(y, el_first_lanes(n), v);
}

INLINE __m256 el_low_half(__m512 v) { return _mm512_castps512_ps256(v); }
INLINE __m256 el_high_half(__m512 v) { return _mm512_extractf32x8_ps(v, 1); }

/* The fold of 16 partial sums. */
INLINE float el_fold_lanes(__m512 p)
{
    const __m256 eight = _mm256_add_ps(el_low_half(p), el_high_half(p));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));

    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

INLINE float el_largest_lane(__m512 v)
{
    const __m256 eight = _mm256_max_ps(el_low_half(v), el_high_half(v));
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));

    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

/* The comparison instructions keep their NaN when it stands second. scalef is both of el_expf's scalings in one: p is
 * near 1, so the first of the two is exact and only the second rounds. */
INLINE __m512 el_exp_lanes(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 y = _mm512_max_ps(_mm512_set1_ps(EL_EXP_MIN), _mm512_min_ps(_mm512_set1_ps(EL_EXP_MAX), x));
    const __m512 k = _mm512_roundscale_ps(_mm512_mul_ps(y, _mm512_set1_ps(EL_EXP_LOG2E)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fmadd_ps(k, _mm512_set1_ps(-EL_EXP_LN2_HIGH), y);
    __m512 p = _mm512_set1_ps(0x1.a01a02p-13f);

    r = _mm512_fmadd_ps(k, _mm512_set1_ps(-EL_EXP_LN2_LOW), r);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.6c16c2p-10f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.111112p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555556p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555556p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, one);
    p = _mm512_fmadd_ps(p, r, one);
    return _mm512_scalef_ps(p, k);
}

INLINE __m512 el_tanh_lanes(__m512 x)
{
    const __m512 sign = _mm512_set1_ps(-0.0f), one = _mm512_set1_ps(1.0f);
    const __m512 e = el_exp_lanes(_mm512_mul_ps(_mm512_set1_ps(-2.0f), _mm512_andnot_ps(sign, x)));
    const __m512 y = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));

    return _mm512_or_ps(_mm512_andnot_ps(sign, y), _mm512_and_ps(sign, x));
}

INLINE __m512 el_silu_lanes(__m512 x)
{
    const __m512 e = el_exp_lanes(_mm512_xor_ps(_mm512_set1_ps(-0.0f), x));

    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

INLINE __m512 el_gelu_lanes(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 u = _mm512_mul_ps(x, _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f), one));

    return _mm512_div_ps(x, _mm512_add_ps(one, el_exp_lanes(_mm512_mul_ps(u, _mm512_set1_ps(-1.5957691216057308f)))));
}

#endif
