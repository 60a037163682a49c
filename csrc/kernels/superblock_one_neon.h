/* superblock_one_neon.h - one activation row: a weight row's super-block at a time, in the order of its bytes; part of
 * superblock_neon.h. Products of 16 weights stay in the lanes in which they were made, times their group's scale; lanes
 * are folded once per super-block, four rows together. add_unit_16 and add_unit_32 are the instruction set's. */

/* Scales of a super-block, and its minima, or nothing. */
typedef struct row_scales {
    unit_scales scale; /* of each group of 16, or of 32 in the first 8 */
    int16x8_t min[2];
} row_scales;

/* 8 bytes, each the byte of v that `places` names, or 0. */
INLINE uint8x16_t pick(uint8x16_t v, const uint8_t places[16]) { return vqtbl1q_u8(v, vld1q_u8(places)); }

INLINE int16x8_t low_words(uint8x16_t v) { return vmovl_s8(vget_low_s8(as_signed(v))); }
INLINE int16x8_t high_words(uint8x16_t v) { return vmovl_s8(vget_high_s8(as_signed(v))); }

/* Bytes shifted right, each by its own number. */
INLINE uint8x16_t shifted_by(uint8x16_t v, const int8_t right[16]) { return vshlq_u8(v, vnegq_s8(vld1q_s8(right))); }

INLINE row_scales row_scales_q2_k(const uint8_t *block)
{
    const uint8x16_t v = vld1q_u8(block), scales = low_nibbles(v), mins = high_nibbles(v);

    return (row_scales){unit_scales_of(16, low_words(scales), high_words(scales)), {low_words(mins), high_words(mins)}};
}

INLINE row_scales row_scales_q3_k(const uint8_t *block)
{
    static const int8_t twos[16] = {0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6};
    const uint8x8_t nibbles = vld1_u8(block + EL_Q3_K_SCALES);
    const uint8x16_t low = low_nibbles(vcombine_u8(nibbles, vshr_n_u8(nibbles, 4)));
    const uint8x16_t high = vreinterpretq_u8_u32(vdupq_n_u32(el_load32(block + EL_Q3_K_SCALES + 8)));
    const uint8x16_t v = vsliq_n_u8(low, shifted_by(high, twos), 4); /* bits above the sixth go here */
    const uint8x16_t six = vsubq_u8(vandq_u8(v, vdupq_n_u8(63)), vdupq_n_u8(32));

    return (row_scales){unit_scales_of(16, low_words(six), high_words(six)), {low_words(six), high_words(six)}};
}

/* Q4_K and Q5_K: of the 16 bytes at the block's beginning, blocks.c's scales_and_mins; then 8 scales, 8 minima. */
INLINE row_scales row_scales_q4_k(const uint8_t *block)
{
    static const uint8_t low_places[16] = {4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15};
    static const uint8_t high_places[16] = {255, 255, 255, 255, 4, 5, 6, 7, 255, 255, 255, 255, 8, 9, 10, 11};
    static const int8_t right[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4};
    static const uint8_t mask[16] = {63, 63, 63, 63, 15, 15, 15, 15, 63, 63, 63, 63, 15, 15, 15, 15};
    const uint8x16_t v = vld1q_u8(block);
    const uint8x16_t low = vandq_u8(shifted_by(pick(v, low_places), right), vld1q_u8(mask));
    const uint8x16_t high = vshrq_n_u8(pick(v, high_places), 2);
    const uint8x16_t six = vorrq_u8(low, vandq_u8(high, vdupq_n_u8(48)));

    return (row_scales){unit_scales_of(8, low_words(six), low_words(six)), {high_words(six)}};
}

INLINE row_scales row_scales_q6_k(const uint8_t *block)
{
    const uint8x16_t v = vld1q_u8(block + EL_Q6_K_SCALES);

    return (row_scales){unit_scales_of(16, low_words(v), high_words(v)), {low_words(v), high_words(v)}};
}

