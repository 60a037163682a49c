/* matmul_neon32.c - products of weights on 32-bit ARM: integers in NEON, exact, floats in the scalar unit, because NEON
 * flushes subnormals there. What is not a product stays plain C. */
#include <arm_neon.h>

#include "blocks.h"
#include "mem.h"
#include "scalar_math.h"

#define INLINE static inline __attribute__((always_inline))

INLINE int32_t add_lanes(int32x4_t v)
{
    const int32x2_t two = vadd_s32(vget_low_s32(v), vget_high_s32(v));

    return vget_lane_s32(vpadd_s32(two, two), 0);
}

/* ---- blocks of 32 that need no table ----------------------------------------------------- */

/* Two products of at most 128 * 127 each fit into 16 bits. */
INLINE int32_t dot_32(const int8x16_t w[2], const int8_t *q)
{
    int32x4_t sum = vdupq_n_s32(0);

    for (int i = 0; i < 2; i++) {
        const int8x16_t x = vld1q_s8(q + 16 * i);
        sum = vpadalq_s16(sum,
                          vmlal_s8(vmull_s8(vget_low_s8(w[i]), vget_low_s8(x)), vget_high_s8(w[i]), vget_high_s8(x)));
    }
    return add_lanes(sum);
}

INLINE void load_q8_0(int8x16_t w[2], const uint8_t *block)
{
    w[0] = vld1q_s8((const int8_t *)block + 2);
    w[1] = vld1q_s8((const int8_t *)block + 18);
}

INLINE void load_nibbles(int8x16_t w[2], const uint8_t *nibbles)
{
    const uint8x16_t v = vld1q_u8(nibbles);

    w[0] = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
    w[1] = vreinterpretq_s8_u8(vshrq_n_u8(v, 4));
}

INLINE void load_q4_0(int8x16_t w[2], const uint8_t *block)
{
    load_nibbles(w, block + 2);
    w[0] = vsubq_s8(w[0], vdupq_n_s8(8));
    w[1] = vsubq_s8(w[1], vdupq_n_s8(8));
}

INLINE void load_q4_1(int8x16_t w[2], const uint8_t *block) { load_nibbles(w, block + 4); }

typedef void load_fn(int8x16_t w[2], const uint8_t *block);

/* Four activation rows share the weights of a block. */
INLINE void rows_32(load_fn *load, size_t bytes, bool has_min, float *y, int64_t ldy, const uint8_t *w,
                    const uint8_t *x, size_t x_stride, int n_x, int64_t k)
{
    float acc[4] = {0};

    for (int64_t b = 0; b < k / 32; b++, w += bytes) {
        const float d = el_f16_value(el_load16(w)), m = has_min ? el_f16_value(el_load16(w + 2)) : 0;
        int8x16_t v[2];
        load(v, w);
        for (int j = 0; j < n_x; j++) {
            const uint8_t *row = x + (size_t)j * x_stride;
            const float dx = ((const float *)(row + el_act32_d(k)))[b];
            acc[j] = fmaf(d * dx, (float)dot_32(v, (const int8_t *)row + 32 * b), acc[j]);
            if (has_min)
                acc[j] = fmaf(m, ((const float *)(row + el_act32_s(k)))[b], acc[j]);
        }
    }
    for (int j = 0; j < n_x; j++)
        y[j * ldy] = acc[j];
}

#define MATMUL_32(NAME, BYTES, HAS_MIN)                                                                                \
    static void matmul_##NAME(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,   \
                              size_t x_stride, int64_t n_x, int64_t k, void *scratch)                                  \
    {                                                                                                                  \
        (void)scratch;                                                                                                 \
        for (int64_t r = 0; r < n_rows; r++) {                                                                         \
            const uint8_t *row = (const uint8_t *)w + (size_t)r * row_bytes;                                           \
            int64_t j = 0;                                                                                             \
            for (; j + 4 <= n_x; j += 4)                                                                               \
                rows_32(load_##NAME, BYTES, HAS_MIN, y + j * ldy + r, ldy, row,                                        \
                        (const uint8_t *)x + (size_t)j * x_stride, x_stride, 4, k);                                    \
            for (; j < n_x; j++)                                                                                       \
                rows_32(load_##NAME, BYTES, HAS_MIN, y + j * ldy + r, ldy, row,                                        \
                        (const uint8_t *)x + (size_t)j * x_stride, x_stride, 1, k);                                    \
        }                                                                                                              \
    }
