/* floats_neon.c - F32, F16 and BF16 weights: the 16 partial sums of the rule are four registers, lanes run along K.
 * Small tiles (weight rows by activation rows) share what is loaded; 24 of the 32 registers hold sums, on 32-bit ARM 8
 * of 16. */
#include "lanes_neon.h"

#include "blocks.h"

INLINE size_t element_bytes(int type) { return type == EL_TYPE_F32 ? 4 : 2; }

/* Weights i .. i + 3 as floats. */
INLINE float32x4_t load_4(int type, const uint8_t *w, ptrdiff_t i)
{
    uint16x4_t v;

    if (type == EL_TYPE_F32)
        return vreinterpretq_f32_u8(vld1q_u8(w + 4 * i));
    v = vreinterpret_u16_u8(vld1_u8(w + 2 * i));
    return type == EL_TYPE_F16 ? el_floats_of(v) : vreinterpretq_f32_u32(vshll_n_u16(v, 16));
}

/* Sums of n_w weight rows times n_x activation rows, both known while compiling. */
typedef struct sums {
    float32x4_t p[4][3][4];
} sums;

/* 16 weights of each row, starting i elements in. */
INLINE void add_16(int type, int n_w, int n_x, sums *s, const uint8_t *w, size_t row_bytes, const uint8_t *x,
                   size_t x_stride, ptrdiff_t i)
{
    EL_UNROLLED
    for (int l = 0; l < 4; l++) {
        float32x4_t a[4];
        EL_UNROLLED
        for (int r = 0; r < n_w; r++)
            a[r] = load_4(type, w + (size_t)r * row_bytes, i + 4 * l);
        EL_UNROLLED
        for (int j = 0; j < n_x; j++) {
            const float32x4_t b = vld1q_f32((const float *)(x + (size_t)j * x_stride) + i + 4 * l);
            EL_UNROLLED
            for (int r = 0; r < n_w; r++)
                s->p[r][j][l] = vfmaq_f32(s->p[r][j][l], a[r], b);
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
