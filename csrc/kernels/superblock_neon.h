/* superblock_neon.h - weights in super-blocks of 256 times activations on ARM, over the products of one instruction
 * set, as matmul_neon.h. By sub-blocks of 32 weights, or by their two units of 16 where those have scales of their own:
 * sums of four rows in four lanes times the rows' scales in the same lanes, in int32.
 *
 * What Q3_K and Q6_K subtract from their weights: from the sums with one activation row, sixteen multiplications a
 * super-block; while unpacking with several, since that is done once for all of them. */
#include "rows_in_lanes_neon.h"

#include "block_traits.h"

/* ---- what the types differ in ---------------------------------------------------------- */

INLINE int offset_of(int type) { return type == EL_TYPE_Q3_K ? 4 : type == EL_TYPE_Q6_K ? 32 : 0; }

/* The largest |weight|, with its offset. */
INLINE int most_of(int type)
{
    return type == EL_TYPE_Q2_K   ? 3
           : type == EL_TYPE_Q3_K ? 7
           : type == EL_TYPE_Q4_K ? 15
           : type == EL_TYPE_Q5_K ? 31
           : type == EL_TYPE_Q6_K ? 63
                                  : 127;
}

/* Unit e of sub-block s, with the type's offset. */
INLINE int8x16_t unit(int type, int s, int e, const uint8_t *block)
{
    const uint8x16_t low = vld1q_u8(block + low_at(type, s, e));
    const uint8x16_t high = has_high(type) ? vld1q_u8(block + high_at(type, s, e)) : low;

    switch (type) {
    case EL_TYPE_Q2_K:
        return as_signed(bits(low, s % 4 * 2, 3));
    case EL_TYPE_Q3_K:
        return as_signed(with_bits(bits(low, s % 4 * 2, 3), high, s - 2, 4));
    case EL_TYPE_Q4_K:
        return as_signed(s % 2 ? high_nibbles(low) : low_nibbles(low));
    case EL_TYPE_Q5_K:
        return as_signed(with_bits(s % 2 ? high_nibbles(low) : low_nibbles(low), high, s - 4, 16));
    case EL_TYPE_Q6_K:
        return as_signed(with_bits(s % 4 / 2 ? high_nibbles(low) : low_nibbles(low), high, s % 4 * 2 - 4, 48));
    default:
        return vqtbl1q_s8(vld1q_s8(el_iq4_values), e ? high_nibbles(low) : low_nibbles(low));
    }
}

/* w[r] and w[4 + r]: the units of row r's sub-block. */
INLINE void units(int type, int s, int8x16_t w[2 * LANES], const uint8_t *const p[LANES], size_t at)
{
    EL_UNROLLED
    for (int r = 0; r < LANES; r++) {
        w[r] = unit(type, s, 0, p[r] + at);
        w[LANES + r] = unit(type, s, 1, p[r] + at);
    }
}

/* ---- scales: four rows in lanes --------------------------------------------------------- */

typedef struct sub_scales {
    int32x4_t scale[16]; /* of each group of 16, or of 32 in the first 8 */
    int16x4_t min[16];   /* minima */
    float32x4_t d, dmin;
} sub_scales;

/* Byte i of each dword, sign-extended. */
INLINE int32x4_t byte_of(uint8x16_t v, int i)
{
    const int32x4_t dwords = vreinterpretq_s32_u8(v);

    return (i < 3 ? dwords << vdupq_n_s32(24 - 8 * i) : dwords) >> vdupq_n_s32(24);
}

/* quads[t]: the bytes of groups 4 t .. 4 t + 3. */
INLINE void set_scales(sub_scales *s, const uint8x16_t *quads, int n)
{
    EL_UNROLLED
    for (int g = 0; g < n; g++)
        s->scale[g] = byte_of(quads[g / 4], g % 4);
}

INLINE void set_minima(sub_scales *s, const uint8x16_t *quads, int n)
{
    EL_UNROLLED
    for (int g = 0; g < n; g++)
        s->min[g] = vmovn_s32(byte_of(quads[g / 4], g % 4));
}