INLINE row_scales row_scales_iq4_xs(const uint8_t *block)
{
    static const int16_t nibbles[8] = {0, -4, -8, -12, 0, -4, -8, -12};
    static const int16_t twos[8] = {4, 2, 0, -2, -4, -6, -8, -10}; /* to bits 4 and 5 */
    const uint16_t low_words[2] = {el_load16(block + EL_IQ4_XS_LOW), el_load16(block + EL_IQ4_XS_LOW + 2)};
    const uint16x8_t low = vcombine_u16(vdup_n_u16(low_words[0]), vdup_n_u16(low_words[1]));
    const uint16x8_t high = vdupq_n_u16(el_load16(block + EL_IQ4_XS_HIGH));
    const uint16x8_t a = vandq_u16(vshlq_u16(low, vld1q_s16(nibbles)), vdupq_n_u16(15));
    const uint16x8_t b = vandq_u16(vshlq_u16(high, vld1q_s16(twos)), vdupq_n_u16(48));
    const int16x8_t scales = vsubq_s16(vreinterpretq_s16_u16(vorrq_u16(a, b)), vdupq_n_s16(32));

    return (row_scales){unit_scales_of(8, scales, scales), {scales}};
}

INLINE row_scales row_scales_at(int type, const uint8_t *block)
{
    return type == EL_TYPE_Q2_K     ? row_scales_q2_k(block)
           : type == EL_TYPE_Q3_K   ? row_scales_q3_k(block)
           : type == EL_TYPE_Q6_K   ? row_scales_q6_k(block)
           : type == EL_TYPE_IQ4_XS ? row_scales_iq4_xs(block)
                                    : row_scales_q4_k(block);
}

INLINE int32x4_t add_words(int32x4_t sum, int16x8_t a, int16x8_t b)
{
    sum = vmlal_s16(sum, vget_low_s16(a), vget_low_s16(b));
    return vmlal_s16(sum, vget_high_s16(a), vget_high_s16(b));
}

/* Sum of min (or scale) times the activations' sums, spread over lanes. */
INLINE int32x4_t row_minima(int type, const row_scales *s, const uint8_t *x, int64_t k, ptrdiff_t b)
{
    const int16_t *sum16 = (const int16_t *)(x + el_act256_sum16(k)) + 16 * b;
    const int16_t *sum32 = (const int16_t *)(x + el_act256_sum32(k)) + 8 * b;
    const int32x4_t zero = vdupq_n_s32(0);

    return by_16(type) ? add_words(add_words(zero, s->min[0], vld1q_s16(sum16)), s->min[1], vld1q_s16(sum16 + 8))
                       : add_words(zero, s->min[0], vld1q_s16(sum32));
}

/* Sub-block s. */
INLINE void add_sub_block(int type, int s, unit_sums *to, const uint8_t *block, const int8x16_t x[2],
                          const row_scales *scales)
{
    const int8x16_t w[2] = {unit(type, s, 0, block), unit(type, s, 1, block)};

    if (!by_16(type)) {
        add_unit_32(most_of(type), to, w, x, &scales->scale, s);
    } else {
        add_unit_16(to, w[0], x[0], &scales->scale, 2 * s);
        add_unit_16(to, w[1], x[1], &scales->scale, 2 * s + 1);
    }
}

/* What super-block b of one row begins with, and lanes that sum up to its minima. */
INLINE unit_sums row_begins(int type, const row_scales *scales, const uint8_t *x, int64_t k, ptrdiff_t b,
                            int32x4_t *minima)
{
    if (has_min(type))
        *minima = row_minima(type, scales, x, k, b);
    else if (offset_of(type)) /* what the weights are too large */
        return unit_sums_from(vmulq_n_s32(row_minima(type, scales, x, k, b), -offset_of(type)));
    return unit_sums_from(vdupq_n_s32(0));
}

