/* scalar_math.h - number formats and functions that must give the same bits everywhere, as plain C with explicit fma.
 * The vector files hold the same steps in lanes; a change here is a change there. */
#ifndef EL_SCALAR_MATH_H
#define EL_SCALAR_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float el_float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static inline uint32_t el_bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

/* Exact. Subnormals: the 10 bits as an integer times 2^-24. */
static inline float el_f16_value(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;

    if (exponent == 0)
        return el_float_of(el_bits_of((float)mantissa * 0x1p-24f) | sign);
    if (exponent == 31) /* infinity, or NaN made quiet */
        return el_float_of(sign | 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0));
    return el_float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

/* To nearest, ties to even. */
static inline uint16_t el_f16_round(float f)
{
    const uint32_t bits = el_bits_of(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;

    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) /* 65520: halfway to the first value that is too large */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) /* below 2^-14: adding 2^-1 leaves a multiple of 2^-24 in the low bits, rounded */
        return (uint16_t)(sign | (el_bits_of(el_float_of(magnitude) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

static inline float el_bf16_value(uint16_t h) { return el_float_of((uint32_t)h << 16); }

/* 2^(e - 128): MXFP4's shared exponent, halved because the table's values are doubled. e < 2 gives subnormals. */
static inline float el_e8m0_half(uint8_t e)
{
    return el_float_of(e < 2 ? (uint32_t)0x00200000 << e : (uint32_t)(e - 1) << 23);
}

/* To the nearest integer, ties to even, for |x| < 2^22: 1.5 * 2^23 leaves no bits for a fraction. */
static inline float el_round_even(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

/* exp(x) = 2^k exp(r), |r| <= ln(2) / 2; ln 2 in two parts (Cody and Waite, "Software manual for the elementary
 * functions", 1980, chapter 6). The polynomial is Taylor's up to r^7 / 5040: the first term left out is below 6e-9 of
 * the result, a tenth of float's last place. Scaling in two steps reaches subnormals and infinity with one rounding.
 * exp(0) is exactly 1; above 88.73 infinity; below -104 zero; NaN stays NaN. */
#define EL_EXP_MAX 89.0f
#define EL_EXP_MIN (-104.0f)
#define EL_EXP_LOG2E 0x1.715476p+0f
#define EL_EXP_LN2_HIGH 0x1.62e400p-1f
#define EL_EXP_LN2_LOW 0x1.7f7d1cp-20f
static inline float el_expf(float x)
{
    float k, r, p, high;
    int32_t n;

    if (x != x)
        return x;
    x = x > EL_EXP_MAX ? EL_EXP_MAX : x < EL_EXP_MIN ? EL_EXP_MIN : x;
    k = el_round_even(x * EL_EXP_LOG2E);
    r = fmaf(k, -EL_EXP_LN2_HIGH, x);
    r = fmaf(k, -EL_EXP_LN2_LOW, r);
    p = 0x1.a01a02p-13f;
    p = fmaf(p, r, 0x1.6c16c2p-10f);
    p = fmaf(p, r, 0x1.111112p-7f);
    p = fmaf(p, r, 0x1.555556p-5f);
    p = fmaf(p, r, 0x1.555556p-3f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    n = (int32_t)k;
    high = el_float_of((uint32_t)(127 + (n >> 1)) << 23);
    return p * high * el_float_of((uint32_t)(127 + n - (n >> 1)) << 23);
}

/* With e = exp(-2|x|): (1 - e) / (1 + e), and x's sign. */
static inline float el_tanhf(float x)
{
    const float e = el_expf(-2.0f * fabsf(x));

    return copysignf((1.0f - e) / (1.0f + e), x);
}

static inline float el_silu(float x) { return x / (1.0f + el_expf(-x)); }

/* x / 2 * (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) * (x + 0.044715 x^3). */
static inline float el_gelu(float x)
{
    const float u = x * fmaf(x * x, 0.044715f, 1.0f);

    return x / (1.0f + el_expf(u * -1.5957691216057308f));
}

/* The fold of 16 partial sums. */
static inline float el_fold16(float p[16])
{
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            p[i] += p[i + width];
    return p[0];
}

#endif
