/* strip_block_avx512.h - a block of 32 of sixteen weight rows, unpacked: row r in lane r. For strips_avx512.h and
 * matmul_avx512.c.
 *
 * vpdpbusd adds four products per lane. Its first factor is unsigned: every type's weights are unpacked as
 * q_w + offset, and offset * (sum of q_x) is taken off again, exactly, in int32. */
#ifndef EL_STRIP_BLOCK_AVX512_H
#define EL_STRIP_BLOCK_AVX512_H

#include "rows_in_lanes_avx512.h"

#include "block_traits.h"

/* ---- what the types differ in: known while compiling, so every branch on it disappears ---- */

/* The integer sum of a block less what made its weights unsigned: offset / 8 times sum8. */
INLINE __m512i less_offset(int type, __m512i sum, __m512i sum8)
{
    if (has_min(type))
        return sum;
    if (type == EL_TYPE_MXFP4)
        return _mm512_sub_epi32(sum, _mm512_add_epi32(sum8, _mm512_srai_epi32(sum8, 1)));
    return _mm512_sub_epi32(sum, _mm512_slli_epi32(sum8, type == EL_TYPE_Q4_0 ? 0 : type == EL_TYPE_Q5_0 ? 1 : 4));
}

/* Nibbles to unsigned weights, without the fifth bit. */
INLINE __m512i look_up(int type, __m512i v)
{
    const __m128i mxfp4 = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    const __m128i iq4 = _mm_xor_si128(load16((const uint8_t *)el_iq4_values), _mm_set1_epi8((char)0x80));

    if (type == EL_TYPE_MXFP4)
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(mxfp4), v);
    return type == EL_TYPE_IQ4_NL ? _mm512_shuffle_epi8(_mm512_broadcast_i32x4(iq4), v) : v;
}

/* Element 4 s + i of each lane's 32 bits as 16 in byte i, added to w. */
INLINE __m512i add_fifth(__m512i w, __m512i bits, int s)
{
    const __m512i byte = _mm512_broadcast_i32x4(
        _mm_add_epi8(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12), _mm_set1_epi8((char)(s / 2))));
    const __m512i place = _mm512_set1_epi32(s % 2 ? (int)0x80402010 : 0x08040201);
    const __mmask64 set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits, byte), place);

    return _mm512_mask_add_epi8(w, set, w, _mm512_set1_epi8(16));
}

/* ---- a block of sixteen rows ---------------------------------------------------------- */

typedef struct row_scales {
    __m512 d, m;
} row_scales;

typedef struct strip_block {
    __m512i w[8]; /* w[s]: weights 4 s .. 4 s + 3, unsigned, row r in lane r */
    row_scales scale;
} strip_block;

/* 2^(e - 128) as el_e8m0_half. */
INLINE __m512 e8m0_half(__m512i e)
{
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);

    return _mm512_castsi512_ps(
        _mm512_mask_mov_epi32(normal, _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2)), subnormal));
}

INLINE row_scales scales_at(int type, const uint8_t *const p[ROWS], size_t at)
{
    row_scales w = {_mm512_setzero_ps(), _mm512_setzero_ps()};

    if (has_min(type))
        split_f16(gather_32(p, at), &w.d, &w.m);
    else
        w.d = type == EL_TYPE_MXFP4
                  ? e8m0_half(_mm512_and_si512(_mm512_cvtepu16_epi32(gather_16(p, at)), _mm512_set1_epi32(255)))
                  : gather_f16(p, at);
    return w;
}

INLINE __m512i flip(__m512i w) { return _mm512_xor_si512(w, _mm512_set1_epi8((char)0x80)); }

/* w[0] to w[3]: bytes of nibbles; they become the weights, the low nibbles' first. bits: of types with a fifth. */
INLINE void widen(int type, __m512i w[8], __m512i bits)
{
    const __m512i nibble = _mm512_set1_epi8(15);

    for (int s = 0; s < 4; s++) {
        w[s + 4] = look_up(type, _mm512_and_si512(_mm512_srli_epi16(w[s], 4), nibble));
        w[s] = look_up(type, _mm512_and_si512(w[s], nibble));
    }
    for (int s = 0; has_fifth(type) && s < 8; s++)
        w[s] = add_fifth(w[s], bits, s);
}

INLINE void unpack(int type, strip_block *u, const uint8_t *const p[ROWS], size_t at)
{
    const size_t quants = at + quants_at(type);

    u->scale = scales_at(type, p, at);
    if (type == EL_TYPE_Q8_0) {
        transpose_32(u->w, p, quants);
        for (int s = 0; s < 8; s++)
            u->w[s] = flip(u->w[s]);
        return;
    }
    transpose_at(u->w, p, quants);
    widen(type, u->w, has_fifth(type) ? gather_32(p, quants - 4) : _mm512_setzero_si512());
}

/* Two blocks at once where a block is no multiple of four bytes: loads are what unpacking costs, and the pair's last 32
 * bytes (64 of Q8_0) hold the second scale as well. What does not begin on a dword of them is shifted there. */
INLINE bool in_pairs(int type)
{
    return type == EL_TYPE_Q4_0 || type == EL_TYPE_IQ4_NL || type == EL_TYPE_Q5_0 || type == EL_TYPE_Q8_0;
}

/* Per lane the upper half of a, then the lower half of b. */
INLINE __m512i join(__m512i a, __m512i b) { return _mm512_rol_epi32(_mm512_mask_blend_epi16(0x55555555, a, b), 16); }

INLINE __m512 lower_f16(__m512i v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }

INLINE void unpack_pair(int type, strip_block u[2], const uint8_t *const p[ROWS], size_t at)
{
    __m512i first[4], last[8], bits[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()}, d;

    transpose_32(last, p, at + 2 * block_bytes(type) - 32);
    if (type == EL_TYPE_Q8_0) { /* d and two weights; thirty weights and d; all */
        __m512i middle[8];
        first[0] = gather_32(p, at);
        transpose_32(middle, p, at + 4);
        u[0].scale.d = lower_f16(first[0]);
        u[1].scale.d = lower_f16(_mm512_srli_epi32(middle[7], 16));
        for (int i = 0; i < 8; i++) {
            u[0].w[i] = flip(join(i ? middle[i - 1] : first[0], middle[i]));
            u[1].w[i] = flip(last[i]);
        }
        return;
    }
    if (type == EL_TYPE_Q5_0) { /* d, bits and ten nibbles' bytes; six bytes, d, bits and all */
        transpose_at(first, p, at);
        bits[0] = join(first[0], first[1]);
        bits[1] = last[3];
        u[0].w[0] = join(first[1], first[2]);
        u[0].w[1] = join(first[2], first[3]);
        u[0].w[2] = join(last[0], last[1]);
        u[0].w[3] = join(last[1], last[2]);
        d = last[2];
    } else { /* d and two bytes; fourteen bytes, d and all */
        first[0] = gather_32(p, at);
        u[0].w[0] = join(first[0], last[0]);
        for (int i = 0; i < 3; i++)
            u[0].w[i + 1] = join(last[i], last[i + 1]);
        d = last[3];
    }
    u[0].scale.d = lower_f16(first[0]);
    u[1].scale.d = lower_f16(_mm512_srli_epi32(d, 16));
    for (int i = 0; i < 4; i++)
        u[1].w[i] = last[4 + i];
    widen(type, u[0].w, bits[0]);
    widen(type, u[1].w, bits[1]);
}

#endif
