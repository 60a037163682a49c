/* q8_0_row_avx512.h - Q8_0 weights times one activation row, in file order. For matmul_avx512.c only.
 *
 * Sixteen rows that lie one behind the other are a single stream of blocks, which the prefetcher of the second level
 * follows best. The first pass goes along it, sixteen blocks at a time whichever rows they belong to, and leaves
 * integer sums and scales; the second puts rows in lanes and adds up block by block, as the rule wants.
 * Zen 5, two threads, weights from memory, against eight rows side by side: k = 576 and 640 51 -> 58 GB/s, where a
 * plain read has 60, and 42 -> 45, where it has 42. Longer rows gain at the faster memory (k = 2048 59 -> 61) but not
 * at the slower (41 -> 40; a model of such rows came out 4 % slower, 10 KB ahead), and nibbles lose (58 -> 53). */
#ifndef EL_Q8_0_ROW_AVX512_H
#define EL_Q8_0_ROW_AVX512_H

#include "rows_in_lanes_avx512.h"

enum {
    Q8_0_BYTES = 34,
    STREAM_BLOCKS = 32, /* of a row, at most */
    STREAM_AHEAD = 6144 /* bytes from a prefetch to its use; k = 640: 3 KB 57 GB/s, 4 KB 59, 6 KB 62 */
};

typedef struct stream_sums {
    uint8_t x[32 * (STREAM_BLOCKS + ROWS)]; /* the row, and its beginning again: sixteen blocks from any one on */
    int32_t sum[ROWS * STREAM_BLOCKS + ROWS];
    uint16_t d[ROWS * STREAM_BLOCKS + ROWS];
} stream_sums;

/* The sums of the dwords of each quarter: of v[i] as dword i of that quarter. */
INLINE __m512i fold_quarters(const __m512i v[4])
{
    const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));

    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* The sums of the dwords of each half: of v[i]'s low one as dword i, of its high one as dword 8 + i. */
INLINE __m512i fold_halves(const __m512i v[8])
{
    const __m512i a = fold_quarters(v), b = fold_quarters(v + 4); /* quarters: low, low, high, high */

    return _mm512_add_epi32(_mm512_mask_shuffle_i64x2(a, 0xcc, b, b, 0xb1),
                            _mm512_mask_shuffle_i64x2(b, 0x33, a, a, 0xb1));
}

/* 32 weights each from a and from b on, made unsigned, times x. */
INLINE __m512i dot_two(const uint8_t *a, const uint8_t *b, __m512i x)
{
    const __m512i w = _mm512_xor_si512(two_rows(a, b), _mm512_set1_epi8((char)0x80));

    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, x);
}

INLINE void prefetch_line(const uint8_t *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

/* The unsigned sums of sixteen blocks, by their place. */
INLINE __m512i stream_16(const uint8_t *w, const uint8_t *x)
{
    const __m512i in_order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    __m512i v[8];

    prefetch_line(w + STREAM_AHEAD + 8 * 64);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const uint8_t *q = w + 2 * Q8_0_BYTES * i + 2;
        prefetch_line(w + STREAM_AHEAD + 64 * i);
        v[i] = dot_two(q, q + Q8_0_BYTES, _mm512_loadu_si512(x + 64 * i));
    }
    return _mm512_permutexvar_epi32(in_order, fold_halves(v));
}

INLINE void stream(stream_sums *to, const uint8_t *w, int64_t n)
{
    const uint8_t *p[ROWS];
    int64_t b = 0; /* of its row, the first block */

    for (int64_t i = 0; i < ROWS * n; i += ROWS, w += ROWS * Q8_0_BYTES) {
        _mm512_storeu_si512(to->sum + i, stream_16(w, to->x + 32 * b));
        for (int j = 0; j < ROWS; j++)
            p[j] = w + Q8_0_BYTES * j;
        _mm256_storeu_si256((__m256i *)(to->d + i), gather_16(p, 0));
        for (b += ROWS; b >= n;)
            b -= n;
    }
}

/* Dword i of v[j] becomes dword j of v[i]. */
INLINE void transpose_square(__m512i v[ROWS])
{
    __m512i t[ROWS];

    for (int i = 0; i < ROWS; i += 4)
        transpose_dwords(t + i, v + i);
    for (int s = 0; s < 4; s++) {
        const __m512i a = _mm512_shuffle_i32x4(t[s], t[4 + s], 0x44), b = _mm512_shuffle_i32x4(t[s], t[4 + s], 0xee);
        const __m512i c = _mm512_shuffle_i32x4(t[8 + s], t[12 + s], 0x44);
        const __m512i d = _mm512_shuffle_i32x4(t[8 + s], t[12 + s], 0xee);
        v[s] = _mm512_shuffle_i32x4(a, c, 0x88);
        v[4 + s] = _mm512_shuffle_i32x4(a, c, 0xdd);
        v[8 + s] = _mm512_shuffle_i32x4(b, d, 0x88);
        v[12 + s] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

INLINE __m512 stream_step(__m512 acc, __m512i sum, __m512i d_w, float d_x, int32_t sum8)
{
    const __m512 scale = _mm512_mul_ps(_mm512_castsi512_ps(d_w), _mm512_set1_ps(d_x));

    return _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_set1_epi32(16 * sum8))), acc);
}

INLINE __m512 add_up(const stream_sums *from, const uint8_t *x, int64_t k)
{
    const float *d = (const float *)(x + el_act32_d(k));
    const int32_t *sum8 = (const int32_t *)(x + el_act32_sum8(k)), *sum_at = from->sum;
    const uint16_t *d_at = from->d;
    const int64_t n = k / 32;
    __m512 acc = _mm512_setzero_ps();

    for (int64_t b = 0; b < n; b += ROWS, sum_at += ROWS, d_at += ROWS, d += ROWS, sum8 += ROWS) {
        __m512i sum[ROWS], d_w[ROWS];
        for (int r = 0; r < ROWS; r++) {
            sum[r] = _mm512_loadu_si512(sum_at + r * n);
            d_w[r] = _mm512_castps_si512(_mm512_cvtph_ps(load32((const uint8_t *)(d_at + r * n))));
        }
        transpose_square(sum);
        transpose_square(d_w);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++) {
            if (b + i >= n)
                break;
            acc = stream_step(acc, sum[i], d_w[i], d[i], sum8[i]);
        }
    }
    return acc;
}

/* y for the first rows, whole sixteens of them; how many. */
INLINE int64_t stream_rows(float *y, const uint8_t *w, size_t row_bytes, int64_t n_rows, const uint8_t *x, int64_t k)
{
    const int64_t n = k / 32;
    stream_sums sums;
    int64_t row = 0;

    if (n > STREAM_BLOCKS || row_bytes != (size_t)n * Q8_0_BYTES || n_rows < ROWS)
        return 0;
    memcpy(sums.x, x, (size_t)k);
    for (int64_t b = 0; b < ROWS; b++)
        memcpy(sums.x + k + 32 * b, sums.x + 32 * b, 32);
    for (; row + ROWS <= n_rows; row += ROWS, w += ROWS * row_bytes) {
        stream(&sums, w, n);
        _mm512_storeu_ps(y + row, add_up(&sums, x, k));
    }
    return row;
}

#endif