INLINE void scales_q2_k(sub_scales *s, const uint8_t *const p[LANES], size_t at)
{
    uint8x16_t v[4], scales[4], mins[4];

    transpose_at(v, p, at);
    EL_UNROLLED
    for (int t = 0; t < 4; t++) {
        scales[t] = low_nibbles(v[t]);
        mins[t] = high_nibbles(v[t]);
    }
    set_scales(s, scales, 16);
    set_minima(s, mins, 16);
    split_f16(gather_32(p, at + EL_Q2_K_D), &s->d, &s->dmin);
}

INLINE void scales_q3_k(sub_scales *s, const uint8_t *const p[LANES], size_t at)
{
    const uint8x16_t a = vreinterpretq_u8_u32(gather_32(p, at + EL_Q3_K_SCALES));
    const uint8x16_t b = vreinterpretq_u8_u32(gather_32(p, at + EL_Q3_K_SCALES + 4));
    const uint8x16_t high = vreinterpretq_u8_u32(gather_32(p, at + EL_Q3_K_SCALES + 8)), offset = vdupq_n_u8(32);
    const uint8x16_t v[4] = {vsubq_u8(with_bits(low_nibbles(a), high, -4, 48), offset),
                             vsubq_u8(with_bits(low_nibbles(b), high, -2, 48), offset),
                             vsubq_u8(with_bits(high_nibbles(a), high, 0, 48), offset),
                             vsubq_u8(with_bits(high_nibbles(b), high, 2, 48), offset)};

    set_scales(s, v, 16);
    s->d = gather_f16(p, at + EL_Q3_K_D);
}

/* Q4_K and Q5_K: 4 bytes of d and dmin, then the 12 bytes of blocks.c's scales_and_mins. */
INLINE void scales_q4_k(sub_scales *s, const uint8_t *const p[LANES], size_t at)
{
    uint8x16_t v[4];

    transpose_at(v, p, at);
    split_f16(vreinterpretq_u32_u8(v[0]), &s->d, &s->dmin);
    {
        const uint8x16_t scales[2] = {bits(v[1], 0, 63), with_bits(low_nibbles(v[3]), v[1], 2, 48)};
        const uint8x16_t mins[2] = {bits(v[2], 0, 63), with_bits(high_nibbles(v[3]), v[2], 2, 48)};
        set_scales(s, scales, 8);
        set_minima(s, mins, 8);
    }
}

INLINE void scales_q6_k(sub_scales *s, const uint8_t *const p[LANES], size_t at)
{
    uint8x16_t v[4];

    transpose_at(v, p, at + EL_Q6_K_SCALES);
    set_scales(s, v, 16);
    s->d = gather_f16(p, at + EL_Q6_K_D);
}

/* The low 4 bits of scale g are nibble g of a dword, the high 2 lie above d in another. */
INLINE void scales_iq4_xs(sub_scales *s, const uint8_t *const p[LANES], size_t at)
{
    const uint32x4_t head = gather_32(p, at), low = gather_32(p, at + EL_IQ4_XS_LOW);

    s->d = el_floats_of(vmovn_u32(head));
    EL_UNROLLED
    for (int g = 0; g < 8; g++) {
        const uint32x4_t a = vandq_u32(low >> vdupq_n_u32((uint32_t)(4 * g)), vdupq_n_u32(15));
        const uint32x4_t b = vandq_u32(head >> vdupq_n_u32((uint32_t)(12 + 2 * g)), vdupq_n_u32(48));
        s->scale[g] = vsubq_s32(vreinterpretq_s32_u32(vorrq_u32(a, b)), vdupq_n_s32(32));
    }
}

INLINE void scales_at(int type, sub_scales *s, const uint8_t *const p[LANES], size_t at)
{
    if (type == EL_TYPE_Q2_K)
        scales_q2_k(s, p, at);
    else if (type == EL_TYPE_Q3_K)
        scales_q3_k(s, p, at);
    else if (type == EL_TYPE_Q6_K)
        scales_q6_k(s, p, at);
    else if (type == EL_TYPE_IQ4_XS)
        scales_iq4_xs(s, p, at);
    else
        scales_q4_k(s, p, at);
}