MATMUL_32(q8_0, 34, false)
MATMUL_32(q4_0, 18, false)
MATMUL_32(q4_1, 20, true)

/* ---- every other type: blocks unpacked by plain C ---------------------------------------- */

static int32_t dot_unpacked(const el_unpacked *u, const int8_t *q, int n)
{
    int32x4_t total = vdupq_n_s32(0);

    for (int g = 0; g < n / 16; g++) {
        const int16_t *w = u->q + 16 * g;
        const int8x16_t x = vld1q_s8(q + 16 * g);
        const int16x8_t low = vmovl_s8(vget_low_s8(x)), high = vmovl_s8(vget_high_s8(x));
        int32x4_t sum = vmull_s16(vld1_s16(w), vget_low_s16(low));
        sum = vmlal_s16(sum, vld1_s16(w + 4), vget_high_s16(low));
        sum = vmlal_s16(sum, vld1_s16(w + 8), vget_low_s16(high));
        sum = vmlal_s16(sum, vld1_s16(w + 12), vget_high_s16(high));
        total = vmlaq_n_s32(total, sum, u->scale[g]);
    }
    return add_lanes(total);
}

static int32_t minima_of(const el_unpacked *u, const int16_t *sum16)
{
    int32x4_t sum = vdupq_n_s32(0);

    for (int g = 0; g < 16; g += 4)
        sum = vmlal_s16(sum, vld1_s16(u->min + g), vld1_s16(sum16 + g));
    return add_lanes(sum);
}

static float step(float acc, const el_block_type *t, const el_unpacked *u, const uint8_t *row, int64_t k, int64_t b)
{
    if (t->elements == 32) {
        const float d = ((const float *)(row + el_act32_d(k)))[b], s = ((const float *)(row + el_act32_s(k)))[b];
        acc = fmaf(u->d * d, (float)dot_unpacked(u, (const int8_t *)row + 32 * b, 32), acc);
        return t->has_min ? fmaf(u->m, s, acc) : acc;
    } else {
        const float d = ((const float *)(row + el_act256_d(k)))[b];
        const int16_t *sum16 = (const int16_t *)(row + el_act256_sum16(k)) + 16 * b;
        acc = fmaf(u->d * d, (float)dot_unpacked(u, (const int8_t *)row + 256 * b, 256), acc);
        return t->has_min ? fmaf(-(u->m * d), (float)minima_of(u, sum16), acc) : acc;
    }
}

static void matmul_unpacked(int type, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes, int64_t n_rows,
                            const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k)
{
    const el_block_type *t = el_block_type_of(type);
    el_unpacked u;

    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t j = 0; j < n_x; j++)
            y[j * ldy + r] = 0;
        for (int64_t b = 0; b < k / t->elements; b++) {
            t->unpack(&u, w + (size_t)r * row_bytes + (size_t)b * t->bytes);
            for (int64_t j = 0; j < n_x; j++)
                y[j * ldy + r] = step(y[j * ldy + r], t, &u, x + (size_t)j * x_stride, k, b);
        }
    }
}

#define MATMUL(NAME, TYPE)                                                                                             \
    static void matmul_##NAME(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,   \
                              size_t x_stride, int64_t n_x, int64_t k, void *scratch)                                  \
    {                                                                                                                  \
        (void)scratch;                                                                                                 \
        matmul_unpacked(TYPE, y, ldy, w, row_bytes, n_rows, x, x_stride, n_x, k);                                      \
    }
MATMUL(q5_0, EL_TYPE_Q5_0)
MATMUL(q5_1, EL_TYPE_Q5_1)
MATMUL(iq4_nl, EL_TYPE_IQ4_NL)
MATMUL(mxfp4, EL_TYPE_MXFP4)
MATMUL(q2_k, EL_TYPE_Q2_K)
MATMUL(q3_k, EL_TYPE_Q3_K)
MATMUL(q4_k, EL_TYPE_Q4_K)
MATMUL(q5_k, EL_TYPE_Q5_K)
MATMUL(q6_k, EL_TYPE_Q6_K)
MATMUL(iq4_xs, EL_TYPE_IQ4_XS)

