/* matmul_lanes_256.h - weights in blocks of 32 times activations, eight weight rows in eight lanes. The body of
 * matmul_avx2.c and matmul_avxvnni.c, which define the integer steps first:
 *
 *   UNSIGNED_BYTES              1: Q8_0 and IQ4_NL are multiplied as unsigned bytes, 128 too large; 0: signed
 *   run_of(type)                how many steps of four weights a lane may add up before add_run
 *   products(type, sum, w, x)   sum plus, in each lane, four weights times four activations
 *   add_run(type, total, sum)   total, int32, plus what products() added up
 *   by_strips(type, n_x)        see strips_256.h
 *   fold_rows(type, v)          v[i]: products() of two steps, row i in the low half and row 4 + i in the high one; the
 *                               eight rows' sums
 *
 * One activation row: each weight row is multiplied along K as it lies in the file, and eight such products are folded
 * into one register of eight sums by a tree of blends, so the file is read once, in order, without a copy.
 * More activation rows: see strips_256.h.
 * Idea of the transposing fold: the "hadd tree" common in BLAS microkernels; here with blends, since vphaddd is 3
 * uops. */
#include "rows_in_lanes_avx2.h"

#include "block_traits.h"

/* ---- what the types differ in: known while compiling, so every branch on it disappears ---- */

/* Nibbles to what is multiplied: MXFP4 plus 12, so that it is unsigned. */
INLINE __m256i look_up(int type, __m256i v)
{
    const __m128i mxfp4 = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);

    if (type == EL_TYPE_MXFP4)
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(mxfp4), v);
    if (type == EL_TYPE_IQ4_NL)
        return _mm256_shuffle_epi8(iq4_values(UNSIGNED_BYTES), v);
    return v;
}

INLINE __m256i bytes_of(__m256i v) { return UNSIGNED_BYTES ? _mm256_xor_si256(v, _mm256_set1_epi8(-128)) : v; }

typedef struct row_scales {
    __m256 d, m;
} row_scales;

INLINE row_scales scales_at(int type, const uint8_t *const p[ROWS], size_t at)
{
    row_scales s = {_mm256_setzero_ps(), _mm256_setzero_ps()};

    if (has_min(type)) {
        split_f16(gather_32(p, at), &s.d, &s.m);
    } else if (type == EL_TYPE_MXFP4) {
        s.d = _mm256_setr_ps(el_e8m0_half(p[0][at]), el_e8m0_half(p[1][at]), el_e8m0_half(p[2][at]),
                             el_e8m0_half(p[3][at]), el_e8m0_half(p[4][at]), el_e8m0_half(p[5][at]),
                             el_e8m0_half(p[6][at]), el_e8m0_half(p[7][at]));
    } else {
        s.d = gather_f16(p, at);
    }
    return s;
}

/* The integer sum of a block less what made its weights unsigned. */
INLINE __m256i less_offset(int type, __m256i sum, int32_t sum8)
{
    const __m256i v = _mm256_set1_epi32(sum8);

    if (type == EL_TYPE_Q4_0)
        return _mm256_sub_epi32(sum, v);
    if (type == EL_TYPE_Q5_0)
        return _mm256_sub_epi32(sum, _mm256_slli_epi32(v, 1));
    if (type == EL_TYPE_MXFP4)
        return _mm256_sub_epi32(sum, _mm256_add_epi32(v, _mm256_srai_epi32(v, 1)));
    if (UNSIGNED_BYTES && (type == EL_TYPE_Q8_0 || type == EL_TYPE_IQ4_NL))
        return _mm256_sub_epi32(sum, _mm256_slli_epi32(v, 4));
    return sum;
}

/* The float steps of a block. */
INLINE __m256 step(int type, __m256 acc, __m256i sum, row_scales w, float d, float s)
{
    acc = _mm256_fmadd_ps(_mm256_mul_ps(w.d, _mm256_set1_ps(d)), _mm256_cvtepi32_ps(sum), acc);
    return has_min(type) ? _mm256_fmadd_ps(w.m, _mm256_set1_ps(s), acc) : acc;
}

typedef struct act_parts { /* of one activation row */
    const uint8_t *q;
    const float *d, *s;
    const int32_t *sum8;
} act_parts;

INLINE act_parts parts_of(const uint8_t *x, int64_t k)
{
    return (act_parts){x, (const float *)(x + el_act32_d(k)), (const float *)(x + el_act32_s(k)),
                       (const int32_t *)(x + el_act32_sum8(k))};
}

/* ---- one activation row --------------------------------------------------------------- */

