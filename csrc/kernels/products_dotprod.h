/* products_dotprod.h - products_neon.h's functions by sdot: weights are packed with four rows in four lanes, so that
 * the instruction that takes four activations from a lane leaves the rows' sums in theirs. */
#ifndef EL_PRODUCTS_DOTPROD_H
#define EL_PRODUCTS_DOTPROD_H

#include "dots_dotprod.h"

enum { X_STEP = 1, GROUPS = 2, ROWS = LANES * GROUPS };
#define X_LOOP EL_TWICE

typedef struct acts {
    int8x16_t v[2];
} acts;

INLINE acts load_acts(const int8_t *q, const int8_t *second)
{
    (void)second;
    return (acts){{vld1q_s8(q), vld1q_s8(q + 16)}};
}

/* packed[s]: weights 4 s .. 4 s + 3, row r in lane r. */
INLINE void pack(int8x16_t packed[4], const int8x16_t row[LANES])
{
    uint32x4_t in[4], out[4];

    EL_UNROLLED
    for (int r = 0; r < LANES; r++)
        in[r] = vreinterpretq_u32_s8(row[r]);
    transpose_4(out, in);
    EL_UNROLLED
    for (int s = 0; s < 4; s++)
        packed[s] = vreinterpretq_s8_u32(out[s]);
}

INLINE int32x4_t add_lanes(int32x4_t sum, const int8x16_t w[4], int8x16_t x)
{
    sum = vdotq_laneq_s32(sum, w[0], x, 0);
    sum = vdotq_laneq_s32(sum, w[1], x, 1);
    sum = vdotq_laneq_s32(sum, w[2], x, 2);
    return vdotq_laneq_s32(sum, w[3], x, 3);
}

INLINE void sums_16(int most, int32x4_t sum[X_STEP], const int8x16_t w[4], const acts *x, int e)
{
    (void)most;
    sum[0] = add_lanes(vdupq_n_s32(0), w, x->v[e]);
}

INLINE void sums_32(int most, int32x4_t sum[X_STEP], const int8x16_t w[8], const acts *x)
{
    (void)most;
    sum[0] = add_lanes(add_lanes(vdupq_n_s32(0), w, x->v[0]), w + 4, x->v[1]);
}

#endif
