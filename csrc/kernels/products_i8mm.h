/* products_i8mm.h - products_neon.h's functions by smmla: two rows of eight weights times two rows of eight
 * activations in one instruction, twice the products of sdot. */
#ifndef EL_PRODUCTS_I8MM_H
#define EL_PRODUCTS_I8MM_H

#include "dots_dotprod.h"

enum { X_STEP = 2, GROUPS = 2, ROWS = LANES * GROUPS };
#define X_LOOP /* twice the sums do not fit into registers */

INLINE int8x16_t low_halves(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

INLINE int8x16_t high_halves(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

typedef struct acts {
    int8x16_t v[4]; /* activations 8 i .. 8 i + 7 of both rows */
} acts;

INLINE acts load_acts(const int8_t *q, const int8_t *second)
{
    const int8x16_t a = vld1q_s8(q), b = vld1q_s8(second);
    const int8x16_t c = vld1q_s8(q + 16), d = vld1q_s8(second + 16);

    return (acts){{low_halves(a, b), high_halves(a, b), low_halves(c, d), high_halves(c, d)}};
}

/* packed[2 p + h]: weights 8 h .. 8 h + 7 of rows 2 p and 2 p + 1. */
INLINE void pack(int8x16_t packed[4], const int8x16_t row[LANES])
{
    EL_UNROLLED
    for (int p = 0; p < 2; p++) {
        packed[2 * p] = low_halves(row[2 * p], row[2 * p + 1]);
        packed[2 * p + 1] = high_halves(row[2 * p], row[2 * p + 1]);
    }
}

INLINE int32x4_t add_pair(int32x4_t sum, const int8x16_t w[2], const acts *x, int e)
{
    return vmmlaq_s32(vmmlaq_s32(sum, x->v[2 * e], w[0]), x->v[2 * e + 1], w[1]);
}

/* a, b: rows 0, 1 and rows 2, 3 times the first activation row in the low half, the second in the high one. */
INLINE void lanes_of(int32x4_t sum[X_STEP], int32x4_t a, int32x4_t b)
{
    const int64x2_t u = vreinterpretq_s64_s32(a), v = vreinterpretq_s64_s32(b);

    sum[0] = vreinterpretq_s32_s64(vzip1q_s64(u, v));
    sum[1] = vreinterpretq_s32_s64(vzip2q_s64(u, v));
}

INLINE void sums_16(int most, int32x4_t sum[X_STEP], const int8x16_t w[4], const acts *x, int e)
{
    const int32x4_t zero = vdupq_n_s32(0);

    (void)most;
    lanes_of(sum, add_pair(zero, w, x, e), add_pair(zero, w + 2, x, e));
}

INLINE void sums_32(int most, int32x4_t sum[X_STEP], const int8x16_t w[8], const acts *x)
{
    const int32x4_t zero = vdupq_n_s32(0);

    (void)most;
    lanes_of(sum, add_pair(add_pair(zero, w, x, 0), w + 4, x, 1), add_pair(add_pair(zero, w + 2, x, 0), w + 6, x, 1));
}

#endif
