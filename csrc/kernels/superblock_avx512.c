/* superblock_avx512.c - weights in super-blocks of 256 times activations, sixteen weight rows in sixteen lanes.
 * One activation row: superblock_one_avx512.h. More: superblock_strips_avx512.h. */
#include "superblock_strips_avx512.h"

/* ---- all rows ------------------------------------------------------------------------- */

typedef __m512 one_fn(const uint8_t *const p[ROWS], const one_row *o);
typedef void unpack_fn(strip *s, const uint8_t *const p[ROWS], size_t at);
typedef void tile_fn(__m512 *acc, const strip *s, const uint8_t *x, size_t x_stride, int64_t k, int64_t b);

enum { TILE_SIZES = 3 }; /* 1, 2 and 4 activation rows */

INLINE void prefetch_ahead(int type, const uint8_t *ahead)
{
    for (size_t line = 0; line < ROWS * block_bytes(type); line += 64)
        _mm_prefetch((const char *)(ahead + line), _MM_HINT_T0);
}

/* n activation rows times the strips of weight rows from `row` on. */
INLINE void several_x(int type, unpack_fn *unpack_rows, tile_fn *const tiles[TILE_SIZES], __m512 *acc, const uint8_t *w,
                      size_t row_bytes, int64_t row, int64_t n_rows, const uint8_t *x, size_t x_stride, int64_t n,
                      int64_t k)
{
    const uint8_t *ahead = w + (size_t)(row + STRIPS * ROWS) * row_bytes;
    const uint8_t *p[STRIPS][ROWS];
    strip s[STRIPS];
    size_t at = 0;

    for (int t = 0; t < STRIPS; t++) {
        row_pointers(p[t], w, row_bytes, row + t * ROWS, n_rows);
        for (int64_t j = 0; j < n; j++)
            acc[t * X_CHUNK + j] = _mm512_setzero_ps();
    }
    for (int64_t b = 0; b < k / 256; b++, at += block_bytes(type)) {
        int64_t j = 0;
        for (int t = 0; t < STRIPS; t++) {
            prefetch_ahead(type, ahead + (size_t)(STRIPS * ROWS) * at + (size_t)(t * ROWS) * block_bytes(type));
            unpack_rows(&s[t], p[t], at);
        }
        for (int i = TILE_SIZES - 1; i >= 0; i--)
            for (; n - j >= 1 << i; j += 1 << i)
                tiles[i](acc + j, s, x + (size_t)j * x_stride, x_stride, k, b);
    }
}

INLINE void one_x_all(int type, one_fn *one, float *y, const uint8_t *w, size_t row_bytes, int64_t n_rows,
                      const uint8_t *x, int64_t k, void *scratch)
{
    const uint8_t *p[ROWS];
    one_row o;

    prepare_one(type, &o, x, k, scratch);
    for (int64_t row = 0; row < n_rows; row += ROWS) {
        row_pointers(p, w, row_bytes, row, n_rows);
        store_lanes(y + row, one(p, &o), n_rows - row);
    }
}

INLINE void matmul(int type, one_fn *one, unpack_fn *unpack_rows, tile_fn *const tiles[TILE_SIZES], float *y,
                   int64_t ldy, const uint8_t *w, size_t row_bytes, int64_t n_rows, const uint8_t *x, size_t x_stride,
                   int64_t n_x, int64_t k, void *scratch)
{
    __m512 acc[STRIPS * X_CHUNK];

    for (int64_t first = 0; first < n_x; first += X_CHUNK, x += X_CHUNK * x_stride, y += X_CHUNK * ldy) {
        const int64_t n = EL_MIN(n_x - first, (int64_t)X_CHUNK);
        if (n == 1) {
            one_x_all(type, one, y, w, row_bytes, n_rows, x, k, scratch);
            continue;
        }
        for (int64_t row = 0; row < n_rows; row += STRIPS * ROWS) {
            several_x(type, unpack_rows, tiles, acc, w, row_bytes, row, n_rows, x, x_stride, n, k);
            for (int64_t j = 0; j < n; j++)
                for (int t = 0; t < STRIPS; t++)
                    if (row + t * ROWS < n_rows)
                        store_lanes(y + j * ldy + row + t * ROWS, acc[t * X_CHUNK + j], n_rows - row - t * ROWS);
        }
    }
}

#define NOINLINE __attribute__((noinline))
#define TILE(NAME, TYPE, N)                                                                                            \
    static NOINLINE void tile_##NAME##_##N(__m512 *acc, const strip *s, const uint8_t *x, size_t x_stride, int64_t k,  \
                                           int64_t b)                                                                  \
    {                                                                                                                  \
        tile(TYPE, N, acc, s, x, x_stride, k, b);                                                                      \
    }
#define TILES(NAME, TYPE)                                                                                              \
    TILE(NAME, TYPE, 1)                                                                                                \
    TILE(NAME, TYPE, 2)                                                                                                \
    TILE(NAME, TYPE, 4)                                                                                                \
    static tile_fn *const tiles_##NAME[TILE_SIZES] = {tile_##NAME##_1, tile_##NAME##_2, tile_##NAME##_4};

/* As far as tiles go, Q5_K is as Q4_K. */
TILES(min_16, EL_TYPE_Q2_K)
TILES(min_32, EL_TYPE_Q4_K)
TILES(fours_16, EL_TYPE_Q3_K)
TILES(offset_16, EL_TYPE_Q6_K)
TILES(offset_32, EL_TYPE_IQ4_XS)

#define MATMUL(NAME, TYPE, KIND)                                                                                       \
    static NOINLINE __m512 one_##NAME(const uint8_t *const p[ROWS], const one_row *o) { return one_x(TYPE, p, o); }    \
    static NOINLINE void unpack_##NAME(strip *s, const uint8_t *const p[ROWS], size_t at) { unpack(TYPE, s, p, at); }  \
    static void matmul_##NAME(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,   \
                              size_t x_stride, int64_t n_x, int64_t k, void *scratch)                                  \
    {                                                                                                                  \
        matmul(TYPE, one_##NAME, unpack_##NAME, tiles_##KIND, y, ldy, w, row_bytes, n_rows, x, x_stride, n_x, k,       \
               scratch);                                                                                               \
    }
MATMUL(q2_k, EL_TYPE_Q2_K, min_16)
MATMUL(q3_k, EL_TYPE_Q3_K, fours_16)
MATMUL(q4_k, EL_TYPE_Q4_K, min_32)
MATMUL(q5_k, EL_TYPE_Q5_K, min_32)
MATMUL(q6_k, EL_TYPE_Q6_K, offset_16)
MATMUL(iq4_xs, EL_TYPE_IQ4_XS, offset_32)

void el_superblock_use_avx512(el_kernels *t)
{
    t->matmul[EL_TYPE_Q2_K] = matmul_q2_k;
    t->matmul[EL_TYPE_Q3_K] = matmul_q3_k;
    t->matmul[EL_TYPE_Q4_K] = matmul_q4_k;
    t->matmul[EL_TYPE_Q5_K] = matmul_q5_k;
    t->matmul[EL_TYPE_Q6_K] = matmul_q6_k;
    t->matmul[EL_TYPE_IQ4_XS] = matmul_iq4_xs;
}
