/* matmul_neon.h - weights in blocks of 32 times activations on ARM, over the products of one instruction set:
 * included by matmul_neon.c, matmul_dotprod.c and matmul_i8mm.c after their products_ISA.h (the idea of one small file
 * per CPU around shared source is llamafile's). EL_USE names the function that fills the table.
 *
 * One activation row: matmul_one_neon.h. More: a block of four or eight rows is unpacked once and stays in registers
 * for up to 32 activation rows. No prefetches: eight streams in order are what the hardware's prefetchers follow, and
 * there was no ARM machine to show the opposite. */
#include "rows_in_lanes_neon.h"

#include "block_traits.h"

/* ---- what the types differ in: known while compiling, so every branch on it disappears ---- */

/* The largest |weight|. */
INLINE int most_of(int type)
{
    return type == EL_TYPE_Q8_0     ? 128
           : type == EL_TYPE_IQ4_NL ? 127
           : type == EL_TYPE_MXFP4  ? 12
           : has_fifth(type)        ? 31
                                    : 15;
}

/* 0xff where the bit of the weight is clear: byte `from` holds the first eight. */
INLINE uint8x16_t clear_bits(uint8x16_t spread)
{
    const uint8x16_t place = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));

    return vceqzq_u8(vandq_u8(spread, place));
}

/* Puts the fifth bits above 16 nibbles. Q5_0 subtracts 16, which makes the upper half of the byte the bit's opposite.
 */
INLINE uint8x16_t with_fifth(int type, uint8x16_t nibbles, uint8x16_t clear)
{
    return type == EL_TYPE_Q5_0 ? vsliq_n_u8(nibbles, clear, 4) : vorrq_u8(nibbles, vbicq_u8(vdupq_n_u8(16), clear));
}

INLINE int8x16_t value_of(int type, uint8x16_t nibbles)
{
    if (type == EL_TYPE_IQ4_NL)
        return vqtbl1q_s8(vld1q_s8(el_iq4_values), nibbles);
    if (type == EL_TYPE_MXFP4)
        return vqtbl1q_s8(vld1q_s8(el_mxfp4_values), nibbles);
    return as_signed(nibbles);
}

/* Weights 0 to 15 and 16 to 31 of a block; Q4_0's are 8 too large. */
INLINE void unpack_row(int type, int8x16_t *low, int8x16_t *high, const uint8_t *block)
{
    const uint8x16_t v = vld1q_u8(block + quants_at(type));
    uint8x16_t a = low_nibbles(v), b = high_nibbles(v);

    if (type == EL_TYPE_Q8_0) {
        *low = as_signed(v);
        *high = as_signed(vld1q_u8(block + quants_at(type) + 16));
        return;
    }
    if (has_fifth(type)) {
        const uint8x16_t each = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1)), two = vdupq_n_u8(2);
        const uint8x16_t high_bits = vreinterpretq_u8_u32(vdupq_n_u32(el_load32(block + quants_at(type) - 4)));
        a = with_fifth(type, a, clear_bits(vqtbl1q_u8(high_bits, each)));
        b = with_fifth(type, b, clear_bits(vqtbl1q_u8(high_bits, vaddq_u8(each, two))));
    }
    *low = value_of(type, a);
    *high = value_of(type, b);
}

/* w[r] and w[4 + r]: the halves of row r's block. */
INLINE void unpack_rows(int type, int8x16_t w[2 * LANES], const uint8_t *const p[LANES], ptrdiff_t at)
{
    EL_UNROLLED
    for (int r = 0; r < LANES; r++)
        unpack_row(type, &w[r], &w[LANES + r], p[r] + at);
}

/* el_e8m0_half of four rows: exponent e - 1, or below 2^23, where e is 0 or 1, 2^21 and 2^22. */
INLINE float32x4_t gather_e8m0(const uint8_t *const p[LANES], size_t at)
{
    uint8x16_t v = vdupq_n_u8(0);
    int32x4_t e;

    KEEP_VECTOR(v);
    v = vsetq_lane_u8(p[0][at], v, 0);
    v = vsetq_lane_u8(p[1][at], v, 4);
    v = vsetq_lane_u8(p[2][at], v, 8);
    v = vsetq_lane_u8(p[3][at], v, 12);
    e = vreinterpretq_s32_u8(v);
    return vreinterpretq_f32_s32(vmaxq_s32(vsubq_s32(vshlq_n_s32(e, 23), vdupq_n_s32(1 << 23)),
                                           vaddq_s32(vshlq_n_s32(e, 21), vdupq_n_s32(1 << 21))));
}

typedef struct row_scales {
    float32x4_t d, m;
} row_scales;

INLINE row_scales scales_at(int type, const uint8_t *const p[LANES], size_t at)
{
    row_scales s = {vdupq_n_f32(0), vdupq_n_f32(0)};

    if (has_min(type)) {
        split_f16(gather_32(p, at), &s.d, &s.m);
    } else if (type == EL_TYPE_MXFP4) {
        s.d = gather_e8m0(p, at);
    } else {
        s.d = gather_f16(p, at);
    }
    return s;
}

/* The float steps of a block. */
INLINE float32x4_t step(int type, float32x4_t acc, float32x4_t sum, row_scales w, float d, float s)
{
    acc = vfmaq_f32(acc, vmulq_n_f32(w.d, d), sum);
    return has_min(type) ? vfmaq_f32(acc, w.m, vdupq_n_f32(s)) : acc;
}

/* ---- one activation row --------------------------------------------------------------- */

#include "matmul_one_neon.h"

/* ---- several activation rows ---------------------------------------------------------- */

