/* floats_avx2.c - F32, F16 and BF16 weights: the 16 partial sums of the rule are two registers, lanes run along K.
 * Small tiles (weight rows by activation rows) share what is loaded. */
#include "lanes_avx2.h"

#include "blocks.h"
#include "mem.h"

INLINE size_t element_bytes(int type) { return type == EL_TYPE_F32 ? 4 : 2; }

INLINE __m256 widen(int type, __m128i v)
{
    return type == EL_TYPE_F16 ? _mm256_cvtph_ps(v)
                               : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

/* Weights i .. i + 7 as floats. */
INLINE __m256 load_8(int type, const uint8_t *w, int64_t i)
{
    if (type == EL_TYPE_F32)
        return _mm256_loadu_ps((const float *)(w + 4 * i));
    return widen(type, _mm_loadu_si128((const __m128i *)(w + 2 * i)));
}

/* The first n of them, 0 after; nothing past them is read. */
INLINE __m256 load_some(int type, const uint8_t *w, int64_t i, int64_t n)
{
    uint8_t bytes[32] = {0};

    if (n <= 0)
        return _mm256_setzero_ps();
    memcpy(bytes, w + (size_t)i * element_bytes(type), (size_t)EL_MIN(n, 8) * element_bytes(type));
    return load_8(type, bytes, 0);
}

INLINE __m256 load_x(const float *x, int64_t i, int64_t n)
{
    return n > 0 ? el_load_lanes(x + i, n) : _mm256_setzero_ps();
}

/* n_w weight rows times n_x activation rows, both known while compiling. */
INLINE void tile(int type, int n_w, int n_x, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes,
                 const uint8_t *x, size_t x_stride, int64_t k)
{
    __m256 p[4][3], q[4][3];
    int64_t i = 0;

    for (int r = 0; r < n_w; r++)
        for (int j = 0; j < n_x; j++)
            p[r][j] = q[r][j] = _mm256_setzero_ps();
    for (; i + 16 <= k; i += 16)
        for (int r = 0; r < n_w; r++) {
            const __m256 a = load_8(type, w + (size_t)r * row_bytes, i);
            const __m256 b = load_8(type, w + (size_t)r * row_bytes, i + 8);
            for (int j = 0; j < n_x; j++) {
                const float *row = (const float *)(x + (size_t)j * x_stride) + i;
                p[r][j] = _mm256_fmadd_ps(a, _mm256_loadu_ps(row), p[r][j]);
                q[r][j] = _mm256_fmadd_ps(b, _mm256_loadu_ps(row + 8), q[r][j]);
            }
        }
    if (i < k)
        for (int r = 0; r < n_w; r++) {
            const __m256 a = load_some(type, w + (size_t)r * row_bytes, i, k - i);
            const __m256 b = load_some(type, w + (size_t)r * row_bytes, i + 8, k - i - 8);
            for (int j = 0; j < n_x; j++) {
                const float *row = (const float *)(x + (size_t)j * x_stride);
                p[r][j] = _mm256_fmadd_ps(a, load_x(row, i, k - i), p[r][j]);
                q[r][j] = _mm256_fmadd_ps(b, load_x(row, i + 8, k - i - 8), q[r][j]);
            }
        }
    for (int r = 0; r < n_w; r++)
        for (int j = 0; j < n_x; j++)
            y[j * ldy + r] = el_fold_lanes(p[r][j], q[r][j]);
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

    if (n_x == 1)
        for (; r + 4 <= n_rows; r += 4)
            strip(type, 4, 1, y + r, ldy, w + (size_t)r * row_bytes, row_bytes, x, x_stride, n_x, k);
    for (; r + 2 <= n_rows; r += 2)
        strip(type, 2, 3, y + r, ldy, w + (size_t)r * row_bytes, row_bytes, x, x_stride, n_x, k);
    for (; r < n_rows; r++)
        strip(type, 1, 3, y + r, ldy, w + (size_t)r * row_bytes, row_bytes, x, x_stride, n_x, k);
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

void el_floats_use_avx2(el_kernels *t)
{
    t->matmul[EL_TYPE_F32] = matmul_f32;
    t->matmul[EL_TYPE_F16] = matmul_f16;
    t->matmul[EL_TYPE_BF16] = matmul_bf16;
}
