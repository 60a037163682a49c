/* superblock_strips_avx512.h - several activation rows, for superblock_avx512.c.
 *
 * The bytes of sixteen weight rows are transposed once per super-block (row r in lane r): a strip. Two strips at a time
 * meet four activation rows, so that a load serves four or two multiplications (vpdpbusd), which are what counts then:
 * Zen 5 loads two vectors and multiplies two in a cycle.
 * Types that subtract keep their weights signed, and the activations count as q + 128: what that adds is the same for
 * every activation row, so it is taken off once per strip. */
#ifndef EL_SUPERBLOCK_STRIPS_AVX512_H
#define EL_SUPERBLOCK_STRIPS_AVX512_H

#include "superblock_one_avx512.h"

enum {
    X_CHUNK = 256, /* activation rows of a pass over the weights: 128 are 3 to 5 % slower, 512 rows, 1.2B */
    X_TILE = 4,    /* of them multiplied at once */
    STRIPS = 2
};

/* A super-block of sixteen rows, row r in lane r. */
typedef struct strip {
    __m512i w[64];     /* four bytes of weights; signed where the type subtracts */
    __m512i scale[16]; /* int32 */
    __m512i pair[8];   /* int16 pairs of neighbouring groups' minima */
    __m512i start;     /* of types that subtract: minus what the 128 of the activations add */
    __m512 d, dmin;
} strip;

/* ---- activations ------------------------------------------------------------------------ */

typedef int32_t __attribute__((may_alias, aligned(1))) dword;

INLINE __m512i four(const uint8_t *q) { return _mm512_set1_epi32((int)el_load32(q)); }

/* As unsigned bytes: plus 128. As assembly, because gcc 12 loads the broadcast into a register of its own. */
INLINE __m512i four_and_128(const uint8_t *q)
{
    __m512i v;

    __asm__("vpxord %2%{1to16%}, %1, %0" : "=v"(v) : "v"(_mm512_set1_epi8((char)128)), "m"(*(const dword *)q));
    return v;
}

/* ---- weights: bits ------------------------------------------------------------------------ */

/* Bit `from` of each byte at bit `to`; what comes across from other bytes is for the caller to mask. */
INLINE __m512i move_bit(__m512i v, int from, int to)
{
    return to >= from ? _mm512_slli_epi32(v, (unsigned)(to - from)) : _mm512_srli_epi32(v, (unsigned)(from - to));
}

INLINE __m512i less(__m512i v, int offset) { return _mm512_sub_epi8(v, _mm512_set1_epi8((char)offset)); }

/* What 128 times the weights of group g add; `bytes`: sums of four. */
INLINE __m512i group_start(const strip *s, int g, __m512i bytes)
{
    const __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8((char)128), bytes);

    return _mm512_mullo_epi32(sum, s->scale[g]);
}

/* 2-bit fields: field s of byte 32 h + i is element 128 h + 32 s + i. */
INLINE void unpack_twos(int type, strip *s, const uint8_t *const p[ROWS], size_t at)
{
    __m512i t[16], m[8], start = _mm512_setzero_si512(), sum[4];

    transpose_64(t, p, at + (type == EL_TYPE_Q2_K ? (size_t)EL_Q2_K_QS : (size_t)EL_Q3_K_QS));
    if (type == EL_TYPE_Q3_K)
        transpose_32(m, p, at);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        for (int z = 0; z < 4; z++) {
            const int bit = z % 2 ? 4 : 2; /* four times the value where z is odd */
            __m512i w = low_bits(type, z, t[i]);
            if (type == EL_TYPE_Q3_K) {
                w = less(or_bits(w, move_bit(m[i % 8], i / 8 * 4 + z, bit), 1 << bit), 1 << bit);
                sum[z] = i % 4 ? _mm512_add_epi8(sum[z], w) : w;
                if (i % 4 == 3)
                    start = _mm512_sub_epi32(start, group_start(s, i / 8 * 8 + 2 * z + i % 8 / 4, sum[z]));
            }
            s->w[i / 8 * 32 + 8 * z + i % 8] = w;
        }
    s->start = start;
}

