/* rows_in_lanes_neon.h - four weight rows side by side: their bytes loaded, transposed, and what is common to
 * matmul_neon.h and superblock_neon.h. */
#ifndef EL_ROWS_IN_LANES_NEON_H
#define EL_ROWS_IN_LANES_NEON_H

#include "lanes_neon.h"

#include "blocks.h"

/* Weight rows in the lanes of one register; how many activation rows share unpacked weights. */
enum { LANES = 4, X_CHUNK = 32 };

/* ---- bytes ---------------------------------------------------------------------------- */

INLINE uint8x16_t low_nibbles(uint8x16_t v) { return vandq_u8(v, vdupq_n_u8(15)); }
INLINE uint8x16_t high_nibbles(uint8x16_t v) { return vshrq_n_u8(v, 4); }

INLINE int8x16_t as_signed(uint8x16_t v) { return vreinterpretq_s8_u8(v); }

/* A shift of each byte right by n (left when negative); n is known while compiling. */
INLINE uint8x16_t shifted(uint8x16_t v, int n)
{
    return n > 0 ? v >> vdupq_n_u8((uint8_t)n) : n < 0 ? v << vdupq_n_u8((uint8_t)-n) : v;
}

/* The bits of `mask` after that shift; and v with these bits put in their place. */
INLINE uint8x16_t bits(uint8x16_t v, int n, int mask) { return vandq_u8(shifted(v, n), vdupq_n_u8((uint8_t)mask)); }

INLINE uint8x16_t with_bits(uint8x16_t v, uint8x16_t from, int n, int mask)
{
    return vbslq_u8(vdupq_n_u8((uint8_t)mask), shifted(from, n), v);
}

/* Scales of four rows as floats. */
INLINE float32x4_t gather_f16(const uint8_t *const p[LANES], size_t at)
{
    uint16x4_t v = vdup_n_u16(el_load16(p[0] + at));

    KEEP_VECTOR(v); /* or clang 21 takes a detour by a general register */
    v = vset_lane_u16(el_load16(p[1] + at), v, 1);
    v = vset_lane_u16(el_load16(p[2] + at), v, 2);
    v = vset_lane_u16(el_load16(p[3] + at), v, 3);
    return el_floats_of(v);
}

/* A dword of each row: row r in lane r. */
INLINE uint32x4_t gather_32(const uint8_t *const p[LANES], size_t at)
{
    uint32x4_t v = vdupq_n_u32(el_load32(p[0] + at));

    v = vsetq_lane_u32(el_load32(p[1] + at), v, 1);
    v = vsetq_lane_u32(el_load32(p[2] + at), v, 2);
    return vsetq_lane_u32(el_load32(p[3] + at), v, 3);
}

/* Of dwords that hold two f16 each, the low ones in *low and the high ones in *high. */
INLINE void split_f16(uint32x4_t v, float32x4_t *low, float32x4_t *high)
{
    *low = el_floats_of(vmovn_u32(v));
    *high = el_floats_of(vshrn_n_u32(v, 16));
}

/* row[r]: 16 bytes of row r. out[s]: bytes 4 s .. 4 s + 3 of row r in lane r. */
INLINE void transpose_4(uint32x4_t out[4], const uint32x4_t row[4])
{
    const uint32x4x2_t even = vzipq_u32(row[0], row[2]), odd = vzipq_u32(row[1], row[3]);
    const uint32x4x2_t first = vzipq_u32(even.val[0], odd.val[0]), last = vzipq_u32(even.val[1], odd.val[1]);

    out[0] = first.val[0];
    out[1] = first.val[1];
    out[2] = last.val[0];
    out[3] = last.val[1];
}

INLINE void transpose_at(uint8x16_t out[4], const uint8_t *const p[LANES], size_t at)
{
    uint32x4_t row[4], v[4];

    EL_UNROLLED
    for (int r = 0; r < LANES; r++)
        row[r] = vreinterpretq_u32_u8(vld1q_u8(p[r] + at));
    transpose_4(v, row);
    EL_UNROLLED
    for (int s = 0; s < 4; s++)
        out[s] = vreinterpretq_u8_u32(v[s]);
}

/* ---- rows of a matrix ------------------------------------------------------------------ */

/* The last rows of a matrix whose count is no multiple of n: missing ones repeat the last, and are not stored. */
INLINE void row_pointers(const uint8_t *p[], int n, const uint8_t *w, size_t row_bytes, int64_t row, int64_t n_rows)
{
    for (int64_t i = 0; i < n; i++)
        p[i] = w + (size_t)EL_MIN(row + i, n_rows - 1) * row_bytes;
}

/* Nothing is loaded ahead of this. Compilers otherwise load and unpack so far ahead that half of a loop is spills: one
 * row of Q6_K on neon took 1.27 instructions per byte instead of 0.75 (gcc 12, counted by a plugin of qemu 7.2). */
INLINE void in_order(void) { __asm__ volatile("" ::: "memory"); }

INLINE float float_at(const uint8_t *p)
{
    float f;

    memcpy(&f, p, 4);
    return f;
}

#endif