INLINE int32x4_t add_minima_8(int32x4_t total, const int16x4_t min[8], const int16_t *sums)
{
    const int16x8_t v = vld1q_s16(sums);

    total = vmlal_laneq_s16(total, min[0], v, 0);
    total = vmlal_laneq_s16(total, min[1], v, 1);
    total = vmlal_laneq_s16(total, min[2], v, 2);
    total = vmlal_laneq_s16(total, min[3], v, 3);
    total = vmlal_laneq_s16(total, min[4], v, 4);
    total = vmlal_laneq_s16(total, min[5], v, 5);
    total = vmlal_laneq_s16(total, min[6], v, 6);
    return vmlal_laneq_s16(total, min[7], v, 7);
}

/* Sum of min (or scale) times the activations' sums, over super-block b of activation row x. */
INLINE int32x4_t minima(int type, const sub_scales *s, const uint8_t *x, int64_t k, ptrdiff_t b)
{
    const int16_t *sum16 = (const int16_t *)(x + el_act256_sum16(k)) + 16 * b;
    const int16_t *sum32 = (const int16_t *)(x + el_act256_sum32(k)) + 8 * b;
    const int32x4_t zero = vdupq_n_s32(0);

    return by_16(type) ? add_minima_8(add_minima_8(zero, s->min, sum16), s->min + 8, sum16 + 8)
                       : add_minima_8(zero, s->min, sum32);
}

/* The float steps of super-block b. */
INLINE float32x4_t step(int type, float32x4_t acc, int32x4_t total, const sub_scales *s, const uint8_t *x, int64_t k,
                        ptrdiff_t b)
{
    const float d = float_at(x + el_act256_d(k) + 4 * b);

    acc = vfmaq_f32(acc, vmulq_n_f32(s->d, d), vcvtq_f32_s32(total));
    if (!has_min(type))
        return acc;
    return vfmsq_f32(acc, vmulq_n_f32(s->dmin, d), vcvtq_f32_s32(minima(type, s, x, k, b)));
}

/* ---- one activation row --------------------------------------------------------------- */

/* unit()'s shifts are constants only when s is one. */
#define EACH_SUB_BLOCK(DO)                                                                                             \
    DO(0);                                                                                                             \
    DO(1);                                                                                                             \
    DO(2);                                                                                                             \
    DO(3);                                                                                                             \
    DO(4);                                                                                                             \
    DO(5);                                                                                                             \
    DO(6);                                                                                                             \
    DO(7)

#include "superblock_one_neon.h"

/* ---- several activation rows ---------------------------------------------------------- */

INLINE void pack_sub_block(int type, int s, int8x16_t packed[8], const uint8_t *const p[LANES], size_t at)
{
    int8x16_t w[2 * LANES];

    units(type, s, w, p, at);
    if (offset_of(type)) {
        EL_UNROLLED
        for (int i = 0; i < 2 * LANES; i++)
            w[i] = vsubq_s8(w[i], vdupq_n_s8((int8_t)offset_of(type)));
    }
    pack(packed, w);
    pack(packed + 4, w + 4);
}

/* Sub-block s times n activation rows, at most X_STEP, `next` bytes apart. */
INLINE void add_sub_block_lanes(int type, int n, int s, int32x4_t total[][GROUPS], int8x16_t w[GROUPS][8],
                                const sub_scales scales[GROUPS], const int8_t *q, size_t next)
{
    const acts x = load_acts(q, q + next);

    EL_UNROLLED
    for (int g = 0; g < GROUPS; g++) {
        const int32x4_t scale = scales[g].scale[by_16(type) ? 2 * s : s];
        int32x4_t a[X_STEP], b[X_STEP];
        if (by_16(type)) {
            sums_16(most_of(type), a, w[g], &x, 0);
            sums_16(most_of(type), b, w[g] + 4, &x, 1);
        } else {
            sums_32(most_of(type), a, w[g], &x);
        }
        EL_UNROLLED
        for (int i = 0; i < n; i++) {
            int32x4_t sum = s ? vmlaq_s32(total[i][g], a[i], scale) : vmulq_s32(a[i], scale);
            if (by_16(type))
                sum = vmlaq_s32(sum, b[i], scales[g].scale[2 * s + 1]);
            total[i][g] = sum;
        }
    }
}