/* Bytes that hold two weights each, as the lower and the upper ones. With sdot Q4_0's are 16 times as large, a nibble
 * in the upper half of its byte: the 8 that is subtracted from it is then a bit that changes. */
INLINE void unpack_nibbles(int type, int8x16_t *low, int8x16_t *high, uint8x16_t v)
{
    if (type == EL_TYPE_Q4_0 && HAS_SDOT) {
        v = veorq_u8(v, vdupq_n_u8(0x88));
        *low = as_signed(vshlq_n_u8(v, 4));
        *high = as_signed(vandq_u8(v, vdupq_n_u8(0xf0)));
    } else {
        const int8x16_t offset = vdupq_n_s8(type == EL_TYPE_Q4_0 ? 8 : 0);
        *low = vsubq_s8(value_of(type, low_nibbles(v)), offset);
        *high = vsubq_s8(value_of(type, high_nibbles(v)), offset);
    }
}

INLINE float32x4_t packed_sum(int type, int32x4_t sum)
{
    return type == EL_TYPE_Q4_0 && HAS_SDOT ? vcvtq_n_f32_s32(sum, 4) : vcvtq_f32_s32(sum);
}

/* Bytes of nibbles are packed before they are unpacked: half as many. */
INLINE void pack_block(int type, int8x16_t packed[8], const uint8_t *const p[LANES], ptrdiff_t at)
{
    int8x16_t w[2 * LANES];

    if (type == EL_TYPE_Q8_0 || has_fifth(type)) {
        unpack_rows(type, w, p, at);
        pack(packed, w);
        pack(packed + 4, w + 4);
        return;
    }
    EL_UNROLLED
    for (int r = 0; r < LANES; r++)
        w[r] = as_signed(vld1q_u8(p[r] + at + quants_at(type)));
    pack(w + LANES, w);
    EL_UNROLLED
    for (int i = 0; i < 4; i++)
        unpack_nibbles(type, &packed[i], &packed[4 + i], vreinterpretq_u8_s8(w[LANES + i]));
}

/* A block times n activation rows, at most X_STEP, `next` bytes apart. */
INLINE void add_block(int type, int n, float32x4_t acc[][GROUPS], int8x16_t w[GROUPS][8],
                      const row_scales scales[GROUPS], const uint8_t *x, size_t next, int64_t k, ptrdiff_t b)
{
    const acts q = load_acts((const int8_t *)x + 32 * b, (const int8_t *)x + 32 * b + next);

    EL_UNROLLED
    for (int g = 0; g < GROUPS; g++) {
        int32x4_t sum[X_STEP];
        sums_32(most_of(type), sum, w[g], &q);
        EL_UNROLLED
        for (int i = 0; i < n; i++) {
            const uint8_t *per_block = x + (size_t)i * next + 4 * b;
            acc[i][g] = step(type, acc[i][g], packed_sum(type, sum[i]), scales[g], float_at(per_block + el_act32_d(k)),
                             float_at(per_block + el_act32_s(k)));
        }
    }
}

#include "matmul_few_neon.h"

/* acc[j][g]: the sums of the four rows of group g for activation row j. */
INLINE void gemm(int type, float32x4_t acc[X_CHUNK][GROUPS], const uint8_t *const p[ROWS], const uint8_t *x,
                 size_t x_stride, ptrdiff_t n_x, int64_t k)
{
    int8x16_t w[GROUPS][8];
    row_scales scales[GROUPS];
    size_t at = 0;

    for (ptrdiff_t j = 0; j < n_x; j++) {
        EL_UNROLLED
        for (int g = 0; g < GROUPS; g++)
            acc[j][g] = vdupq_n_f32(0);
    }
    for (ptrdiff_t b = 0; b < (ptrdiff_t)(k / 32); b++, at += block_bytes(type)) {
        const uint8_t *row = x;
        ptrdiff_t j = 0;
        EL_UNROLLED
        for (int g = 0; g < GROUPS; g++) {
            pack_block(type, w[g], p + LANES * g, (ptrdiff_t)at);
            scales[g] = scales_at(type, p + LANES * g, at);
        }
        X_LOOP
        for (; j + X_STEP <= n_x; j += X_STEP, row += X_STEP * x_stride)
            add_block(type, X_STEP, acc + j, w, scales, row, x_stride, k, b);
        if (X_STEP > 1 && j < n_x) /* without a partner the row is its own */
            add_block(type, 1, acc + j, w, scales, row, 0, k, b);
    }
}

/* ---- all rows ------------------------------------------------------------------------- */

#include "matmul_rows_neon.h"

MATMUL(q4_0, EL_TYPE_Q4_0)
MATMUL(q4_1, EL_TYPE_Q4_1)
MATMUL(q5_0, EL_TYPE_Q5_0)
MATMUL(q5_1, EL_TYPE_Q5_1)
MATMUL(q8_0, EL_TYPE_Q8_0)
MATMUL(iq4_nl, EL_TYPE_IQ4_NL)
MATMUL(mxfp4, EL_TYPE_MXFP4)

void EL_USE(el_kernels *t)
{
    t->matmul[EL_TYPE_Q4_0] = matmul_q4_0;
    t->matmul[EL_TYPE_Q4_1] = matmul_q4_1;
    t->matmul[EL_TYPE_Q5_0] = matmul_q5_0;
    t->matmul[EL_TYPE_Q5_1] = matmul_q5_1;
    t->matmul[EL_TYPE_Q8_0] = matmul_q8_0;
    t->matmul[EL_TYPE_IQ4_NL] = matmul_iq4_nl;
    t->matmul[EL_TYPE_MXFP4] = matmul_mxfp4;
}