/* ---- floats ------------------------------------------------------------------------------ */

typedef void load_16_fn(float out[16], const uint8_t *w);

INLINE void load_16_f32(float out[16], const uint8_t *w) { memcpy(out, w, 64); }

INLINE void load_16_f16(float out[16], const uint8_t *w)
{
    for (int i = 0; i < 16; i += 4)
        vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(w + 2 * i))));
}

INLINE void load_16_bf16(float out[16], const uint8_t *w)
{
    for (int i = 0; i < 16; i += 4)
        vst1q_f32(out + i, vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(w + 2 * i)), 16)));
}

/* The 16 partial sums of kernels.h, in the scalar unit. What is left of a row is copied, so that nothing past it is
 * read; zeros times zeros turn a sum of -0 into +0, as the rule wants. */
INLINE float float_row(load_16_fn *load, size_t bytes, const uint8_t *w, const float *x, int64_t k)
{
    float p[16] = {0}, v[16];
    int64_t i = 0;

    for (; i + 16 <= k; i += 16) {
        load(v, w + (size_t)i * bytes);
        for (int l = 0; l < 16; l++)
            p[l] = fmaf(v[l], x[i + l], p[l]);
    }
    if (i < k) {
        uint8_t rest_w[64] = {0};
        float rest_x[16] = {0};
        memcpy(rest_w, w + (size_t)i * bytes, (size_t)(k - i) * bytes);
        memcpy(rest_x, x + i, (size_t)(k - i) * sizeof *x);
        load(v, rest_w);
        for (int l = 0; l < 16; l++)
            p[l] = fmaf(v[l], rest_x[l], p[l]);
    }
    return el_fold16(p);
}

#define MATMUL_FLOATS(NAME, BYTES)                                                                                     \
    static void matmul_##NAME(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,   \
                              size_t x_stride, int64_t n_x, int64_t k, void *scratch)                                  \
    {                                                                                                                  \
        (void)scratch;                                                                                                 \
        for (int64_t r = 0; r < n_rows; r++)                                                                           \
            for (int64_t j = 0; j < n_x; j++)                                                                          \
                y[j * ldy + r] = float_row(load_16_##NAME, BYTES, (const uint8_t *)w + (size_t)r * row_bytes,          \
                                           (const float *)((const uint8_t *)x + (size_t)j * x_stride), k);             \
    }
MATMUL_FLOATS(f32, 4)
MATMUL_FLOATS(f16, 2)
MATMUL_FLOATS(bf16, 2)

void el_matmul_use_neon32(el_kernels *t)
{
    t->matmul[EL_TYPE_F32] = matmul_f32;
    t->matmul[EL_TYPE_F16] = matmul_f16;
    t->matmul[EL_TYPE_BF16] = matmul_bf16;
    t->matmul[EL_TYPE_Q4_0] = matmul_q4_0;
    t->matmul[EL_TYPE_Q4_1] = matmul_q4_1;
    t->matmul[EL_TYPE_Q5_0] = matmul_q5_0;
    t->matmul[EL_TYPE_Q5_1] = matmul_q5_1;
    t->matmul[EL_TYPE_Q8_0] = matmul_q8_0;
    t->matmul[EL_TYPE_IQ4_NL] = matmul_iq4_nl;
    t->matmul[EL_TYPE_MXFP4] = matmul_mxfp4;
    t->matmul[EL_TYPE_Q2_K] = matmul_q2_k;
    t->matmul[EL_TYPE_Q3_K] = matmul_q3_k;
    t->matmul[EL_TYPE_Q4_K] = matmul_q4_k;
    t->matmul[EL_TYPE_Q5_K] = matmul_q5_k;
    t->matmul[EL_TYPE_Q6_K] = matmul_q6_k;
    t->matmul[EL_TYPE_IQ4_XS] = matmul_iq4_xs;
}
