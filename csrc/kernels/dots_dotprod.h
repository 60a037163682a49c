/* dots_dotprod.h - four rows times one, as in dots_neon.h, by sdot: four products summed per lane. */
#ifndef EL_DOTS_DOTPROD_H
#define EL_DOTS_DOTPROD_H

#include "rows_in_lanes_neon.h"

INLINE int32x4_t fold_rows(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
    return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
}

INLINE int32x4_t dots_16(int most, const int8x16_t w[LANES], int8x16_t x)
{
    const int32x4_t zero = vdupq_n_s32(0);

    (void)most;
    return fold_rows(vdotq_s32(zero, w[0], x), vdotq_s32(zero, w[1], x), vdotq_s32(zero, w[2], x),
                     vdotq_s32(zero, w[3], x));
}

INLINE int32x4_t dots_32(int most, const int8x16_t w[2 * LANES], const int8x16_t x[2])
{
    int32x4_t v[LANES];

    (void)most;
    for (int r = 0; r < LANES; r++)
        v[r] = vdotq_s32(vdotq_s32(vdupq_n_s32(0), w[r], x[0]), w[LANES + r], x[1]);
    return fold_rows(v[0], v[1], v[2], v[3]);
}

#endif
