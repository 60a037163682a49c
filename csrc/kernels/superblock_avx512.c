/* superblock_avx512.c - weights in super-blocks of 256 times activations, sixteen weight rows in sixteen lanes.
 *
 * One activation row: superblock_one_avx512.h. More: the bytes of sixteen rows are transposed once per super-block (row
 * r in lane r) and every activation row is multiplied from memory, four bytes for all lanes (vpdpbusd with a
 * broadcast). */
#include "superblock_one_avx512.h"

enum { X_CHUNK = 64, X_TILE = 8 };

/* The float steps: `total` from the products, `less` from the minima. */
INLINE __m512 step(int type, __m512 acc, __m512i total, __m512i less, __m512 d, __m512 dmin, float d_x)
{
    const __m512 dx = _mm512_set1_ps(d_x);

    if (is_times_four(type))
        total = _mm512_srai_epi32(total, 2);
    acc = _mm512_fmadd_ps(_mm512_mul_ps(d, dx), _mm512_cvtepi32_ps(total), acc);
    return has_min(type) ? _mm512_fnmadd_ps(_mm512_mul_ps(dmin, dx), _mm512_cvtepi32_ps(less), acc) : acc;
}

INLINE void prefetch_ahead(int type, const uint8_t *ahead)
{
    for (size_t line = 0; line < ROWS * block_bytes(type); line += 64)
        _mm_prefetch((const char *)(ahead + line), _MM_HINT_T0);
}

/* ---- several activation rows ---------------------------------------------------------- */

/* A super-block of sixteen rows, row r in lane r. */
typedef struct strip {
    __m512i w[64];     /* four bytes of weights */
    __m512i scale[16]; /* int32 */
    __m512i pair[8];   /* int16 pairs of neighbouring groups: minima, or minus offset times scale */
    __m512 d, dmin;
} strip;

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

/* Groups of 16: g belongs to register g % 8 / 2 in Q3_K. */
INLINE __m512i minus_offset(int type, int g, __m512i scale)
{
    const int less = type == EL_TYPE_Q3_K && g % 4 / 2 ? 4 * offset(type) : offset(type);

    return _mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), scale), less == 4    ? 2
                                                                              : less == 16 ? 4
                                                                              : less == 32 ? 5
                                                                                           : 7);
}

INLINE void strip_scales(int type, strip *s, const heads *h)
{
    __m512i t[4], m[4];

    s->d = h->d;
    s->dmin = has_min(type) ? h->dmin : h->d;
    transpose_dwords(t, h->scales);
    if (type == EL_TYPE_Q2_K)
        transpose_dwords(m, h->mins);
    for (int g = 0; g < 256 / group_size(type); g += 2) {
        s->scale[g] = byte_of(t, g, !has_min(type));
        s->scale[g + 1] = byte_of(t, g + 1, !has_min(type));
        if (type == EL_TYPE_Q2_K)
            s->pair[g / 2] = pair_of(byte_of(m, g, false), byte_of(m, g + 1, false));
        else if (has_min(type))
            s->pair[g / 2] = pair_of(byte_of(t, 8 + g, false), byte_of(t, 9 + g, false));
        else
            s->pair[g / 2] = pair_of(minus_offset(type, g, s->scale[g]), minus_offset(type, g, s->scale[g + 1]));
    }
}

/* Register z of sixteen rows to its places in the strip, row r in lane r; without high bits, all that share bytes with
 * it at once: transposing the file's bytes serves every z made of them. */
#define TRANSPOSE(Z)                                                                                                   \
    do {                                                                                                               \
        __m512i v[16], t[4], u[16];                                                                                    \
        for (int r = 0; r < 16; r++)                                                                                   \
            v[r] = has_high(type) ? weights(type, Z, p[r] + at) : low_bytes(type, Z, p[r] + at);                       \
        for (int l = 0; l < 4; l++) {                                                                                  \
            transpose_dwords(t, v + 4 * l);                                                                            \
            for (int i = 0; i < 4; i++)                                                                                \
                u[4 * i + l] = t[i];                                                                                   \
        }                                                                                                              \
        for (int i = 0; i < 4; i++) {                                                                                  \
            transpose_quarters(t, u + 4 * i);                                                                          \
            for (int l = 0; l < 4; l++)                                                                                \
                if (has_high(type)) {                                                                                  \
                    s->w[x_at(type, Z, l) / 4 + i] = t[l];                                                             \
                } else {                                                                                               \
                    s->w[x_at(type, Z, l) / 4 + i] = low_bits(type, Z, t[l]);                                          \
                    s->w[x_at(type, (Z) + 1, l) / 4 + i] = low_bits(type, (Z) + 1, t[l]);                              \
                    if (type == EL_TYPE_Q2_K) {                                                                        \
                        s->w[x_at(type, 2, l) / 4 + i] = low_bits(type, 2, t[l]);                                      \
                        s->w[x_at(type, 3, l) / 4 + i] = low_bits(type, 3, t[l]);                                      \
                    }                                                                                                  \
                }                                                                                                      \
        }                                                                                                              \
    } while (0)

INLINE void unpack(int type, strip *s, const uint8_t *const p[ROWS], size_t at)
{
    heads h;

    heads_at(type, &h, p, at);
    strip_scales(type, s, &h);
    TRANSPOSE(0);
    if (type != EL_TYPE_Q2_K)
        TRANSPOSE(2);
    if (has_high(type)) {
        TRANSPOSE(1);
        TRANSPOSE(3);
    }
}

