/* superblock_types_avx512.h - what the super-block types differ in, for superblock_avx512.c.
 *
 * One row's 256 weights are four registers z of unsigned bytes, in an order that costs the fewest shifts: x_at() says
 * which activations a quarter (16 bytes) of a register meets. Types that subtract are kept unsigned, the offset is
 * corrected in the sums. Q2_K and Q3_K leave the odd ones of their 2-bit fields where a shift less has them, at four
 * times the value, and multiply the other scales by four instead: their sums are four times too large, exactly. */
#ifndef EL_SUPERBLOCK_TYPES_AVX512_H
#define EL_SUPERBLOCK_TYPES_AVX512_H

#include "rows_in_lanes_avx512.h"

#include "block_traits.h"

INLINE int group_size(int type)
{
    return type == EL_TYPE_Q2_K || type == EL_TYPE_Q3_K || type == EL_TYPE_Q6_K ? 16 : 32;
}
INLINE int offset(int type) { return type == EL_TYPE_Q3_K ? 4 : type == EL_TYPE_Q6_K ? 32 : 128; }
INLINE bool is_times_four(int type) { return type == EL_TYPE_Q2_K || type == EL_TYPE_Q3_K; }

/* The first of the 16 activations that meet quarter l of register z. */
INLINE int x_at(int type, int z, int l)
{
    switch (type) {
    case EL_TYPE_Q2_K:
    case EL_TYPE_Q3_K:
        return 32 * z + 128 * (l / 2) + 16 * (l % 2);
    case EL_TYPE_Q4_K:
    case EL_TYPE_Q5_K:
        return 128 * (z / 2) + 32 * (z % 2) + 64 * (l / 2) + 16 * (l % 2);
    case EL_TYPE_Q6_K:
        return 64 * z + 16 * l;
    default:
        return 128 * (z / 2) + 32 * l + 16 * (z % 2);
    }
}

/* ---- weights -------------------------------------------------------------------------- */

INLINE __m512i load64(const uint8_t *p) { return _mm512_loadu_si512(p); }
INLINE __m512i twice32(const uint8_t *p) { return _mm512_broadcast_i64x4(load32(p)); }

/* a | (b & mask) */
INLINE __m512i or_bits(__m512i a, __m512i b, int mask)
{
    return _mm512_ternarylogic_epi32(a, b, _mm512_set1_epi8((char)mask), 0xf8);
}
INLINE __m512i and_bits(__m512i v, int mask) { return _mm512_and_si512(v, _mm512_set1_epi8((char)mask)); }

/* Bits of a byte moved left by `low` in the lower half and by `high` in the upper one; negative: right. What comes
 * across from other bytes is for the caller to mask. */
INLINE __m512i turn(__m512i v, int low, int high)
{
    return _mm512_rolv_epi32(v, _mm512_inserti64x4(_mm512_set1_epi32(low & 31), _mm256_set1_epi32(high & 31), 1));
}

/* The bytes that hold the low bits of register z of the super-block at b. */
INLINE __m512i low_bytes(int type, int z, const uint8_t *b)
{
    switch (type) {
    case EL_TYPE_Q2_K:
        return load64(b + EL_Q2_K_QS);
    case EL_TYPE_Q3_K:
        return load64(b + EL_Q3_K_QS);
    case EL_TYPE_Q4_K:
        return load64(b + EL_Q4_K_QS + z / 2 * 64);
    case EL_TYPE_Q5_K:
        return load64(b + EL_Q5_K_QS + z / 2 * 64);
    case EL_TYPE_Q6_K:
        return load64(b + z / 2 * 64);
    default:
        return load64(b + EL_IQ4_XS_QS + z / 2 * 64);
    }
}

/* The low bits out of those bytes; of types without high bits, the weights. */
INLINE __m512i low_bits(int type, int z, __m512i v)
{
    if (is_times_four(type))
        return and_bits(z < 2 ? v : _mm512_srli_epi16(v, 4), z % 2 ? 12 : 3);
    v = and_bits(z % 2 ? _mm512_srli_epi16(v, 4) : v, 15);
    if (type != EL_TYPE_IQ4_XS)
        return v;
    return _mm512_shuffle_epi8(
        _mm512_xor_si512(_mm512_broadcast_i32x4(load16((const uint8_t *)el_iq4_values)), _mm512_set1_epi8((char)128)),
        v);
}

/* Register z of the super-block at b. */
INLINE __m512i weights(int type, int z, const uint8_t *b)
{
    const __m512i v = low_bits(type, z, low_bytes(type, z, b));
    const int odd = z % 2, upper = z / 2;

    switch (type) {
    case EL_TYPE_Q3_K:
        return or_bits(v, turn(twice32(b), 2 - z + 2 * odd, 2 * odd - 2 - z), odd ? 16 : 4);
    case EL_TYPE_Q5_K:
        return or_bits(v, turn(twice32(b + EL_Q5_K_QH), 4 - 4 * upper - odd, 2 - 4 * upper - odd), 16);
    case EL_TYPE_Q6_K:
        return or_bits(v, turn(twice32(b + EL_Q6_K_QH + upper * 32), odd ? 0 : 4, odd ? -2 : 2), 48);
    default:
        return v;
    }
}

/* ---- scales --------------------------------------------------------------------------- */

/* In the order of quarters_at(). */
typedef struct heads {
    __m512i scales[4]; /* bytes of the groups; then, of types with 8 groups, 8 minima */
    __m512i mins[4];   /* Q2_K: bytes */
    __m512 d, dmin;
} heads;

