/* rows_in_lanes_avx2.h - eight weight rows side by side: their bytes loaded, their products folded or their weights
 * transposed into eight lanes of 32 bits. For kernels of 256 bits only. */
#ifndef EL_ROWS_IN_LANES_AVX2_H
#define EL_ROWS_IN_LANES_AVX2_H

#include "lanes_avx2.h"

#include "blocks.h"
#include "mem.h"

enum {
    ROWS = 8,
    X_CHUNK = 32, /* activation rows that share a transposed block, when there is no strip */
    STRIPS = 2,   /* side by side in a tile, and ... */
    TILE = 3 /* ... activation rows: with 16 registers, 6 sums in float, 6 in int32, 2 of weights, 1 of activations */
};

/* ---- bytes ---------------------------------------------------------------------------- */

INLINE __m128i load16(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
INLINE __m256i load32(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

INLINE __m256i two_rows(const uint8_t *a, const uint8_t *b)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(a)), load16(b), 1);
}

INLINE __m256i low_nibbles(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
INLINE __m256i high_nibbles(__m256i v) { return low_nibbles(_mm256_srli_epi16(v, 4)); }

/* |w| times x with w's sign: exact for w = -128 as well, unlike |x| times w with x's sign. Pairs in int16. */
INLINE __m256i times_signed(__m256i w, __m256i x)
{
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
}

/* The table of IQ4_NL and IQ4_XS in both halves; 128 larger when it has to be unsigned. */
INLINE __m256i iq4_values(bool is_unsigned)
{
    const __m256i v = _mm256_broadcastsi128_si256(load16((const uint8_t *)el_iq4_values));

    return is_unsigned ? _mm256_xor_si256(v, _mm256_set1_epi8(-128)) : v;
}

/* Scales of eight rows as floats. */
INLINE __m256 gather_f16(const uint8_t *const p[ROWS], size_t at)
{
    __m128i v = _mm_cvtsi32_si128(el_load16(p[0] + at));

    v = _mm_insert_epi16(v, el_load16(p[1] + at), 1);
    v = _mm_insert_epi16(v, el_load16(p[2] + at), 2);
    v = _mm_insert_epi16(v, el_load16(p[3] + at), 3);
    v = _mm_insert_epi16(v, el_load16(p[4] + at), 4);
    v = _mm_insert_epi16(v, el_load16(p[5] + at), 5);
    v = _mm_insert_epi16(v, el_load16(p[6] + at), 6);
    v = _mm_insert_epi16(v, el_load16(p[7] + at), 7);
    return _mm256_cvtph_ps(v);
}

/* A dword of each row: row r in lane r. */
INLINE __m256i gather_32(const uint8_t *const p[ROWS], size_t at)
{
    __m128i a = _mm_cvtsi32_si128((int)el_load32(p[0] + at)), b = _mm_cvtsi32_si128((int)el_load32(p[4] + at));

    a = _mm_insert_epi32(a, (int)el_load32(p[1] + at), 1);
    b = _mm_insert_epi32(b, (int)el_load32(p[5] + at), 1);
    a = _mm_insert_epi32(a, (int)el_load32(p[2] + at), 2);
    b = _mm_insert_epi32(b, (int)el_load32(p[6] + at), 2);
    a = _mm_insert_epi32(a, (int)el_load32(p[3] + at), 3);
    b = _mm_insert_epi32(b, (int)el_load32(p[7] + at), 3);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}

/* Of dwords that hold two f16 each, the low ones in *low and the high ones in *high. */
INLINE void split_f16(__m256i v, __m256 *low, __m256 *high)
{
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12,
                                           13, 2, 3, 6, 7, 10, 11, 14, 15);
    const __m256i apart = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(v, order), 0xd8);

    *low = _mm256_cvtph_ps(_mm256_castsi256_si128(apart));
    *high = _mm256_cvtph_ps(_mm256_extracti128_si256(apart, 1));
}

/* ---- folding eight rows into eight lanes ---------------------------------------------- */

/* a and b hold sums of one row in each half: the result's dwords 0, 1 come from a and 2, 3 from b. */
INLINE __m256i fold_pair_16(__m256i a, __m256i b)
{
    return _mm256_add_epi16(_mm256_blend_epi32(a, b, 0xcc), _mm256_alignr_epi8(b, a, 8));
}

INLINE __m256i fold_pair_32(__m256i a, __m256i b)
{
    return _mm256_add_epi32(_mm256_blend_epi32(a, b, 0xcc), _mm256_alignr_epi8(b, a, 8));
}

INLINE __m256i even_dwords(__m256i a, __m256i b)
{
    return _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88));
}

INLINE __m256i odd_dwords(__m256i a, __m256i b)
{
    return _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0xdd));
}

/* v[i]: int32 sums of row i in the low half, of row 4 + i in the high one. */
INLINE __m256i fold_halves_32(const __m256i v[4])
{
    const __m256i a = fold_pair_32(v[0], v[1]), b = fold_pair_32(v[2], v[3]);

    return _mm256_add_epi32(even_dwords(a, b), odd_dwords(a, b));
}

/* ---- transposing ---------------------------------------------------------------------- */

/* v[i]: 16 bytes of row i in the low half, of row 4 + i in the high one. out[s]: bytes 4 s .. 4 s + 3 of row r in
 * lane r. */
INLINE void transpose_halves(__m256i out[4], const __m256i v[4])
{
    const __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
    const __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);

    out[0] = _mm256_unpacklo_epi64(a, c);
    out[1] = _mm256_unpackhi_epi64(a, c);
    out[2] = _mm256_unpacklo_epi64(b, d);
    out[3] = _mm256_unpackhi_epi64(b, d);
}

INLINE void transpose_at(__m256i out[4], const uint8_t *const p[ROWS], size_t at)
{
    __m256i v[4];

    for (int i = 0; i < 4; i++)
        v[i] = two_rows(p[i] + at, p[i + 4] + at);
    transpose_halves(out, v);
}

/* A sum that is to be there at this point: gcc would rather add many products in a tree, all of them alive at once and
 * most of them in memory (Q5_0 in avx2, 512 rows: 145 GMAC/s with this, 109 without). */
INLINE __m256i summed(__m256i v)
{
    __asm__("" : "+x"(v));
    return v;
}

/* Four activations, for every lane. */
INLINE __m256i four(const uint8_t *q) { return _mm256_set1_epi32((int)el_load32(q)); }

/* ---- rows of a matrix ------------------------------------------------------------------ */

/* The last rows of a matrix whose count is no multiple of 8: missing ones repeat the last, and are not stored. */
INLINE void row_pointers(const uint8_t *p[ROWS], const uint8_t *w, size_t row_bytes, int64_t row, int64_t n_rows)
{
    for (int64_t i = 0; i < ROWS; i++)
        p[i] = w + (size_t)EL_MIN(row + i, n_rows - 1) * row_bytes;
}

#endif
