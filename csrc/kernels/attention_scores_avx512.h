/* attention_scores_avx512.h - dot products of up to four queries with 32 rows of K, by rows or by columns; the order of
 * the sums is the float types' in kernels.h. For attention_avx512.c only. */
#ifndef EL_ATTENTION_SCORES_AVX512_H
#define EL_ATTENTION_SCORES_AVX512_H

#include "lanes_avx512.h"

#include "attention_spans.h"
#include "rows_in_lanes_avx512.h"

enum { TILE = 4 }; /* queries of a register tile */

typedef struct view { /* 32 rows of floats or f16, whole sums of 16 long */
    const uint8_t *data;
    size_t stride;
    bool f16;
} view;

INLINE __m512 load_16(bool f16, const uint8_t *row, int64_t i)
{
    return f16 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(row + 2 * i)))
               : _mm512_loadu_ps((const float *)(const void *)(row + 4 * i));
}

/* ---- scores, few queries -------------------------------------------------------------- */

/* The fold's first step for two rows of partial sums, its second for two results of the first, and so on: what comes
 * from a stays before what comes from b, within halves, quarters, ... */
INLINE __m512 fold_8(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_mask_blend_ps(0xff00, a, b), _mm512_shuffle_f32x4(a, b, 0x4e));
}
INLINE __m512 fold_4(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
INLINE __m512 fold_2(__m512 a, __m512 b)
{
    const __m512d crossed = _mm512_shuffle_pd(_mm512_castps_pd(a), _mm512_castps_pd(b), 0x55);

    return _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, a, b), _mm512_castpd_ps(crossed));
}
INLINE __m512 fold_1(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}

/* Loops over registers are single and at most 16 long: gcc 12 keeps arrays in memory that nested loops walk. */

/* out[i]: positions j, j + 4, j + 8, j + 12 of 16, a quarter each. */
INLINE void dots_of_4(bool f16, int n_q, __m512 *out, const float *q, int64_t width, const uint8_t *rows, size_t stride,
                      int64_t n)
{
    __m512 s[4 * TILE];

    for (int t = 0; t < 4 * n_q; t++)
        s[t] = _mm512_setzero_ps();
    for (int64_t d = 0; d < n; d += 16) {
        const __m512 row[4] = {load_16(f16, rows, d), load_16(f16, rows + 4 * stride, d),
                               load_16(f16, rows + 8 * stride, d), load_16(f16, rows + 12 * stride, d)};
        for (int t = 0; t < 4 * n_q; t++)
            s[t] = _mm512_fmadd_ps(_mm512_loadu_ps(q + t / 4 * width + d), row[t % 4], s[t]);
    }
    for (int i = 0; i < n_q; i++)
        out[i] = fold_4(fold_8(s[4 * i], s[4 * i + 1]), fold_8(s[4 * i + 2], s[4 * i + 3]));
}

INLINE void score_rows(bool f16, int n_q, float *scores, const float *q, int64_t width, view k, int64_t n, span in)
{
    for (int32_t p = in.begin & ~15; p < in.end; p += 16) {
        __m512 s[4][TILE];
        for (int32_t j = 0; j < 4; j++)
            dots_of_4(f16, n_q, s[j], q, width, k.data + (size_t)(p + j) * k.stride, k.stride, n);
        for (int i = 0; i < n_q; i++)
            _mm512_storeu_ps(scores + i * EL_ATTN_SEGMENT + p,
                             fold_1(fold_2(s[0][i], s[1][i]), fold_2(s[2][i], s[3][i])));
    }
}

/* ---- scores, many queries ------------------------------------------------------------- */

/* A lane a position. f16 are turned in pairs: rows with even and odd positions apart, so that the pairs of both
 * interleave to 32 positions in order. */