/* Nibbles of 32 bytes: the low ones are 32 elements, the high ones the next 32. */
INLINE void unpack_nibbles(int type, strip *s, const uint8_t *const p[ROWS], size_t at)
{
    __m512i t[16], m[8];

    if (type == EL_TYPE_Q5_K)
        transpose_32(m, p, at + EL_Q5_K_QH);
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        transpose_64(t, p, at + (type == EL_TYPE_Q5_K ? (size_t)EL_Q5_K_QS : (size_t)EL_Q4_K_QS) + (size_t)half * 64);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            for (int z = 0; z < 2; z++) {
                const int group = 4 * half + i / 8 * 2 + z;
                __m512i w = low_bits(type, z, t[i]);
                if (type == EL_TYPE_Q5_K)
                    w = or_bits(w, move_bit(m[i % 8], group, 4), 16);
                s->w[8 * group + i % 8] = w;
            }
    }
}

INLINE void unpack_sixes(strip *s, const uint8_t *const p[ROWS], size_t at)
{
    __m512i t[16], m[8], start = _mm512_setzero_si512(), sum[2];

#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        transpose_32(m, p, at + EL_Q6_K_QH + (size_t)half * 32);
        transpose_64(t, p, at + (size_t)half * 64);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            for (int z = 0; z < 2; z++) {
                const __m512i high = move_bit(m[i % 8], 2 * (2 * z + i / 8), 4);
                const __m512i w = less(or_bits(low_bits(EL_TYPE_Q6_K, z, t[i]), high, 48), 32);
                sum[z] = i % 4 ? _mm512_add_epi8(sum[z], w) : w;
                if (i % 4 == 3)
                    start = _mm512_sub_epi32(start, group_start(s, 8 * half + 4 * z + i / 4, sum[z]));
                s->w[32 * half + 16 * z + i] = w;
            }
    }
    s->start = start;
}

INLINE void unpack_iq4(strip *s, const uint8_t *const p[ROWS], size_t at)
{
    const __m512i values = _mm512_broadcast_i32x4(load16((const uint8_t *)el_iq4_values));
    __m512i t[16], start = _mm512_setzero_si512(), sum;

#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        transpose_64(t, p, at + EL_IQ4_XS_QS + (size_t)half * 64);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            for (int z = 0; z < 2; z++) {
                const __m512i w = _mm512_shuffle_epi8(values, and_bits(z ? _mm512_srli_epi16(t[i], 4) : t[i], 15));
                sum = _mm512_dpbusd_epi32(i % 4 || z ? sum : _mm512_setzero_si512(), _mm512_set1_epi8((char)128), w);
                if (i % 4 == 3 && z)
                    start = _mm512_sub_epi32(start, _mm512_mullo_epi32(sum, s->scale[4 * half + i / 4]));
                s->w[32 * half + 8 * (i / 4) + 4 * z + i % 4] = w;
            }
    }
    s->start = start;
}

/* ---- weights: scales ---------------------------------------------------------------------- */

/* Byte g of the transposed bytes, as int32. */
INLINE __m512i byte_of(const __m512i t[4], int g, bool is_signed)
{
    const __m512i v = _mm512_slli_epi32(t[g / 4], (unsigned)(24 - g % 4 * 8));

    return is_signed ? _mm512_srai_epi32(v, 24) : _mm512_srli_epi32(v, 24);
}

INLINE __m512i pair_of(__m512i a, __m512i b)
{
    return _mm512_mask_blend_epi16(0xaaaaaaaa, a, _mm512_slli_epi32(b, 16));
}

INLINE void strip_scales(int type, strip *s, const heads *h)
{
    __m512i t[4], m[4];

    s->d = h->d;
    s->dmin = has_min(type) ? h->dmin : h->d;
    transpose_dwords(t, h->scales);
    if (type == EL_TYPE_Q2_K)
        transpose_dwords(m, h->mins);
#pragma GCC unroll 8
    for (int g = 0; g < 256 / group_size(type); g += 2) {
        s->scale[g] = byte_of(t, g, !has_min(type));
        s->scale[g + 1] = byte_of(t, g + 1, !has_min(type));
        if (type == EL_TYPE_Q2_K)
            s->pair[g / 2] = pair_of(byte_of(m, g, false), byte_of(m, g + 1, false));
        else if (has_min(type))
            s->pair[g / 2] = pair_of(byte_of(t, 8 + g, false), byte_of(t, 9 + g, false));
    }
}