INLINE __m256i fifth_bits(__m256i header, int byte)
{
    const int b = byte, c = byte + 1; /* within the 16 bytes of each half */
    const __m256i spread = _mm256_shuffle_epi8(
        header, _mm256_setr_epi8((char)b, (char)b, (char)b, (char)b, (char)b, (char)b, (char)b, (char)b, (char)c,
                                 (char)c, (char)c, (char)c, (char)c, (char)c, (char)c, (char)c, (char)b, (char)b,
                                 (char)b, (char)b, (char)b, (char)b, (char)b, (char)b, (char)c, (char)c, (char)c,
                                 (char)c, (char)c, (char)c, (char)c, (char)c));
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201u);

    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit), _mm256_set1_epi8(16));
}

/* A block of two rows times x: row a in the low half, row b in the high one. */
INLINE __m256i dot_two_rows(int type, const uint8_t *a, const uint8_t *b, __m256i x_low, __m256i x_high)
{
    const __m256i v = two_rows(a + quants_at(type), b + quants_at(type));
    __m256i low, high;

    if (type == EL_TYPE_Q8_0) {
        low = bytes_of(v);
        high = bytes_of(two_rows(a + quants_at(type) + 16, b + quants_at(type) + 16));
    } else {
        low = look_up(type, low_nibbles(v));
        high = look_up(type, high_nibbles(v));
    }
    if (has_fifth(type)) { /* the 16 bytes before the last four nibble bytes' end hold the 32 bits */
        const size_t at = quants_at(type) - 4;
        const __m256i header = two_rows(a + at, b + at);
        low = _mm256_or_si256(low, fifth_bits(header, 0));
        high = _mm256_or_si256(high, fifth_bits(header, 2));
    }
    return products(type, products(type, _mm256_setzero_si256(), low, x_low), high, x_high);
}

INLINE __m256i block_sums(int type, const uint8_t *const p[ROWS], size_t at, const uint8_t *q)
{
    const __m256i x_low = _mm256_broadcastsi128_si256(load16(q)), x_high = _mm256_broadcastsi128_si256(load16(q + 16));
    __m256i v[4];

    for (int i = 0; i < 4; i++)
        v[i] = dot_two_rows(type, p[i] + at, p[i + 4] + at, x_low, x_high);
    return fold_rows(type, v);
}

INLINE __m256 gemv_8(int type, const uint8_t *const p[ROWS], const uint8_t *x, int64_t k, const uint8_t *ahead)
{
    const act_parts in = parts_of(x, k);
    __m256 acc = _mm256_setzero_ps();
    size_t at = 0;

    for (int64_t b = 0; b < k / 32; b++, at += block_bytes(type)) {
        const row_scales w = scales_at(type, p, at);
        const __m256i sum = less_offset(type, block_sums(type, p, at, x + 32 * b), in.sum8[b]);
        for (size_t line = 0; line < ROWS * block_bytes(type); line += 64)
            _mm_prefetch((const char *)(ahead + ROWS * at + line), _MM_HINT_T0);
        acc = step(type, acc, sum, w, in.d[b], in.s[b]);
    }
    return acc;
}

/* ---- several activation rows ---------------------------------------------------------- */

/* Bits 4 s .. 4 s + 3 of each lane's dword as 16 in the four bytes. A bit at place 4 or higher of its byte, capped at
 * 16, is what is wanted; the lower places come from a copy shifted by 4. */
INLINE __m256i fifth_of_step(__m256i bits, __m256i shifted, int s)
{
    const int c = s / 2;
    const __m256i pick =
        _mm256_setr_epi32(0x01010101 * c, 0x01010101 * (4 + c), 0x01010101 * (8 + c), 0x01010101 * (12 + c),
                          0x01010101 * c, 0x01010101 * (4 + c), 0x01010101 * (8 + c), 0x01010101 * (12 + c));
    const __m256i v = _mm256_shuffle_epi8(s % 2 ? bits : shifted, pick);
    const __m256i place = _mm256_set1_epi32((int)0x80402010);

    return _mm256_min_epu8(_mm256_and_si256(v, place), _mm256_set1_epi8(16));
}

/* w[s]: weights 4 s .. 4 s + 3 of the block, row r in lane r. */
INLINE void transpose_block(int type, __m256i w[8], const uint8_t *const p[ROWS], size_t at)
{
    const size_t quants = at + quants_at(type);

    transpose_at(w, p, quants);
    if (type == EL_TYPE_Q8_0) {
        transpose_at(w + 4, p, quants + 16);
        for (int s = 0; s < 8; s++)
            w[s] = bytes_of(w[s]);
        return;
    }
    for (int s = 0; s < 4; s++) {
        w[s + 4] = look_up(type, high_nibbles(w[s]));
        w[s] = look_up(type, low_nibbles(w[s]));
    }
    if (has_fifth(type)) {
        const __m256i bits = gather_32(p, quants - 4), shifted = _mm256_slli_epi32(bits, 4);
        for (int s = 0; s < 8; s++)
            w[s] = _mm256_or_si256(w[s], fifth_of_step(bits, shifted, s));
    }
}