/* total[j][g] of every activation row. q: sub-block s of the first one. */
INLINE void add_sub_blocks(int type, int s, int32x4_t total[X_CHUNK][GROUPS], const uint8_t *const p[ROWS], size_t at,
                           const int8_t *q, size_t x_stride, ptrdiff_t n_x, const sub_scales scales[GROUPS])
{
    int8x16_t w[GROUPS][8];
    ptrdiff_t j = 0;

    in_order();
    EL_UNROLLED
    for (int g = 0; g < GROUPS; g++)
        pack_sub_block(type, s, w[g], p + LANES * g, at);
    X_LOOP
    for (; j + X_STEP <= n_x; j += X_STEP, q += X_STEP * x_stride)
        add_sub_block_lanes(type, X_STEP, s, total + j, w, scales, q, x_stride);
    if (X_STEP > 1 && j < n_x) /* without a partner the row is its own */
        add_sub_block_lanes(type, 1, s, total + j, w, scales, q, 0);
}

/* acc[j][g]: the sums of the four rows of group g for activation row j. */
INLINE void gemm(int type, float32x4_t acc[X_CHUNK][GROUPS], const uint8_t *const p[ROWS], const uint8_t *x,
                 size_t x_stride, ptrdiff_t n_x, int64_t k)
{
    int32x4_t total[X_CHUNK][GROUPS];
    sub_scales scales[GROUPS];
    size_t at = 0;

    for (ptrdiff_t j = 0; j < n_x; j++) {
        EL_UNROLLED
        for (int g = 0; g < GROUPS; g++)
            acc[j][g] = vdupq_n_f32(0);
    }
    for (ptrdiff_t b = 0; b < (ptrdiff_t)(k / 256); b++, at += block_bytes(type)) {
        const int8_t *q = (const int8_t *)x + 256 * b;
        EL_UNROLLED
        for (int g = 0; g < GROUPS; g++)
            scales_at(type, &scales[g], p + LANES * g, at);
#define DO(S) add_sub_blocks(type, S, total, p, at, q + 32 * (S), x_stride, n_x, scales)
        EACH_SUB_BLOCK(DO);
#undef DO
        for (ptrdiff_t j = 0; j < n_x; j++) {
            EL_UNROLLED
            for (int g = 0; g < GROUPS; g++)
                acc[j][g] = step(type, acc[j][g], total[j][g], &scales[g], x + (size_t)j * x_stride, k, b);
        }
    }
}

/* ---- all rows ------------------------------------------------------------------------- */

#include "matmul_rows_neon.h"

MATMUL(q2_k, EL_TYPE_Q2_K)
MATMUL(q3_k, EL_TYPE_Q3_K)
MATMUL(q4_k, EL_TYPE_Q4_K)
MATMUL(q5_k, EL_TYPE_Q5_K)
MATMUL(q6_k, EL_TYPE_Q6_K)
MATMUL(iq4_xs, EL_TYPE_IQ4_XS)

void EL_USE(el_kernels *t)
{
    t->matmul[EL_TYPE_Q2_K] = matmul_q2_k;
    t->matmul[EL_TYPE_Q3_K] = matmul_q3_k;
    t->matmul[EL_TYPE_Q4_K] = matmul_q4_k;
    t->matmul[EL_TYPE_Q5_K] = matmul_q5_k;
    t->matmul[EL_TYPE_Q6_K] = matmul_q6_k;
    t->matmul[EL_TYPE_IQ4_XS] = matmul_iq4_xs;
}
