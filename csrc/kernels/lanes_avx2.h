/* lanes_avx2.h - scalar_math.h's functions in eight lanes, and sums in the order of kernels.h. For *_avx2.c only. */
#ifndef EL_LANES_AVX2_H
#define EL_LANES_AVX2_H

#include <immintrin.h>

#include "scalar_math.h"

#define INLINE static inline __attribute__((always_inline))

/* -1 in the first n lanes. */
INLINE __m256i el_first_lanes(int64_t n)
{
    static const int32_t ramp[16] = {-1, -1, -1, -1, -1, -1, -1, -1};

    return _mm256_loadu_si256((const __m256i *)(ramp + 8 - (n < 8 ? n : 8)));
}

INLINE __m256 el_load_lanes(const float *x, int64_t n) /* 0 <= n; the others are 0 */
{
    return n >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, el_first_lanes(n));
}

INLINE void el_store_lanes(float *y, __m256 v, int64_t n)
{
    if (n >= 8)
        _mm256_storeu_ps(y, v);
    else
        _mm256_maskstore_ps(y, el_first_lanes(n), v);
}

/* The fold of 16 partial sums: a holds 0 to 7, b 8 to 15. */
INLINE float el_fold_lanes(__m256 a, __m256 b)
{
    const __m256 eight = _mm256_add_ps(a, b);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));

    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

/* el_round_even and (int32_t) in one; the comparison instructions keep their NaN when it stands second. */
INLINE __m256 el_exp_lanes(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 y = _mm256_max_ps(_mm256_set1_ps(EL_EXP_MIN), _mm256_min_ps(_mm256_set1_ps(EL_EXP_MAX), x));
    const __m256 k =
        _mm256_round_ps(_mm256_mul_ps(y, _mm256_set1_ps(EL_EXP_LOG2E)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256i n = _mm256_cvtps_epi32(k), half = _mm256_srai_epi32(n, 1), bias = _mm256_set1_epi32(127);
    __m256 r = _mm256_fmadd_ps(k, _mm256_set1_ps(-EL_EXP_LN2_HIGH), y);
    __m256 p = _mm256_set1_ps(0x1.a01a02p-13f);
    __m256i a, b;

    r = _mm256_fmadd_ps(k, _mm256_set1_ps(-EL_EXP_LN2_LOW), r);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.6c16c2p-10f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.111112p-7f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.555556p-5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.555556p-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);
    a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}

INLINE __m256 el_tanh_lanes(__m256 x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f);
    const __m256 e = el_exp_lanes(_mm256_mul_ps(_mm256_set1_ps(-2.0f), _mm256_andnot_ps(sign, x)));
    const __m256 y = _mm256_div_ps(_mm256_sub_ps(one, e), _mm256_add_ps(one, e));

    return _mm256_or_ps(_mm256_andnot_ps(sign, y), _mm256_and_ps(sign, x));
}

INLINE __m256 el_silu_lanes(__m256 x)
{
    const __m256 e = el_exp_lanes(_mm256_xor_ps(_mm256_set1_ps(-0.0f), x));

    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

INLINE __m256 el_gelu_lanes(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 u = _mm256_mul_ps(x, _mm256_fmadd_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(0.044715f), one));

    return _mm256_div_ps(x, _mm256_add_ps(one, el_exp_lanes(_mm256_mul_ps(u, _mm256_set1_ps(-1.5957691216057308f)))));
}

INLINE float el_largest_lane(__m256 v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

#endif