INLINE void unpack(int type, strip *s, const uint8_t *const p[ROWS], size_t at)
{
    heads h;

    heads_at(type, &h, p, at);
    strip_scales(type, s, &h);
    if (type == EL_TYPE_Q2_K || type == EL_TYPE_Q3_K)
        unpack_twos(type, s, p, at);
    else if (type == EL_TYPE_Q6_K)
        unpack_sixes(s, p, at);
    else if (type == EL_TYPE_IQ4_XS)
        unpack_iq4(s, p, at);
    else
        unpack_nibbles(type, s, p, at);
}

/* ---- multiplying -------------------------------------------------------------------------- */

/* The float steps: `total` from the products, `less` from the minima. */
INLINE __m512 step(int type, __m512 acc, __m512i total, __m512i minima, const strip *s, __m512 dx)
{
    if (is_times_four(type))
        total = _mm512_srai_epi32(total, 2);
    acc = _mm512_fmadd_ps(_mm512_mul_ps(s->d, dx), _mm512_cvtepi32_ps(total), acc);
    return has_min(type) ? _mm512_fnmadd_ps(_mm512_mul_ps(s->dmin, dx), _mm512_cvtepi32_ps(minima), acc) : acc;
}

/* Super-block b of n activation rows; acc[t * X_CHUNK + j]: strip t and row j. */
INLINE void tile(int type, int n, __m512 *acc, const strip *s, const uint8_t *x, size_t x_stride, int64_t k, int64_t b)
{
    const size_t sums_at =
        group_size(type) == 16 ? el_act256_sum16(k) + 32 * (size_t)b : el_act256_sum32(k) + 16 * (size_t)b;
    const size_t d_at = el_act256_d(k) + 4 * (size_t)b;
    const int fours = group_size(type) / 4;
    __m512i total[STRIPS][X_TILE], sum[STRIPS][X_TILE];

    for (int t = 0; t < STRIPS; t++)
        for (int j = 0; j < n; j++)
            total[t][j] = has_min(type) ? _mm512_setzero_si512() : s[t].start;
    for (int g = 0; g < 256 / group_size(type); g++) {
        const uint8_t *q = x + 256 * b + group_size(type) * g;
        for (int t = 0; t < STRIPS; t++)
            for (int j = 0; j < n; j++)
                sum[t][j] = _mm512_setzero_si512();
        for (int i = 0; i < fours; i++)
            for (int j = 0; j < n; j++) {
                const uint8_t *at = q + (size_t)j * x_stride + 4 * i;
                const __m512i v = has_min(type) ? four(at) : four_and_128(at);
                for (int t = 0; t < STRIPS; t++) {
                    const __m512i w = s[t].w[fours * g + i];
                    sum[t][j] = _mm512_dpbusd_epi32(sum[t][j], has_min(type) ? w : v, has_min(type) ? v : w);
                }
            }
        for (int t = 0; t < STRIPS; t++)
            for (int j = 0; j < n; j++)
                total[t][j] = _mm512_add_epi32(total[t][j], _mm512_mullo_epi32(sum[t][j], s[t].scale[g]));
    }
    for (int g = 0; has_min(type) && g < 128 / group_size(type); g++)
        for (int j = 0; j < n; j++) {
            const __m512i x_sums = four(x + (size_t)j * x_stride + sums_at + 4 * g);
            for (int t = 0; t < STRIPS; t++)
                sum[t][j] = _mm512_dpwssd_epi32(g ? sum[t][j] : _mm512_setzero_si512(), s[t].pair[g], x_sums);
        }
    for (int j = 0; j < n; j++) {
        const __m512 dx = _mm512_castsi512_ps(four(x + (size_t)j * x_stride + d_at));
        for (int t = 0; t < STRIPS; t++)
            acc[t * X_CHUNK + j] = step(type, acc[t * X_CHUNK + j], total[t][j], sum[t][j], &s[t], dx);
    }
}

#endif