INLINE __m512i quarters(int32_t a, int32_t b, int32_t c, int32_t d)
{
    return _mm512_broadcast_i32x4(_mm_setr_epi32(a, b, c, d));
}

/* Dword 0 of each row, dword 3 of each row. */
INLINE __m512i dwords_0(const __m512i v[4])
{
    return _mm512_unpacklo_epi64(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpacklo_epi32(v[2], v[3]));
}
INLINE __m512i dwords_3(const __m512i v[4])
{
    return _mm512_unpackhi_epi64(_mm512_unpackhi_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[2], v[3]));
}
INLINE __m512 low_f16(__m512i v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }

/* Where z is even the scales count four times, see above: groups 2 z and 2 z + 1 of each half. */
INLINE __m512i even_z_times_four(__m512i v) { return _mm512_sllv_epi16(v, quarters(2, 2, 2, 2)); }

INLINE void heads_q2_k(heads *h, const uint8_t *const p[ROWS], size_t at)
{
    __m512i v[4];

    quarters_at(v, p, at);
    for (int i = 0; i < 4; i++) {
        h->scales[i] = even_z_times_four(and_bits(v[i], 15));
        h->mins[i] = and_bits(_mm512_srli_epi16(v[i], 4), 15);
    }
    split_f16(gather_32(p, at + EL_Q2_K_D), &h->d, &h->dmin);
}

/* The last 16 bytes of the block: 2 of the weights, 12 of scales, d. */
INLINE void heads_q3_k(heads *h, const uint8_t *const p[ROWS], size_t at)
{
    const __m512i low_order = quarters(0x05040302, 0x09080706, 0x05040302, 0x09080706);
    const __m512i high_order = quarters(0x0d0c0b0a, 0x0d0c0b0a, 0x0d0c0b0a, 0x0d0c0b0a);
    const __m512i less = _mm512_set1_epi32(0x20208080);
    __m512i v[4];

    quarters_at(v, p, at + EL_Q3_K_BYTES - 16);
    h->d = low_f16(_mm512_srli_epi32(dwords_3(v), 16));
    for (int i = 0; i < 4; i++) {
        const __m512i low = _mm512_srlv_epi32(_mm512_shuffle_epi8(v[i], low_order), quarters(0, 0, 4, 4));
        const __m512i high = _mm512_rolv_epi32(_mm512_shuffle_epi8(v[i], high_order), quarters(4, 2, 0, 30));
        h->scales[i] = _mm512_sub_epi8(even_z_times_four(or_bits(and_bits(low, 15), high, 48)), less);
    }
}

/* 4 bytes of d and dmin, then the 12 bytes of blocks.c's scales_and_mins. */
INLINE void heads_q4_k(heads *h, const uint8_t *const p[ROWS], size_t at)
{
    const __m512i low_mask = quarters(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f);
    const __m512i high_mask = quarters(0, 0x30303030, 0, 0x30303030);
    __m512i v[4];

    quarters_at(v, p, at);
    split_f16(dwords_0(v), &h->d, &h->dmin);
    for (int i = 0; i < 4; i++) {
        const __m512i low = _mm512_srlv_epi32(_mm512_shuffle_epi32(v[i], 0xed), quarters(0, 0, 0, 4));
        const __m512i high = _mm512_srli_epi32(_mm512_shuffle_epi32(v[i], 0xa5), 2);
        h->scales[i] = _mm512_ternarylogic_epi32(_mm512_and_si512(low, low_mask), high, high_mask, 0xf8);
    }
}

INLINE void heads_q6_k(heads *h, const uint8_t *const p[ROWS], size_t at)
{
    quarters_at(h->scales, p, at + EL_Q6_K_SCALES);
    h->d = gather_f16(p, at + EL_Q6_K_D);
}

/* As words: nibble g of the dword at 4 and bits 2 g of the word at 2. */
INLINE void heads_iq4_xs(heads *h, const uint8_t *const p[ROWS], size_t at)
{
    const __m512i low_order =
        quarters((int32_t)0x80048004, (int32_t)0x80058005, (int32_t)0x80068006, (int32_t)0x80078007);
    const __m512i high_order = quarters(0x03020302, 0x03020302, 0x03020302, 0x03020302);
    const __m512i bytes = quarters(0x06040200, 0x0e0c0a08, -1, -1);
    __m512i v[4];

    quarters_at(v, p, at);
    h->d = low_f16(dwords_0(v));
    for (int i = 0; i < 4; i++) {
        const __m512i low =
            _mm512_srlv_epi16(_mm512_shuffle_epi8(v[i], low_order), quarters(0x40000, 0x40000, 0x40000, 0x40000));
        const __m512i high =
            _mm512_srlv_epi16(_mm512_shuffle_epi8(v[i], high_order), quarters(0x20000, 0x60004, 0xa0008, 0xe000c));
        const __m512i both = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi16(15)),
                                             _mm512_slli_epi16(_mm512_and_si512(high, _mm512_set1_epi16(3)), 4));
        h->scales[i] = _mm512_shuffle_epi8(_mm512_sub_epi16(both, _mm512_set1_epi16(32)), bytes);
    }
}

INLINE void heads_at(int type, heads *h, const uint8_t *const p[ROWS], size_t at)
{
    if (type == EL_TYPE_Q2_K)
        heads_q2_k(h, p, at);
    else if (type == EL_TYPE_Q3_K)
        heads_q3_k(h, p, at);
    else if (type == EL_TYPE_Q6_K)
        heads_q6_k(h, p, at);
    else if (type == EL_TYPE_IQ4_XS)
        heads_iq4_xs(h, p, at);
    else
        heads_q4_k(h, p, at);
}

#endif
