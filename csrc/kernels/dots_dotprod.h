/* dots_dotprod.h - four rows times one, as in dots_neon.h, by sdot: four products summed per lane. */
#ifndef EL_DOTS_DOTPROD_H
#define EL_DOTS_DOTPROD_H

#include "rows_in_lanes_neon.h"

enum { HAS_SDOT = 1 };

INLINE int32x4_t fold_rows(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
    return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
}

/* Scales of 16 groups, or of the 8 in a, for add_unit_16 and add_unit_32, in lanes: each without the one after it.
 * Sums of products run on from group to group, which spares a zero each, so a group's share is a difference:
 *     sum over g of scale_g * (run_g - run_{g - 1}) = sum over g of (scale_g - scale_{g + 1}) * run_g
 * (Abel's summation by parts), exact modulo 2^32. */
typedef struct unit_scales {
    int32x4_t v[4];
} unit_scales;

INLINE unit_scales unit_scales_of(int n, int16x8_t a, int16x8_t b)
{
    const int16x8_t zero = vdupq_n_s16(0);
    const int16x8_t c = vsubq_s16(a, vextq_s16(a, n > 8 ? b : zero, 1)), d = vsubq_s16(b, vextq_s16(b, zero, 1));
    unit_scales s = {{vmovl_s16(vget_low_s16(c)), vmovl_high_s16(c), vmovl_s16(vget_low_s16(d)), vmovl_high_s16(d)}};

    EL_UNROLLED
    for (int i = 0; i < n / 4; i++) /* or clang 21 widens every scale by itself, two instructions more for each */
        KEEP_VECTOR(s.v[i]);
    return s;
}

/* What add_unit_* add to: total and 16 products, or 32, times scale i. */
typedef struct unit_sums {
    int32x4_t total, run;
} unit_sums;

INLINE unit_sums unit_sums_from(int32x4_t total) { return (unit_sums){total, vdupq_n_s32(0)}; }

INLINE void add_unit_16(unit_sums *to, int8x16_t w, int8x16_t x, const unit_scales *s, int i)
{
    to->run = vdotq_s32(to->run, w, x);
    to->total = vmlaq_n_s32(to->total, to->run, s->v[i / 4][i % 4]);
}

INLINE void add_unit_32(int most, unit_sums *to, const int8x16_t w[2], const int8x16_t x[2], const unit_scales *s,
                        int i)
{
    (void)most;
    to->run = vdotq_s32(vdotq_s32(to->run, w[0], x[0]), w[1], x[1]);
    to->total = vmlaq_n_s32(to->total, to->run, s->v[i / 4][i % 4]);
}

/* Sums of a block of four rows. kept: the rows' lanes, which run on from block to block, and what they summed up to
 * before: the difference is exact modulo 2^32, and spares four zeros a block. */
INLINE int32x4_t next_dots_32(int most, int32x4_t kept[LANES + 1], const int8x16_t w[2 * LANES], const int8x16_t x[2])
{
    const int32x4_t before = kept[LANES];

    (void)most;
    EL_UNROLLED
    for (int r = 0; r < LANES; r++)
        kept[r] = vdotq_s32(vdotq_s32(kept[r], w[r], x[0]), w[LANES + r], x[1]);
    kept[LANES] = fold_rows(kept[0], kept[1], kept[2], kept[3]);
    return vsubq_s32(kept[LANES], before);
}

#endif