INLINE __m512i four(const void *p)
{
    int32_t v;

    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

INLINE __m512i pairs_sum(int type, const strip *s, sums x, int64_t b)
{
    const int16_t *sum = group_size(type) == 16 ? x.sum16 + 16 * b : x.sum32 + 8 * b;
    __m512i total = _mm512_setzero_si512();

    for (int g = 0; g < 128 / group_size(type); g++)
        total = _mm512_dpwssd_epi32(total, s->pair[g], four(sum + 2 * g));
    return total;
}

/* Super-block b of n activation rows. */
INLINE void tile(int type, int n, __m512 *acc, const strip *s, const uint8_t *x, size_t x_stride, int64_t k, int64_t b)
{
    const int fours = group_size(type) / 4;
    const uint8_t *q = x + 256 * b;
    __m512i total[X_TILE], less[X_TILE];

    for (int j = 0; j < n; j++) {
        less[j] = pairs_sum(type, s, sums_of(x + (size_t)j * x_stride, k), b);
        total[j] = has_min(type) ? _mm512_setzero_si512() : less[j];
    }
    for (int g = 0; g < 256 / group_size(type); g++, q += group_size(type)) {
        __m512i sum[X_TILE];
        for (int j = 0; j < n; j++)
            sum[j] = _mm512_setzero_si512();
        for (int i = 0; i < fours; i++)
            for (int j = 0; j < n; j++)
                sum[j] = _mm512_dpbusd_epi32(sum[j], s->w[fours * g + i], four(q + (size_t)j * x_stride + 4 * i));
        for (int j = 0; j < n; j++)
            total[j] = _mm512_add_epi32(total[j], _mm512_mullo_epi32(sum[j], s->scale[g]));
    }
    for (int j = 0; j < n; j++)
        acc[j] = step(type, acc[j], total[j], less[j], s->d, s->dmin, sums_of(x + (size_t)j * x_stride, k).d[b]);
}

/* ---- all rows ------------------------------------------------------------------------- */

typedef __m512 one_fn(const uint8_t *const p[ROWS], const one_row *o);
typedef void unpack_fn(strip *s, const uint8_t *const p[ROWS], size_t at);
typedef void tile_fn(__m512 *acc, const strip *s, const uint8_t *x, size_t x_stride, int64_t k, int64_t b);

INLINE void several_x(int type, unpack_fn *unpack_rows, tile_fn *const tiles[4], __m512 *acc,
                      const uint8_t *const p[ROWS], const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k,
                      const uint8_t *ahead)
{
    strip s;
    size_t at = 0;

    for (int64_t j = 0; j < n_x; j++)
        acc[j] = _mm512_setzero_ps();
    for (int64_t b = 0; b < k / 256; b++, at += block_bytes(type)) {
        int64_t j = 0;
        prefetch_ahead(type, ahead + ROWS * at);
        unpack_rows(&s, p, at);
        for (; j + X_TILE <= n_x; j += X_TILE)
            tiles[3](acc + j, &s, x + (size_t)j * x_stride, x_stride, k, b);
        for (int i = 2; i >= 0; i--)
            if (n_x - j >= 1 << i) {
                tiles[i](acc + j, &s, x + (size_t)j * x_stride, x_stride, k, b);
                j += 1 << i;
            }
    }
}

INLINE void matmul(int type, one_fn *one, unpack_fn *unpack_rows, tile_fn *const tiles[4], float *y, int64_t ldy,
                   const uint8_t *w, size_t row_bytes, int64_t n_rows, const uint8_t *x, size_t x_stride, int64_t n_x,
                   int64_t k, void *scratch)
{
    const uint8_t *p[ROWS];
    __m512 acc[X_CHUNK];
    one_row o;

    for (int64_t first = 0; first < n_x; first += X_CHUNK) {
        const int64_t n = EL_MIN(n_x - first, (int64_t)X_CHUNK);
        if (n == 1)
            prepare_one(type, &o, x + (size_t)first * x_stride, k, scratch);
        for (int64_t row = 0; row < n_rows; row += ROWS) {
            const uint8_t *ahead = w + (size_t)(row + ROWS) * row_bytes;
            row_pointers(p, w, row_bytes, row, n_rows);
            if (n == 1)
                acc[0] = one(p, &o);
            else
                several_x(type, unpack_rows, tiles, acc, p, x + (size_t)first * x_stride, x_stride, n, k, ahead);
            for (int64_t j = 0; j < n; j++)
                store_lanes(y + (first + j) * ldy + row, acc[j], n_rows - row);
        }
    }
}

#define TILE(NAME, TYPE, N)                                                                                            \
    static void tile_##NAME##_##N(__m512 *acc, const strip *s, const uint8_t *x, size_t x_stride, int64_t k,           \
                                  int64_t b)                                                                           \
    {                                                                                                                  \
        tile(TYPE, N, acc, s, x, x_stride, k, b);                                                                      \
    }
#define TILES(NAME, TYPE)                                                                                              \
    TILE(NAME, TYPE, 1)                                                                                                \
    TILE(NAME, TYPE, 2)                                                                                                \
    TILE(NAME, TYPE, 4)                                                                                                \
    TILE(NAME, TYPE, 8)                                                                                                \
    static tile_fn *const tiles_##NAME[4] = {tile_##NAME##_1, tile_##NAME##_2, tile_##NAME##_4, tile_##NAME##_8};

/* As far as tiles go, Q5_K is as Q4_K. */
TILES(min_16, EL_TYPE_Q2_K)
TILES(min_32, EL_TYPE_Q4_K)
TILES(fours_16, EL_TYPE_Q3_K)
TILES(offset_16, EL_TYPE_Q6_K)
TILES(offset_32, EL_TYPE_IQ4_XS)

#define NOINLINE __attribute__((noinline))
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
