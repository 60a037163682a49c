/* maps.h - functions of single elements, with arguments from one or two rows: el_kernels.map. One template for all
 * instruction sets: plain C over whole blocks of LANES, which compilers turn into vectors as wide as the flags of
 * maps_ISA.c allow. Nothing is summed, so the width cannot change a bit. Included once by each maps_ISA.c.
 *
 * Sources: GELU: Hendrycks and Gimpel 2016; erf: Abramowitz and Stegun 1964, 7.1.26 (error below 1.5e-7); xIELU: Huang
 * and Schlag 2024; the clamped SwiGLU: OpenAI's gpt-oss, 2025. ggml.h names the same functions. */
#include "blocks.h"
#include "mem.h"
#include "scalar_math.h"

enum { LANES = 64 };

#define INLINE_MAP static inline __attribute__((always_inline))

INLINE_MAP float least(float a, float b) { return a < b ? a : b; }
INLINE_MAP float most(float a, float b) { return a > b ? a : b; }

/* el_expf without its branch for NaN: the comparisons keep a NaN that stands second. */
INLINE_MAP float exp_of(float x)
{
    const float high = EL_EXP_MAX < x ? EL_EXP_MAX : x, y = EL_EXP_MIN > high ? EL_EXP_MIN : high;
    const float k = el_round_even((y == y ? y : 0.0f) * EL_EXP_LOG2E);
    const int32_t n = (int32_t)k, half = n >> 1;
    float r = fmaf(k, -EL_EXP_LN2_HIGH, y), p = 0x1.a01a02p-13f;

    r = fmaf(k, -EL_EXP_LN2_LOW, r);
    p = fmaf(p, r, 0x1.6c16c2p-10f);
    p = fmaf(p, r, 0x1.111112p-7f);
    p = fmaf(p, r, 0x1.555556p-5f);
    p = fmaf(p, r, 0x1.555556p-3f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return p * el_float_of((uint32_t)(127 + half) << 23) * el_float_of((uint32_t)(127 + n - half) << 23);
}

INLINE_MAP float sigmoid_of(float x) { return 1.0f / (1.0f + exp_of(-x)); }
INLINE_MAP float silu_of(float x) { return x / (1.0f + exp_of(-x)); }
INLINE_MAP float gelu_quick_of(float x) { return x / (1.0f + exp_of(-1.702f * x)); }
INLINE_MAP float relu_of(float x) { return x > 0.0f ? x : 0.0f; }

INLINE_MAP float gelu_of(float x)
{
    const float u = x * fmaf(x * x, 0.044715f, 1.0f);

    return x / (1.0f + exp_of(u * -1.5957691216057308f));
}

INLINE_MAP float tanh_of(float x)
{
    const float e = exp_of(-2.0f * fabsf(x));

    return copysignf((1.0f - e) / (1.0f + e), x);
}

/* x times the normal distribution's share below x: half of erfc(|x| / sqrt 2) is the share of one tail. */
INLINE_MAP float gelu_erf_of(float x)
{
    const float z = fabsf(x) * 0.70710678118654752f, t = 1.0f / fmaf(0.3275911f, z, 1.0f);
    float p = 1.061405429f, tail;

    p = fmaf(p, t, -1.453152027f);
    p = fmaf(p, t, 1.421413741f);
    p = fmaf(p, t, -0.284496736f);
    p = fmaf(p, t, 0.254829592f);
    tail = 0.5f * (p * t) * exp_of(-(z * z));
    return x * (x > 0.0f ? 1.0f - tail : tail);
}

/* max(x, 0) + log(1 + e), e = exp(-|x|) <= 1; log(1 + e) = 2 atanh(s), s = e / (2 + e) <= 1 / 3. */
INLINE_MAP float softplus_of(float x)
{
    const float e = exp_of(-fabsf(x)), s = e / (2.0f + e), q = s * s;
    float p = 1.0f / 15.0f;

    p = fmaf(p, q, 1.0f / 13.0f);
    p = fmaf(p, q, 1.0f / 11.0f);
    p = fmaf(p, q, 1.0f / 9.0f);
    p = fmaf(p, q, 1.0f / 7.0f);
    p = fmaf(p, q, 1.0f / 5.0f);
    p = fmaf(p, q, 1.0f / 3.0f);
    p = fmaf(p, q, 1.0f);
    return fmaf(2.0f * s, p, 0.0f > x ? 0.0f : x);
}

/* Taylor's polynomial near 0, where exp(x) - 1 would lose what counts: the first term left out is below 1e-8 of x. */
INLINE_MAP float expm1_of(float x)
{
    float p = 1.0f / 40320.0f;

    p = fmaf(p, x, 1.0f / 5040.0f);
    p = fmaf(p, x, 1.0f / 720.0f);
    p = fmaf(p, x, 1.0f / 120.0f);
    p = fmaf(p, x, 1.0f / 24.0f);
    p = fmaf(p, x, 1.0f / 6.0f);
    p = fmaf(p, x, 0.5f);
    p = fmaf(p, x, 1.0f);
    return fabsf(x) < 0.5f ? p * x : exp_of(x) - 1.0f;
}

INLINE_MAP float hard_sigmoid_of(float x) { return least(1.0f, most(0.0f, (x + 3.0f) / 6.0f)); }

INLINE_MAP float xielu_of(float x, const float *f)
{
    const float below = (expm1_of(least(x, f[3])) - x) * f[0] + f[2] * x, above = f[1] * x * x + f[2] * x;

    return x > 0.0f ? above : below;
}

INLINE_MAP float swiglu_oai_of(float x, float u, const float *f)
{
    const float g = least(x, f[1]), v = most(-f[1], least(f[1], u));

    return g / (1.0f + exp_of(-f[0] * g)) * (v + 1.0f);
}

/* `x` and `u`: this element's arguments. */
#define EACH_MAP(NAME, VALUE)                                                                                          \
    static void NAME(float *y, const float *a, const float *b, const float *f)                                         \
    {                                                                                                                  \
        (void)b;                                                                                                       \
        (void)f;                                                                                                       \
        for (int i = 0; i < LANES; i++) {                                                                              \
            const float x = a[i], u = b[i];                                                                            \
            (void)u;                                                                                                   \
            y[i] = VALUE;                                                                                              \
        }                                                                                                              \
    }

EACH_MAP(map_add, x + u)
EACH_MAP(map_sub, x - u)
EACH_MAP(map_mul, x *u)
EACH_MAP(map_div, x / u)
EACH_MAP(map_scale, f[1] == 0.0f ? x * f[0] : fmaf(x, f[0], f[1])) /* a zero keeps its sign */
EACH_MAP(map_clamp, least(f[1], most(f[0], x)))
EACH_MAP(map_neg, -x)
EACH_MAP(map_abs, fabsf(x))
EACH_MAP(map_sign, x > 0.0f ? 1.0f : (x < 0.0f ? -1.0f : 0.0f))
EACH_MAP(map_step, x > 0.0f ? 1.0f : 0.0f)
EACH_MAP(map_sqr, x *x)
EACH_MAP(map_sqrt, sqrtf(x))
EACH_MAP(map_exp, exp_of(x))
EACH_MAP(map_expm1, expm1_of(x))
EACH_MAP(map_tanh, tanh_of(x))
EACH_MAP(map_sigmoid, sigmoid_of(x))
EACH_MAP(map_softplus, softplus_of(x))
EACH_MAP(map_hard_sigmoid, hard_sigmoid_of(x))
EACH_MAP(map_hard_swish, x *hard_sigmoid_of(x))
EACH_MAP(map_elu, x > 0.0f ? x : expm1_of(x))
EACH_MAP(map_relu, relu_of(x))
EACH_MAP(map_relu_sqr, relu_of(x) * relu_of(x))
EACH_MAP(map_silu, silu_of(x))
EACH_MAP(map_gelu, gelu_of(x))
EACH_MAP(map_gelu_erf, gelu_erf_of(x))
EACH_MAP(map_gelu_quick, gelu_quick_of(x))
EACH_MAP(map_xielu, xielu_of(x, f))
EACH_MAP(map_reglu, relu_of(x) * u)
EACH_MAP(map_geglu, gelu_of(x) * u)
EACH_MAP(map_swiglu, silu_of(x) * u)
EACH_MAP(map_swiglu_oai, swiglu_oai_of(x, u, f))
EACH_MAP(map_geglu_erf, gelu_erf_of(x) * u)
EACH_MAP(map_geglu_quick, gelu_quick_of(x) * u)

typedef void block_map(float *y, const float *a, const float *b, const float *f);

static block_map *const maps[EL_N_MAPS] = {
    [EL_MAP_ADD] = map_add,
    [EL_MAP_SUB] = map_sub,
    [EL_MAP_MUL] = map_mul,
    [EL_MAP_DIV] = map_div,
    [EL_MAP_SCALE] = map_scale,
    [EL_MAP_CLAMP] = map_clamp,
    [EL_MAP_NEG] = map_neg,
    [EL_MAP_ABS] = map_abs,
    [EL_MAP_SIGN] = map_sign,
    [EL_MAP_STEP] = map_step,
    [EL_MAP_SQR] = map_sqr,
    [EL_MAP_SQRT] = map_sqrt,
    [EL_MAP_EXP] = map_exp,
    [EL_MAP_EXPM1] = map_expm1,
    [EL_MAP_TANH] = map_tanh,
    [EL_MAP_SIGMOID] = map_sigmoid,
    [EL_MAP_SOFTPLUS] = map_softplus,
    [EL_MAP_HARD_SIGMOID] = map_hard_sigmoid,
    [EL_MAP_HARD_SWISH] = map_hard_swish,
    [EL_MAP_ELU] = map_elu,
    [EL_MAP_RELU] = map_relu,
    [EL_MAP_RELU_SQR] = map_relu_sqr,
    [EL_MAP_SILU] = map_silu,
    [EL_MAP_GELU] = map_gelu,
    [EL_MAP_GELU_ERF] = map_gelu_erf,
    [EL_MAP_GELU_QUICK] = map_gelu_quick,
    [EL_MAP_XIELU] = map_xielu,
    [EL_MAP_REGLU] = map_reglu,
    [EL_MAP_GEGLU] = map_geglu,
    [EL_MAP_SWIGLU] = map_swiglu,
    [EL_MAP_SWIGLU_OAI] = map_swiglu_oai,
    [EL_MAP_GEGLU_ERF] = map_geglu_erf,
    [EL_MAP_GEGLU_QUICK] = map_geglu_quick,
};

/* Blocks go through memory of their own: y may be a or b, and the last block is as long as the others. */
static void map(el_map which, float *y, const float *a, const float *b, int64_t n, const float *f)
{
    float in[LANES] = {0}, other[LANES] = {0}, out[LANES];

    for (int64_t i = 0; i < n; i += LANES) {
        const size_t some = (size_t)EL_MIN(n - i, (int64_t)LANES) * sizeof(float);
        memcpy(in, a + i, some);
        if (b)
            memcpy(other, b + i, some);
        maps[which](out, in, other, f);
        memcpy(y + i, out, some);
    }
}