typedef struct strip_block {
    __m256i w[8];
    row_scales scales;
} strip_block;

enum { STRIP_BLOCK = 32 };

INLINE void unpack(int type, strip_block *to, const uint8_t *const p[ROWS], int64_t n_blocks)
{
    for (int64_t b = 0; b < n_blocks; b++, to++) {
        __m256i w[8]; /* not *to: the compiler would take the file's bytes for changed by every store */
        to->scales = scales_at(type, p, (size_t)b * block_bytes(type));
        transpose_block(type, w, p, (size_t)b * block_bytes(type));
        for (int s = 0; s < 8; s++)
            to->w[s] = w[s];
    }
}

INLINE void tile(int type, int n, int n_strips, __m256 acc[TILE][STRIPS], const strip_block *strips, int64_t b0,
                 int64_t n_blocks, const uint8_t *x, size_t x_stride, int64_t k)
{
    const int run = run_of(type);
    act_parts in[TILE];

    for (int j = 0; j < n; j++)
        in[j] = parts_of(x + (size_t)j * x_stride, k);
    for (int64_t b = b0; b < b0 + n_blocks; b++, strips++) {
        __m256i total[TILE][STRIPS], sum[TILE][STRIPS];
        for (int first = 0; first < 8; first += run) {
            for (int s = first; s < first + run; s++)
                for (int j = 0; j < n; j++) {
                    const __m256i four_x = four(in[j].q + 32 * b + 4 * s);
                    for (int i = 0; i < n_strips; i++)
                        sum[j][i] = summed(products(type, s == first ? _mm256_setzero_si256() : sum[j][i],
                                                    strips[i * n_blocks].w[s], four_x));
                }
            for (int j = 0; j < n; j++)
                for (int i = 0; i < n_strips; i++)
                    total[j][i] = summed(add_run(type, first ? total[j][i] : _mm256_setzero_si256(), sum[j][i]));
        }
        for (int j = 0; j < n; j++)
            for (int i = 0; i < n_strips; i++)
                acc[j][i] = step(type, acc[j][i], less_offset(type, total[j][i], in[j].sum8[b]),
                                 strips[i * n_blocks].scales, in[j].d[b], in[j].s[b]);
    }
}

INLINE __m256i block_dot(int type, const __m256i w[8], const uint8_t *q)
{
    const int run = run_of(type);
    __m256i total = _mm256_setzero_si256();

    for (int first = 0; first < 8; first += run) {
        __m256i sum = _mm256_setzero_si256();
        for (int s = first; s < first + run; s++)
            sum = products(type, sum, w[s], four(q + 4 * s));
        total = add_run(type, total, sum);
    }
    return total;
}

INLINE void gemm_8(int type, __m256 acc[X_CHUNK], const uint8_t *const p[ROWS], const uint8_t *x, size_t x_stride,
                   int64_t n_x, int64_t k)
{
    __m256i w[8];

    for (int64_t b = 0; b < k / 32; b++) {
        const row_scales scales = scales_at(type, p, (size_t)b * block_bytes(type));
        transpose_block(type, w, p, (size_t)b * block_bytes(type));
        for (int64_t j = 0; j < n_x; j++) {
            const act_parts in = parts_of(x + (size_t)j * x_stride, k);
            acc[j] = step(type, acc[j], less_offset(type, block_dot(type, w, in.q + 32 * b), in.sum8[b]), scales,
                          in.d[b], in.s[b]);
        }
    }
}

#include "strips_256.h"

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
MATMUL(q8_0, EL_TYPE_Q8_0)
MATMUL(iq4_nl, EL_TYPE_IQ4_NL)
MATMUL(mxfp4, EL_TYPE_MXFP4)

INLINE void use_blocks_of_32(el_kernels *t)
{
    t->matmul[EL_TYPE_Q4_0] = matmul_q4_0;
    t->matmul[EL_TYPE_Q4_1] = matmul_q4_1;
    t->matmul[EL_TYPE_Q5_0] = matmul_q5_0;
    t->matmul[EL_TYPE_Q5_1] = matmul_q5_1;
    t->matmul[EL_TYPE_Q8_0] = matmul_q8_0;
    t->matmul[EL_TYPE_IQ4_NL] = matmul_iq4_nl;
    t->matmul[EL_TYPE_MXFP4] = matmul_mxfp4;
}
