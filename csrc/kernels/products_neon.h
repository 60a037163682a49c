/* products_neon.h - four weight rows times activations, exact in int32, without sdot. The templates matmul_neon.h and
 * superblock_neon.h are written over these functions; products_dotprod.h and products_i8mm.h have the same names.
 *   next_dots_32               rows as they are times one activation row: lane r of the result is row r
 *   add_unit_16, add_unit_32   one row's weights of a group times one activation row, times the group's scale
 *   pack                       16 weights of four rows in the order that sums_16 and sums_32 want
 *   sums_16, sums_32           packed rows times X_STEP activation rows
 * GROUPS of four weight rows share the activations that were loaded. One here: two want more registers than there are,
 * 0.29 instructions per product of Q4_K instead of 0.25 with 32 activation rows. With sdot two fit: 0.15, not 0.16.
 * most: the largest |weight|, known while compiling. It says how many products, of at most 127 * most each, int16 can
 * sum before they are widened: two of 128, eight of 31. */
#ifndef EL_PRODUCTS_NEON_H
#define EL_PRODUCTS_NEON_H

#include "rows_in_lanes_neon.h"

enum { HAS_SDOT = 0, X_STEP = 1, GROUPS = 1, ROWS = LANES * GROUPS };
#if defined(__aarch64__) /* before the loop over activation rows; 32-bit ARM has too few registers */
#define X_LOOP EL_TWICE
#else
#define X_LOOP
#endif

typedef struct acts {
    int8x16_t v[2];
} acts;

INLINE acts load_acts(const int8_t *q, const int8_t *second)
{
    (void)second;
    return (acts){{vld1q_s8(q), vld1q_s8(q + 16)}};
}

/* Pairs of products. */
INLINE int16x8_t dot_16(int8x16_t w, int8x16_t x)
{
    return vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x);
}

INLINE int16x8_t add_dot_16(int16x8_t sum, int8x16_t w, int8x16_t x)
{
    return vmlal_high_s8(vmlal_s8(sum, vget_low_s8(w), vget_low_s8(x)), w, x);
}

INLINE bool fits(int most, int products) { return products * most * 127 < 0x8000; }

/* v[r]: eight sums of n_products each of row r. */
INLINE int32x4_t fold_rows(int most, int n_products, const int16x8_t v[LANES])
{
    if (fits(most, 4 * n_products))
        return vpaddlq_s16(vpaddq_s16(vpaddq_s16(v[0], v[1]), vpaddq_s16(v[2], v[3])));
    if (fits(most, 2 * n_products))
        return vpaddq_s32(vpaddlq_s16(vpaddq_s16(v[0], v[1])), vpaddlq_s16(vpaddq_s16(v[2], v[3])));
    return vpaddq_s32(vpaddq_s32(vpaddlq_s16(v[0]), vpaddlq_s16(v[1])),
                      vpaddq_s32(vpaddlq_s16(v[2]), vpaddlq_s16(v[3])));
}

/* Scales of 16 groups, or of the 8 in a, for add_unit_16 and add_unit_32. */
typedef struct unit_scales {
    int16x8_t v[2];
} unit_scales;

INLINE unit_scales unit_scales_of(int n, int16x8_t a, int16x8_t b)
{
    (void)n;
    return (unit_scales){{a, b}};
}

/* What add_unit_* add to: total and 16 products, or 32, times scale i. */
typedef struct unit_sums {
    int32x4_t total;
} unit_sums;

INLINE unit_sums unit_sums_from(int32x4_t total) { return (unit_sums){total}; }

INLINE int32x4_t add_scaled(int32x4_t total, int16x8_t v, int16_t scale)
{
    return vmlal_n_s16(vmlal_n_s16(total, vget_low_s16(v), scale), vget_high_s16(v), scale);
}

INLINE void add_unit_16(unit_sums *to, int8x16_t w, int8x16_t x, const unit_scales *s, int i)
{
    to->total = add_scaled(to->total, dot_16(w, x), s->v[i / 8][i % 8]);
}

INLINE void add_unit_32(int most, unit_sums *to, const int8x16_t w[2], const int8x16_t x[2], const unit_scales *s,
                        int i)
{
    const int16x8_t v = dot_16(w[0], x[0]);
    const int16_t scale = s->v[i / 8][i % 8];

    if (fits(most, 4)) {
        to->total = add_scaled(to->total, add_dot_16(v, w[1], x[1]), scale);
    } else {
        to->total = add_scaled(add_scaled(to->total, v, scale), dot_16(w[1], x[1]), scale);
    }
}

INLINE int32x4_t dots_16(int most, const int8x16_t w[LANES], int8x16_t x)
{
    int16x8_t v[LANES];

    EL_UNROLLED
    for (int r = 0; r < LANES; r++)
        v[r] = dot_16(w[r], x);
    return fold_rows(most, 2, v);
}

INLINE int32x4_t dots_32(int most, const int8x16_t w[2 * LANES], const int8x16_t x[2])
{
    int16x8_t v[LANES];
    int32x4_t wide[LANES];

    EL_UNROLLED
    for (int r = 0; r < LANES; r++) {
        v[r] = dot_16(w[r], x[0]);
        if (fits(most, 4))
            v[r] = add_dot_16(v[r], w[LANES + r], x[1]);
        else
            wide[r] = vpadalq_s16(vpaddlq_s16(v[r]), dot_16(w[LANES + r], x[1]));
    }
    if (fits(most, 4))
        return fold_rows(most, 4, v);
    return vpaddq_s32(vpaddq_s32(wide[0], wide[1]), vpaddq_s32(wide[2], wide[3]));
}

/* Nothing is kept from block to block. */
INLINE int32x4_t next_dots_32(int most, int32x4_t kept[LANES + 1], const int8x16_t w[2 * LANES], const int8x16_t x[2])
{
    (void)kept;
    return dots_32(most, w, x);
}

/* Rows in lanes would need every four activations spread and gain nothing. */
INLINE void pack(int8x16_t packed[4], const int8x16_t row[LANES])
{
    EL_UNROLLED
    for (int r = 0; r < LANES; r++)
        packed[r] = row[r];
}

INLINE void sums_16(int most, int32x4_t sum[X_STEP], const int8x16_t w[4], const acts *x, int e)
{
    sum[0] = dots_16(most, w, x->v[e]);
}

INLINE void sums_32(int most, int32x4_t sum[X_STEP], const int8x16_t w[8], const acts *x)
{
    sum[0] = dots_32(most, w, x->v);
}

#endif
