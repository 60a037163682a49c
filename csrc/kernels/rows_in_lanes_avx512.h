/* rows_in_lanes_avx512.h - sixteen weight rows side by side: their bytes loaded, transposed and their scales gathered
 * into sixteen lanes of 32 bits. For *_avx512.c only. */
#ifndef EL_ROWS_IN_LANES_AVX512_H
#define EL_ROWS_IN_LANES_AVX512_H

#include <immintrin.h>

#include "blocks.h"
#include "mem.h"
#include "scalar_math.h"

#define INLINE static inline __attribute__((always_inline))

enum { ROWS = 16 };

/* ---- bytes ---------------------------------------------------------------------------- */

INLINE __m128i load16(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
INLINE __m256i load32(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* 16 bytes of each of four rows. */
INLINE __m512i four_rows(const uint8_t *a, const uint8_t *b, const uint8_t *c, const uint8_t *d)
{
    __m512i v = _mm512_castsi128_si512(load16(a));

    v = _mm512_inserti32x4(v, load16(b), 1);
    v = _mm512_inserti32x4(v, load16(c), 2);
    return _mm512_inserti32x4(v, load16(d), 3);
}

/* 32 bytes of each of two rows. */
INLINE __m512i two_rows(const uint8_t *a, const uint8_t *b)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(load32(a)), load32(b), 1);
}

/* ---- transposing ---------------------------------------------------------------------- */

/* Each quarter as a square of dwords: dword i of quarter j of out[s] is dword s of quarter j of v[i]. */
INLINE void transpose_dwords(__m512i out[4], const __m512i v[4])
{
    const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    const __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);

    out[0] = _mm512_unpacklo_epi64(a, c);
    out[1] = _mm512_unpackhi_epi64(a, c);
    out[2] = _mm512_unpacklo_epi64(b, d);
    out[3] = _mm512_unpackhi_epi64(b, d);
}

/* v[i]: the 16 bytes after `at` of row 4 j + i in quarter j. */
INLINE void quarters_at(__m512i v[4], const uint8_t *const p[ROWS], size_t at)
{
    for (int i = 0; i < 4; i++)
        v[i] = four_rows(p[i] + at, p[4 + i] + at, p[8 + i] + at, p[12 + i] + at);
}

/* out[s]: bytes 4 s .. 4 s + 3 after `at` of row r in lane r. */
INLINE void transpose_at(__m512i out[4], const uint8_t *const p[ROWS], size_t at)
{
    __m512i v[4];

    quarters_at(v, p, at);
    transpose_dwords(out, v);
}

