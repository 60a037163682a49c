/* dots_dotprod.h - four rows times one, as in dots_neon.h, by sdot: four products summed per lane. */
#ifndef EL_DOTS_DOTPROD_H
#define EL_DOTS_DOTPROD_H

#include "rows_in_lanes_neon.h"

INLINE int32x4_t fold_rows(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
    return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
}

/* Scales of 16 groups, for add_unit_16 and add_unit_32: total and 16 products, or 32, times scale i; in lanes. */
typedef struct unit_scales {
    int32x4_t v[4];
} unit_scales;

INLINE unit_scales unit_scales_of(int16x8_t a, int16x8_t b)
{
    unit_scales s = {{vmovl_s16(vget_low_s16(a)), vmovl_high_s16(a), vmovl_s16(vget_low_s16(b)), vmovl_high_s16(b)}};

    EL_UNROLLED
    for (int i = 0; i < 4; i++) /* or clang 21 widens every scale by itself, two instructions more for each */
        __asm__("" : "+w"(s.v[i]));
    return s;
}

INLINE int32x4_t add_unit_16(int32x4_t total, int8x16_t w, int8x16_t x, const unit_scales *s, int i)
{
    return vmlaq_n_s32(total, vdotq_s32(vdupq_n_s32(0), w, x), s->v[i / 4][i % 4]);
}

INLINE int32x4_t add_unit_32(int most, int32x4_t total, const int8x16_t w[2], const int8x16_t x[2],
                             const unit_scales *s, int i)
{
    (void)most;
    return vmlaq_n_s32(total, vdotq_s32(vdotq_s32(vdupq_n_s32(0), w[0], x[0]), w[1], x[1]), s->v[i / 4][i % 4]);
}

INLINE int32x4_t dots_32(int most, const int8x16_t w[2 * LANES], const int8x16_t x[2])
{
    int32x4_t v[LANES];

    (void)most;
    EL_UNROLLED
    for (int r = 0; r < LANES; r++)
        v[r] = vdotq_s32(vdotq_s32(vdupq_n_s32(0), w[r], x[0]), w[LANES + r], x[1]);
    return fold_rows(v[0], v[1], v[2], v[3]);
}

#endif
