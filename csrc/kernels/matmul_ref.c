/* matmul_ref.c - the rule of kernels.h as plain loops: activations quantized, weights times activations.
 * Every other instruction set is compared with this file bit by bit; it is kept readable, not fast. */
#include "blocks.h"
#include "mem.h"
#include "scalar_math.h"

/* ---- block types ---------------------------------------------------------------------- */

static int32_t dot_block(const el_unpacked *u, const int8_t *q, int n)
{
    int32_t total = 0;

    for (int g = 0; g < n / 16; g++) {
        int32_t sum = 0;
        for (int i = 16 * g; i < 16 * g + 16; i++)
            sum += u->q[i] * q[i];
        total += u->scale[g] * sum;
    }
    return total;
}

static float step_32(float acc, const el_unpacked *u, const uint8_t *row, int64_t k, int64_t b, bool has_min)
{
    const float d = ((const float *)(row + el_act32_d(k)))[b], s = ((const float *)(row + el_act32_s(k)))[b];

    acc = fmaf(u->d * d, (float)dot_block(u, (const int8_t *)row + 32 * b, 32), acc);
    return has_min ? fmaf(u->m, s, acc) : acc;
}

static float step_256(float acc, const el_unpacked *u, const uint8_t *row, int64_t k, int64_t b, bool has_min)
{
    const float d = ((const float *)(row + el_act256_d(k)))[b];
    const int16_t *sum16 = (const int16_t *)(row + el_act256_sum16(k)) + 16 * b;
    int32_t minima = 0;

    acc = fmaf(u->d * d, (float)dot_block(u, (const int8_t *)row + 256 * b, 256), acc);
    if (!has_min)
        return acc;
    for (int g = 0; g < 16; g++)
        minima += u->min[g] * sum16[g];
    return fmaf(-(u->m * d), (float)minima, acc);
}

static void matmul_blocks(int type, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes, int64_t n_rows,
                          const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k)
{
    const el_block_type *t = el_block_type_of(type);
    el_unpacked u;

    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t j = 0; j < n_x; j++)
            y[j * ldy + r] = 0;
        for (int64_t b = 0; b < k / t->elements; b++) {
            t->unpack(&u, w + (size_t)r * row_bytes + (size_t)b * t->bytes);
            for (int64_t j = 0; j < n_x; j++) {
                float *acc = &y[j * ldy + r];
                *acc = (t->elements == 32 ? step_32 : step_256)(*acc, &u, x + (size_t)j * x_stride, k, b, t->has_min);
            }
        }
    }
}

/* ---- float types ---------------------------------------------------------------------- */

static float load_f32(const uint8_t *w, int64_t i) { return el_float_of(el_load32(w + 4 * i)); }
static float load_f16(const uint8_t *w, int64_t i) { return el_f16_value(el_load16(w + 2 * i)); }
static float load_bf16(const uint8_t *w, int64_t i) { return el_bf16_value(el_load16(w + 2 * i)); }

static void matmul_floats(float (*load)(const uint8_t *, int64_t), float *y, int64_t ldy, const uint8_t *w,
                          size_t row_bytes, int64_t n_rows, const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k)
{
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t j = 0; j < n_x; j++) {
            const float *row = (const float *)(x + (size_t)j * x_stride);
            float p[16] = {0};
            for (int64_t i = 0; i < ((k + 15) & ~(int64_t)15); i++)
                p[i % 16] = i < k ? fmaf(load(w + (size_t)r * row_bytes, i), row[i], p[i % 16]) : p[i % 16] + 0.0f;
            y[j * ldy + r] = el_fold16(p);
        }
}

/* ---- the table ------------------------------------------------------------------------ */

#define BLOCKS(NAME, TYPE)                                                                                             \
    static void matmul_##NAME(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,   \
                              size_t x_stride, int64_t n_x, int64_t k, void *scratch)                                  \
    {                                                                                                                  \
        (void)scratch;                                                                                                 \
        matmul_blocks(TYPE, y, ldy, w, row_bytes, n_rows, x, x_stride, n_x, k);                                        \
    }
#define FLOATS(NAME)                                                                                                   \
    static void matmul_##NAME(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,   \
                              size_t x_stride, int64_t n_x, int64_t k, void *scratch)                                  \
    {                                                                                                                  \
        (void)scratch;                                                                                                 \
        matmul_floats(load_##NAME, y, ldy, w, row_bytes, n_rows, x, x_stride, n_x, k);                                 \
    }
FLOATS(f32)
FLOATS(f16)
FLOATS(bf16)
BLOCKS(q4_0, EL_TYPE_Q4_0)
BLOCKS(q4_1, EL_TYPE_Q4_1)
BLOCKS(q5_0, EL_TYPE_Q5_0)
BLOCKS(q5_1, EL_TYPE_Q5_1)
BLOCKS(q8_0, EL_TYPE_Q8_0)
BLOCKS(iq4_nl, EL_TYPE_IQ4_NL)
BLOCKS(mxfp4, EL_TYPE_MXFP4)
BLOCKS(q2_k, EL_TYPE_Q2_K)
BLOCKS(q3_k, EL_TYPE_Q3_K)
BLOCKS(q4_k, EL_TYPE_Q4_K)
BLOCKS(q5_k, EL_TYPE_Q5_K)
BLOCKS(q6_k, EL_TYPE_Q6_K)
BLOCKS(iq4_xs, EL_TYPE_IQ4_XS)

void el_matmul_use_ref(el_kernels *t)
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