/* Quarter i of out[j] is quarter j of v[i]. */
INLINE void transpose_quarters(__m512i out[4], const __m512i v[4])
{
    const __m512i a = _mm512_shuffle_i32x4(v[0], v[1], 0x44), b = _mm512_shuffle_i32x4(v[0], v[1], 0xee);
    const __m512i c = _mm512_shuffle_i32x4(v[2], v[3], 0x44), d = _mm512_shuffle_i32x4(v[2], v[3], 0xee);

    out[0] = _mm512_shuffle_i32x4(a, c, 0x88);
    out[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
    out[2] = _mm512_shuffle_i32x4(b, d, 0x88);
    out[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
}

/* out[i]: bytes 4 i .. 4 i + 3 after `at` of row r in lane r, for the 64 bytes there. */
INLINE void transpose_64(__m512i out[16], const uint8_t *const p[ROWS], size_t at)
{
    __m512i t[4][4], v[4];

    for (int l = 0; l < 4; l++) {
        for (int r = 0; r < 4; r++)
            v[r] = _mm512_loadu_si512(p[4 * l + r] + at);
        transpose_dwords(t[l], v);
    }
    for (int i = 0; i < 4; i++) {
        const __m512i u[4] = {t[0][i], t[1][i], t[2][i], t[3][i]};
        transpose_quarters(v, u);
        for (int l = 0; l < 4; l++)
            out[4 * l + i] = v[l];
    }
}

/* The same for 32 bytes. */
INLINE void transpose_32(__m512i out[8], const uint8_t *const p[ROWS], size_t at)
{
    __m512i low[4], high[4], v[4];

    for (int r = 0; r < 4; r++)
        v[r] = two_rows(p[r] + at, p[4 + r] + at);
    transpose_dwords(low, v);
    for (int r = 0; r < 4; r++)
        v[r] = two_rows(p[8 + r] + at, p[12 + r] + at);
    transpose_dwords(high, v);
    for (int i = 0; i < 4; i++) {
        out[i] = _mm512_shuffle_i32x4(low[i], high[i], 0x88);
        out[4 + i] = _mm512_shuffle_i32x4(low[i], high[i], 0xdd);
    }
}

/* ---- scales --------------------------------------------------------------------------- */

INLINE __m128i gather_16_of_8(const uint8_t *const p[8], size_t at)
{
    __m128i v = _mm_cvtsi32_si128(el_load16(p[0] + at));

    v = _mm_insert_epi16(v, el_load16(p[1] + at), 1);
    v = _mm_insert_epi16(v, el_load16(p[2] + at), 2);
    v = _mm_insert_epi16(v, el_load16(p[3] + at), 3);
    v = _mm_insert_epi16(v, el_load16(p[4] + at), 4);
    v = _mm_insert_epi16(v, el_load16(p[5] + at), 5);
    v = _mm_insert_epi16(v, el_load16(p[6] + at), 6);
    return _mm_insert_epi16(v, el_load16(p[7] + at), 7);
}

/* Two bytes of each row. */
INLINE __m256i gather_16(const uint8_t *const p[ROWS], size_t at)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(gather_16_of_8(p, at)), gather_16_of_8(p + 8, at), 1);
}

/* An f16 of each row, as floats. */
INLINE __m512 gather_f16(const uint8_t *const p[ROWS], size_t at) { return _mm512_cvtph_ps(gather_16(p, at)); }

INLINE __m128i gather_32_of_4(const uint8_t *const p[4], size_t at)
{
    __m128i v = _mm_cvtsi32_si128((int)el_load32(p[0] + at));

    v = _mm_insert_epi32(v, (int)el_load32(p[1] + at), 1);
    v = _mm_insert_epi32(v, (int)el_load32(p[2] + at), 2);
    return _mm_insert_epi32(v, (int)el_load32(p[3] + at), 3);
}

/* A dword of each row: row r in lane r. */
INLINE __m512i gather_32(const uint8_t *const p[ROWS], size_t at)
{
    __m512i v = _mm512_castsi128_si512(gather_32_of_4(p, at));

    v = _mm512_inserti32x4(v, gather_32_of_4(p + 4, at), 1);
    v = _mm512_inserti32x4(v, gather_32_of_4(p + 8, at), 2);
    return _mm512_inserti32x4(v, gather_32_of_4(p + 12, at), 3);
}

/* Of dwords that hold two f16 each, the low ones in *low and the high ones in *high. */
INLINE void split_f16(__m512i v, __m512 *low, __m512 *high)
{
    *low = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
    *high = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16)));
}

/* ---- rows of a matrix ------------------------------------------------------------------ */

INLINE void store_lanes(float *y, __m512 v, int64_t n)
{
    if (n >= ROWS)
        _mm512_storeu_ps(y, v);
    else
        _mm512_mask_storeu_ps(y, (__mmask16)((1u << n) - 1), v);
}

/* The last rows of a matrix whose count is no multiple of 16: missing ones repeat the last, and are not stored. */
INLINE void row_pointers(const uint8_t *p[ROWS], const uint8_t *w, size_t row_bytes, int64_t row, int64_t n_rows)
{
    for (int64_t i = 0; i < ROWS; i++)
        p[i] = w + (size_t)EL_MIN(row + i, n_rows - 1) * row_bytes;
}

#endif
