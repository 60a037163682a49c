/* matmul_avx512.c - weights in blocks of 32 times activations, sixteen weight rows in sixteen lanes.
 *
 * One activation row: eight weight rows by two neighbouring blocks, multiplied along K as they lie in the file, then
 * folded into sixteen lanes. (Sixteen rows transposed were slower: more loads, and twice the lines between a prefetch
 * and its use.) Short rows of Q8_0: q8_0_row_avx512.h.
 * More: strips_avx512.h. */
#include "strips_avx512.h"

#include "q8_0_row_avx512.h"

_Static_assert(sizeof(workspace) <= 40960, "el_matmul_scratch gives less");

enum { PAIR_ROWS = 8 };

/* ---- one activation row --------------------------------------------------------------- */

/* Lanes 0 to 7 are eight rows in one block, lanes 8 to 15 the same rows in another, `apart` bytes further. */
INLINE void pair_pointers(const uint8_t *pair[ROWS], const uint8_t *const p[PAIR_ROWS], size_t apart)
{
    for (int r = 0; r < PAIR_ROWS; r++) {
        pair[r] = p[r];
        pair[r + PAIR_ROWS] = p[r] + apart;
    }
}

INLINE __m512i in_halves(int32_t low, int32_t high)
{
    return _mm512_mask_blend_epi32(0xff00, _mm512_set1_epi32(low), _mm512_set1_epi32(high));
}

INLINE __m512 float_halves(float low, float high)
{
    return _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(low), _mm512_set1_ps(high));
}

INLINE __m512i fifth_bits(__m512i w, __m512i header, int byte)
{
    const __m128i first = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i spread =
        _mm512_shuffle_epi8(header, _mm512_broadcast_i32x4(_mm_add_epi8(first, _mm_set1_epi8((char)byte))));
    const __mmask64 set = _mm512_test_epi8_mask(spread, _mm512_set1_epi64((int64_t)0x8040201008040201u));

    return _mm512_mask_add_epi8(w, set, w, _mm512_set1_epi8(16));
}

INLINE __m512i dot_nibbles(int type, const uint8_t *const pair[ROWS], size_t at, __m512i x)
{
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i x_low = _mm512_shuffle_i32x4(x, x, 0xa0), x_high = _mm512_shuffle_i32x4(x, x, 0xf5);
    __m512i sums[4];

    for (int i = 0; i < 4; i++) {
        const __m512i v = four_rows(pair[i] + at, pair[i + 4] + at, pair[i + 8] + at, pair[i + 12] + at);
        __m512i low = look_up(type, _mm512_and_si512(v, nibble));
        __m512i high = look_up(type, _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble));
        if (has_fifth(type)) { /* the first of the 16 bytes from there on */
            const size_t bits = at - 4;
            const __m512i header =
                four_rows(pair[i] + bits, pair[i + 4] + bits, pair[i + 8] + bits, pair[i + 12] + bits);
            low = fifth_bits(low, header, 0);
            high = fifth_bits(high, header, 2);
        }
        sums[i] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), low, x_low), high, x_high);
    }
    return fold_quarters(sums);
}

INLINE __m512i dot_bytes(const uint8_t *const pair[ROWS], size_t at, __m512i x)
{
    __m512i sums[PAIR_ROWS];

    for (int r = 0; r < PAIR_ROWS; r++)
        sums[r] = dot_two(pair[r] + at, pair[r + PAIR_ROWS] + at, x);
    return fold_halves(sums);
}

INLINE __m256 high_half(__m512 v) { return _mm512_extractf32x8_ps(v, 1); }

/* The sums of eight rows, by two blocks: the one at b, then, unless it is the last, the one behind it. */
INLINE __m256 add_pair(int type, __m256 acc, const uint8_t *const p[PAIR_ROWS], size_t at, const uint8_t *x, int64_t k,
                       int64_t b, int more)
{
    const float *d = (const float *)(x + el_act32_d(k)) + b, *s = (const float *)(x + el_act32_s(k)) + b;
    const int32_t *sum8 = (const int32_t *)(x + el_act32_sum8(k)) + b;
    const __m512i q = two_rows(x + 32 * b, x + 32 * (b + more));
    const uint8_t *pair[ROWS];
    __m512 scale, sum, s_x;
    __m512i i;
    row_scales w;

    pair_pointers(pair, p, (size_t)more * block_bytes(type));
    w = scales_at(type, pair, at);
    i = type == EL_TYPE_Q8_0 ? dot_bytes(pair, at + quants_at(type), q)
                             : dot_nibbles(type, pair, at + quants_at(type), q);
    scale = _mm512_mul_ps(w.d, float_halves(d[0], d[more]));
    sum = _mm512_cvtepi32_ps(less_offset(type, i, in_halves(sum8[0], sum8[more])));
    s_x = has_min(type) ? float_halves(s[0], s[more]) : _mm512_setzero_ps();
    acc = _mm256_fmadd_ps(_mm512_castps512_ps256(scale), _mm512_castps512_ps256(sum), acc);
    if (has_min(type))
        acc = _mm256_fmadd_ps(_mm512_castps512_ps256(w.m), _mm512_castps512_ps256(s_x), acc);
    if (!more)
        return acc;
    acc = _mm256_fmadd_ps(high_half(scale), high_half(sum), acc);
    return has_min(type) ? _mm256_fmadd_ps(high_half(w.m), high_half(s_x), acc) : acc;
}

