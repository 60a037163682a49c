/* floats_avx512.c - F32, F16 and BF16 weights: the 16 partial sums of the rule are one register, lanes run along K.
 * A tile of 4 weight rows by 4 activation rows loads 8 registers for 16 products. */
#include "lanes_avx512.h"

#include "blocks.h"
#include "mem.h"

/* Sums of a tile. Single loops of at most 16 are what gcc 12 unrolls early enough to keep arrays in registers. */
enum { MOST = 16 };

INLINE size_t element_bytes(int type) { return type == EL_TYPE_F32 ? 4 : 2; }

/* Weights i .. i + 15 as floats, those of `some`; nothing else is read. */
INLINE __m512 load_w(int type, const uint8_t *w, int64_t i, __mmask16 some)
{
    __m256i half;

    if (type == EL_TYPE_F32)
        return _mm512_maskz_loadu_ps(some, w + 4 * i);
    half = _mm256_maskz_loadu_epi16(some, w + 2 * i);
    return type == EL_TYPE_F16 ? _mm512_cvtph_ps(half)
                               : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* 16 steps along K. */
INLINE void step(int type, int n_w, int n_x, __m512 *sum, const uint8_t *w, size_t row_bytes, const uint8_t *x,
                 size_t x_stride, int64_t i, __mmask16 some)
{
    __m512 a[MOST];

    for (int r = 0; r < n_w; r++)
        a[r] = load_w(type, w + (size_t)r * row_bytes, i, some);
    for (int t = 0; t < n_w * n_x; t++)
        sum[t] =
            _mm512_fmadd_ps(a[t % n_w], _mm512_maskz_loadu_ps(some, x + (size_t)(t / n_w) * x_stride + 4 * i), sum[t]);
}

/* n_w weight rows times n_x activation rows, both known while compiling. */
INLINE void tile(int type, int n_w, int n_x, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes,
                 const uint8_t *x, size_t x_stride, int64_t k)
{
    __m512 sum[MOST];
    int64_t i = 0;

    for (int t = 0; t < n_w * n_x; t++)
        sum[t] = _mm512_setzero_ps();
    for (; i + 16 <= k; i += 16)
        step(type, n_w, n_x, sum, w, row_bytes, x, x_stride, i, 0xffff);
    if (i < k)
        step(type, n_w, n_x, sum, w, row_bytes, x, x_stride, i, el_first_lanes(k - i));
    for (int t = 0; t < n_w * n_x; t++)
        y[t / n_w * ldy + t % n_w] = el_fold_lanes(sum[t]);
}

/* All activation rows for n_w weight rows. */
INLINE void strip(int type, int n_w, int n_x_most, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes,
                  const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k)
{
    int64_t j = 0;

    for (; j + n_x_most <= n_x; j += n_x_most)
        tile(type, n_w, n_x_most, y + j * ldy, ldy, w, row_bytes, x + (size_t)j * x_stride, x_stride, k);
    for (; j < n_x; j++)
        tile(type, n_w, 1, y + j * ldy, ldy, w, row_bytes, x + (size_t)j * x_stride, x_stride, k);
}

INLINE void matmul(int type, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes, int64_t n_rows,
                   const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k)
{
    int64_t r = 0;

    for (; r + 4 <= n_rows; r += 4)
        strip(type, 4, 4, y + r, ldy, w + (size_t)r * row_bytes, row_bytes, x, x_stride, n_x, k);
    for (; r < n_rows; r++)
        strip(type, 1, 4, y + r, ldy, w + (size_t)r * row_bytes, row_bytes, x, x_stride, n_x, k);
}

#define MATMUL(NAME, TYPE)                                                                                             \
    static void matmul_##NAME(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,   \
                              size_t x_stride, int64_t n_x, int64_t k, void *scratch)                                  \
    {                                                                                                                  \
        (void)scratch;                                                                                                 \
        matmul(TYPE, y, ldy, w, row_bytes, n_rows, x, x_stride, n_x, k);                                               \
    }
MATMUL(f32, EL_TYPE_F32)
MATMUL(f16, EL_TYPE_F16)
MATMUL(bf16, EL_TYPE_BF16)

void el_floats_use_avx512(el_kernels *t)
{
    t->matmul[EL_TYPE_F32] = matmul_f32;
    t->matmul[EL_TYPE_F16] = matmul_f16;
    t->matmul[EL_TYPE_BF16] = matmul_bf16;
}