/* Super-block b of four rows, one after the other: lanes that sum up to each. q: its activations. */
INLINE void rows_in_turn(int type, int32x4_t total[LANES], int32x4_t minima[LANES], const uint8_t *const p[LANES],
                         size_t at, const uint8_t *x, int64_t k, ptrdiff_t b)
{
    const int8_t *q = (const int8_t *)x + 256 * b;

    for (int r = 0; r < LANES; r++) {
        const row_scales scales = row_scales_at(type, p[r] + at);
        unit_sums sums;
        in_order();
        sums = row_begins(type, &scales, x, k, b, &minima[r]);
#define DO(S)                                                                                                          \
    add_sub_block(type, S, &sums, p[r] + at,                                                                           \
                  (const int8x16_t[2]){vld1q_s8(q + 32 * (S)), vld1q_s8(q + 32 * (S) + 16)}, &scales)
        EACH_SUB_BLOCK(DO);
#undef DO
        total[r] = sums.total;
    }
}

/* The same, two sub-blocks of all rows after the other: activations are loaded once for four rows. Scales of 32 weights
 * leave enough registers for it on 64-bit ARM, those of 16 do not. */
INLINE void rows_side_by_side(int type, int32x4_t total[LANES], int32x4_t minima[LANES], const uint8_t *const p[LANES],
                              size_t at, const uint8_t *x, int64_t k, ptrdiff_t b)
{
    const int8_t *q = (const int8_t *)x + 256 * b;
    row_scales scales[LANES];
    unit_sums sums[LANES];

    EL_UNROLLED
    for (int r = 0; r < LANES; r++) {
        scales[r] = row_scales_at(type, p[r] + at);
        sums[r] = row_begins(type, &scales[r], x, k, b, &minima[r]);
    }
    EL_UNROLLED
    for (int s = 0; s < 8; s += 2) {
        const int8x16_t v[4] = {vld1q_s8(q + 32 * s), vld1q_s8(q + 32 * s + 16), vld1q_s8(q + 32 * s + 32),
                                vld1q_s8(q + 32 * s + 48)};
        in_order();
        EL_UNROLLED
        for (int r = 0; r < LANES; r++) {
            add_sub_block(type, s, &sums[r], p[r] + at, v, &scales[r]);
            add_sub_block(type, s + 1, &sums[r], p[r] + at, v + 2, &scales[r]);
        }
    }
    EL_UNROLLED
    for (int r = 0; r < LANES; r++)
        total[r] = sums[r].total;
}

INLINE int32x4_t fold_lanes(const int32x4_t v[LANES])
{
    return vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
}

/* Where d lies, and dmin behind it. */
INLINE size_t d_at(int type)
{
    return type == EL_TYPE_Q2_K ? EL_Q2_K_D : type == EL_TYPE_Q3_K ? EL_Q3_K_D : type == EL_TYPE_Q6_K ? EL_Q6_K_D : 0;
}

INLINE float32x4_t gemv_4(int type, const uint8_t *const p[LANES], const uint8_t *x, int64_t k)
{
    float32x4_t acc = vdupq_n_f32(0), d, dmin = acc;
    size_t at = 0;

    for (ptrdiff_t b = 0; b < (ptrdiff_t)(k / 256); b++, at += block_bytes(type)) {
        const float dx = float_at(x + el_act256_d(k) + 4 * b);
        int32x4_t total[LANES], minima[LANES];
        if (HAS_SDOT && type == EL_TYPE_Q4_K)
            rows_side_by_side(type, total, minima, p, at, x, k, b);
        else
            rows_in_turn(type, total, minima, p, at, x, k, b);
        if (has_min(type))
            split_f16(gather_32(p, at + d_at(type)), &d, &dmin);
        else
            d = gather_f16(p, at + d_at(type));
        acc = vfmaq_f32(acc, vmulq_n_f32(d, dx), vcvtq_f32_s32(fold_lanes(total)));
        if (has_min(type))
            acc = vfmsq_f32(acc, vmulq_n_f32(dmin, dx), vcvtq_f32_s32(fold_lanes(minima)));
    }
    return acc;
}