INLINE __m256 gemv_8(int type, const uint8_t *const p[PAIR_ROWS], const uint8_t *x, int64_t k, const uint8_t *ahead)
{
    const int64_t n = k / 32;
    __m256 acc = _mm256_setzero_ps();
    size_t at = 0;

    for (int64_t b = 0; b + 1 < n; b += 2, at += 2 * block_bytes(type)) {
        for (size_t line = 0; line < 2 * PAIR_ROWS * block_bytes(type); line += 64)
            _mm_prefetch((const char *)(ahead + PAIR_ROWS * at + line), _MM_HINT_T0);
        acc = add_pair(type, acc, p, at, x, k, b, 1);
    }
    return n % 2 ? add_pair(type, acc, p, at, x, k, n - 1, 0) : acc;
}

/* ---- all rows ------------------------------------------------------------------------- */

INLINE void matmul(int type, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes, int64_t n_rows,
                   const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k, void *scratch)
{
    const uint8_t *p[ROWS];

    if (n_x == 1) {
        for (int64_t row = type == EL_TYPE_Q8_0 ? stream_rows(y, w, row_bytes, n_rows, x, k) : 0; row < n_rows;
             row += ROWS) {
            row_pointers(p, w, row_bytes, row, n_rows);
            for (int64_t r = row; r < EL_MIN(row + ROWS, n_rows); r += PAIR_ROWS) {
                const __m256 sums =
                    gemv_8(type, p + (r - row), x, k, w + (size_t)(r + rows_ahead(PAIR_ROWS, row_bytes)) * row_bytes);
                store_lanes(y + r, _mm512_castps256_ps512(sums), EL_MIN(n_rows - r, (int64_t)PAIR_ROWS));
            }
        }
        return;
    }
    for (int64_t first = 0; first < n_x; first += X_CHUNK)
        matmul_chunk(type, y + first * ldy, ldy, w, row_bytes, n_rows, x + (size_t)first * x_stride, x_stride,
                     EL_MIN(n_x - first, (int64_t)X_CHUNK), k, scratch);
}

#define MATMUL(NAME, TYPE)                                                                                             \
    static void matmul_##NAME(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,   \
                              size_t x_stride, int64_t n_x, int64_t k, void *scratch)                                  \
    {                                                                                                                  \
        matmul(TYPE, y, ldy, w, row_bytes, n_rows, x, x_stride, n_x, k, scratch);                                      \
    }
MATMUL(q4_0, EL_TYPE_Q4_0)
MATMUL(q4_1, EL_TYPE_Q4_1)
MATMUL(q5_0, EL_TYPE_Q5_0)
MATMUL(q5_1, EL_TYPE_Q5_1)
MATMUL(wide_q8_0, EL_TYPE_Q8_0)
MATMUL(iq4_nl, EL_TYPE_IQ4_NL)
MATMUL(mxfp4, EL_TYPE_MXFP4)

/* One activation row of Q8_0 times long weight rows: memory decides, and 256-bit code asks it in an order that brings 4
 * to 13 % more (two threads, 8192 x 2048 and 2048 x 8192, from a buffer beyond all caches). */
static el_matmul_fn *long_row_q8_0;

static void matmul_q8_0(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,
                        size_t x_stride, int64_t n_x, int64_t k, void *scratch)
{
    (n_x == 1 && k > 1024 ? long_row_q8_0 : matmul_wide_q8_0)(y, ldy, w, row_bytes, n_rows, x, x_stride, n_x, k,
                                                              scratch);
}

void el_matmul_use_avx512(el_kernels *t)
{
    long_row_q8_0 = t->matmul[EL_TYPE_Q8_0]; /* the table holds what narrower instruction sets bring */
    t->matmul[EL_TYPE_Q4_0] = matmul_q4_0;
    t->matmul[EL_TYPE_Q4_1] = matmul_q4_1;
    t->matmul[EL_TYPE_Q5_0] = matmul_q5_0;
    t->matmul[EL_TYPE_Q5_1] = matmul_q5_1;
    t->matmul[EL_TYPE_Q8_0] = matmul_q8_0;
    t->matmul[EL_TYPE_IQ4_NL] = matmul_iq4_nl;
    t->matmul[EL_TYPE_MXFP4] = matmul_mxfp4;
}
