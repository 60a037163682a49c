/* floats_neon.c - F32, F16 and BF16 weights: the 16 partial sums of the rule are four registers, lanes run along K.
 * Small tiles (weight rows by activation rows) share what is loaded; 24 of the 32 registers hold sums, on 32-bit ARM 8
 * of 16. */
#include "lanes_neon.h"

#include "blocks.h"

INLINE size_t element_bytes(int type) { return type == EL_TYPE_F32 ? 4 : 2; }

INLINE float32x4_t float_of_half(int type, uint16x4_t v)
{
    return type == EL_TYPE_F16 ? el_floats_of(v) : vreinterpretq_f32_u32(vshll_n_u16(v, 16));
}

/* n weights, 4 or 8 or 16, as floats. */
INLINE void load_some(int type, int n, float32x4_t v[4], const uint8_t *w)
{
    if (type != EL_TYPE_F32 && n == 4) {
        v[0] = float_of_half(type, vreinterpret_u16_u8(vld1_u8(w)));
        return;
    }
    EL_UNROLLED
    for (int i = 0; i < n / 4; i++) {
        const uint8x16_t bytes = vld1q_u8(w + (type == EL_TYPE_F32 ? 16 * i : i / 2 * 16));
        const uint16x8_t eight = vreinterpretq_u16_u8(bytes);
        if (type == EL_TYPE_F32)
            v[i] = vreinterpretq_f32_u8(bytes);
        else
            v[i] = float_of_half(type, i % 2 ? vget_high_u16(eight) : vget_low_u16(eight));
    }
}

/* Sums of n_w weight rows times n_x activation rows, both known while compiling. */
typedef struct sums {
    float32x4_t p[4][3][4];
} sums;

/* 16 weights of each row, starting i elements in; as many at once as clang 21 keeps in registers (F16 and 8 activation
 * rows: 0.53 instructions a product with 4 at once, 0.60 with 8). */
INLINE void add_16(int type, int n_w, int n_x, sums *s, const uint8_t *w, size_t row_bytes, const uint8_t *x,
                   size_t x_stride, ptrdiff_t i)
{
    const int n = n_x == 1 && (!EL_AARCH32 || type == EL_TYPE_F32) ? 16 : type == EL_TYPE_F32 ? 8 : 4;

    EL_UNROLLED
    for (int done = 0; done < 4; done += n / 4) {
        float32x4_t a[4][4];
        EL_UNROLLED
        for (int r = 0; r < n_w; r++)
            load_some(type, n, a[r], w + (size_t)r * row_bytes + (size_t)(i + 4 * done) * element_bytes(type));
        EL_UNROLLED
        for (int j = 0; j < n_x; j++) {
            float32x4_t b[4];
            load_some(EL_TYPE_F32, n, b, x + (size_t)j * x_stride + (size_t)(i + 4 * done) * sizeof(float));
            EL_UNROLLED
            for (int r = 0; r < n_w; r++) {
                EL_UNROLLED
                for (int l = 0; l < n / 4; l++)
                    s->p[r][j][done + l] = vfmaq_f32(s->p[r][j][done + l], a[r][l], b[l]);
            }
        }
    }
}

INLINE void tile(int type, int n_w, int n_x, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes,
                 const uint8_t *x, size_t x_stride, int64_t k)
{
    const size_t whole = (size_t)k / 16 * 16, rest = (size_t)k - whole, bytes = element_bytes(type);
    ptrdiff_t i = 0;
    sums s;

    memset(&s, 0, sizeof s);
    for (; i + 32 <= (ptrdiff_t)whole; i += 32) { /* twice: addresses are half as much work */
        add_16(type, n_w, n_x, &s, w, row_bytes, x, x_stride, i);
        add_16(type, n_w, n_x, &s, w, row_bytes, x, x_stride, i + 16);
    }
    if (i < (ptrdiff_t)whole)
        add_16(type, n_w, n_x, &s, w, row_bytes, x, x_stride, i);
    if (rest) { /* padded with zeros on both sides; nothing past the rows is read */
        uint8_t w_rest[4][64] = {{0}};
        float x_rest[3][16] = {{0}};
        EL_UNROLLED
        for (int r = 0; r < n_w; r++)
            memcpy(w_rest[r], w + (size_t)r * row_bytes + whole * bytes, rest * bytes);
        EL_UNROLLED
        for (int j = 0; j < n_x; j++)
            memcpy(x_rest[j], x + (size_t)j * x_stride + whole * sizeof(float), rest * sizeof(float));
        add_16(type, n_w, n_x, &s, w_rest[0], sizeof w_rest[0], (const uint8_t *)x_rest[0], sizeof x_rest[0], 0);
    }
    EL_UNROLLED
    for (int r = 0; r < n_w; r++) {
        EL_UNROLLED
        for (int j = 0; j < n_x; j++)
            y[j * ldy + r] = el_fold_lanes(s.p[r][j]);
    }
    if (el_met_subnormals()) {
        el_kernels_named("ref")->matmul[type](y, ldy, w, row_bytes, n_w, x, x_stride, n_x, k, NULL);
        el_watch_subnormals();
    }
}

/* All activation rows for n_w weight rows. */
INLINE void strip(int type, int n_w, int n_x_most, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes,
                  const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k)
{
    int64_t j = 0;

    for (; j + n_x_most <= n_x; j += n_x_most)
        tile(type, n_w, n_x_most, y + j * ldy, ldy, w, row_bytes, x + (size_t)j * x_stride, x_stride, k);
    if (n_x_most > 2 && j + 2 == n_x) {
        tile(type, n_w, 2, y + j * ldy, ldy, w, row_bytes, x + (size_t)j * x_stride, x_stride, k);
        return;
    }
    for (; j < n_x; j++)
        tile(type, n_w, 1, y + j * ldy, ldy, w, row_bytes, x + (size_t)j * x_stride, x_stride, k);
}

INLINE void matmul(int type, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes, int64_t n_rows,
                   const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k)
{
    int64_t r = 0;

    el_watch_subnormals();
    if (n_x == 1 && !EL_AARCH32)
        for (; r + 4 <= n_rows; r += 4)
            strip(type, 4, 1, y + r, ldy, w + (size_t)r * row_bytes, row_bytes, x, x_stride, n_x, k);
    for (; r + 2 <= n_rows; r += 2)
        strip(type, 2, EL_AARCH32 ? 1 : 3, y + r, ldy, w + (size_t)r * row_bytes, row_bytes, x, x_stride, n_x, k);
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

void el_floats_use_neon(el_kernels *t)
{
    t->matmul[EL_TYPE_F32] = matmul_f32;
    t->matmul[EL_TYPE_F16] = matmul_f16;
    t->matmul[EL_TYPE_BF16] = matmul_bf16;
}