static void turn_rows(float *columns, view k, int64_t n)
{
    const uint8_t *p[2][ROWS];
    __m512i a[4], b[4];

    for (size_t i = 0; i < EL_ATTN_BLOCK; i++)
        p[k.f16 ? i % 2 : i / ROWS][k.f16 ? i / 2 : i % ROWS] = k.data + i * k.stride;
    for (int64_t d = 0; d < n; d += k.f16 ? 8 : 4) {
        transpose_at(a, p[0], (size_t)d * (k.f16 ? 2 : 4));
        transpose_at(b, p[1], (size_t)d * (k.f16 ? 2 : 4));
        for (int s = 0; s < 4; s++)
            if (k.f16) {
                const __m512i even = _mm512_mask_blend_epi16(0xaaaaaaaa, a[s], _mm512_slli_epi32(b[s], 16));
                const __m512i odd = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(a[s], 16), b[s]);
                float *y = columns + (d + 2 * s) * EL_ATTN_BLOCK;
                _mm512_storeu_ps(y, _mm512_cvtph_ps(_mm512_castsi512_si256(even)));
                _mm512_storeu_ps(y + 16, _mm512_cvtph_ps(_mm512_extracti64x4_epi64(even, 1)));
                _mm512_storeu_ps(y + 32, _mm512_cvtph_ps(_mm512_castsi512_si256(odd)));
                _mm512_storeu_ps(y + 48, _mm512_cvtph_ps(_mm512_extracti64x4_epi64(odd, 1)));
            } else {
                _mm512_storeu_si512(columns + (d + s) * EL_ATTN_BLOCK, a[s]);
                _mm512_storeu_si512(columns + (d + s) * EL_ATTN_BLOCK + 16, b[s]);
            }
    }
}

/* Partial sum c of the 16: query i with the first 16 positions in out[2 i], with the others in out[2 i + 1]. */
INLINE void class_sums(int n_q, __m512 *out, const float *q, int64_t width, const float *columns, int64_t n, int64_t c)
{
    for (int t = 0; t < 2 * n_q; t++)
        out[t] = _mm512_setzero_ps();
    for (int64_t d = c; d < n; d += 16) {
        const __m512 k[2] = {_mm512_loadu_ps(columns + d * EL_ATTN_BLOCK),
                             _mm512_loadu_ps(columns + d * EL_ATTN_BLOCK + 16)};
        for (int t = 0; t < 2 * n_q; t++)
            out[t] = _mm512_fmadd_ps(_mm512_set1_ps(q[t / 2 * width + d]), k[t % 2], out[t]);
    }
}

/* The fold of partial sums c, c + 8, c + 4 and c + 12: depth first, which keeps few waiting. */
INLINE void fold_classes(int n_q, __m512 *out, const float *q, int64_t width, const float *columns, int64_t n,
                         int64_t c)
{
    __m512 a[2 * TILE], b[2 * TILE], e[2 * TILE];

    class_sums(n_q, a, q, width, columns, n, c);
    class_sums(n_q, e, q, width, columns, n, c + 8);
    for (int t = 0; t < 2 * n_q; t++)
        a[t] = _mm512_add_ps(a[t], e[t]);
    class_sums(n_q, b, q, width, columns, n, c + 4);
    class_sums(n_q, e, q, width, columns, n, c + 12);
    for (int t = 0; t < 2 * n_q; t++)
        out[t] = _mm512_add_ps(a[t], _mm512_add_ps(b[t], e[t]));
}

INLINE void score_columns(int n_q, float *scores, const float *q, int64_t width, const float *columns, int64_t n)
{
    __m512 s[4][2 * TILE];

    for (int64_t c = 0; c < 4; c++)
        fold_classes(n_q, s[c], q, width, columns, n, c);
    for (int t = 0; t < 2 * n_q; t++)
        _mm512_storeu_ps(scores + t / 2 * EL_ATTN_SEGMENT + t % 2 * 16,
                         _mm512_add_ps(_mm512_add_ps(s[0][t], s[2][t]), _mm512_add_ps(s[1][t], s[3][t])));
}

#endif
