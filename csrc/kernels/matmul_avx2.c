/* matmul_avx2.c - weights in blocks of 32 times activations, eight weight rows in eight lanes.
 *
 * One activation row: each weight row is multiplied along K as it lies in the file, and eight such products are folded
 * into one register of eight sums by a tree of blends, so the file is read once, in order, without a copy.
 * More activation rows: a block of eight rows is transposed once into registers (four consecutive weights per lane),
 * then every activation row costs one broadcast, one multiply and one add per 32 products.
 *
 * vpmaddubsw multiplies unsigned by signed bytes and adds pairs in int16: exact for weights up to 128 and |q_x| <= 127
 * (2 * 128 * 127 < 2^15). Weights of 4 bits (at most 15) leave room for all 8 pairs of a lane, those of 5 bits (31)
 * for 4. Idea of the transposing fold: the "hadd tree" common in BLAS microkernels; here with blends, since vphaddd is
 * 3 uops. */
#include "rows_in_lanes_avx2.h"

/* ---- what the types differ in: known while compiling, so every branch on it disappears ---- */

INLINE bool is_signed(int type) { return type == EL_TYPE_Q8_0 || type == EL_TYPE_IQ4_NL; }
INLINE bool has_min(int type) { return type == EL_TYPE_Q4_1 || type == EL_TYPE_Q5_1; }
INLINE bool has_fifth(int type) { return type == EL_TYPE_Q5_0 || type == EL_TYPE_Q5_1; }
INLINE bool fits_four_bits(int type) { return type == EL_TYPE_Q4_0 || type == EL_TYPE_Q4_1; }

INLINE size_t block_bytes(int type)
{
    return type == EL_TYPE_Q4_0 || type == EL_TYPE_IQ4_NL ? 18
           : type == EL_TYPE_Q4_1                         ? 20
           : type == EL_TYPE_Q5_0                         ? 22
           : type == EL_TYPE_Q5_1                         ? 24
           : type == EL_TYPE_Q8_0                         ? 34
                                                          : 17;
}

/* Where the nibbles or bytes begin. */
INLINE size_t quants_at(int type) { return type == EL_TYPE_Q8_0 ? 2 : block_bytes(type) - 16; }

/* Nibbles to what is multiplied: MXFP4 plus 12, so that it is unsigned; IQ4_NL signed. */
INLINE __m256i look_up(int type, __m256i v)
{
    const __m128i mxfp4 = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);

    if (type == EL_TYPE_MXFP4)
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(mxfp4), v);
    if (type == EL_TYPE_IQ4_NL)
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load16((const uint8_t *)el_iq4_values)), v);
    return v;
}

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
    return sum;
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

/* Products of a block of two rows with x, unsigned weights: row a in the low half, row b in the high one, int16. */
INLINE __m256i dot_two_rows(int type, const uint8_t *a, const uint8_t *b, __m256i x_low, __m256i x_high)
{
    const __m256i v = two_rows(a + quants_at(type), b + quants_at(type));
    __m256i low = look_up(type, low_nibbles(v)), high = look_up(type, high_nibbles(v));

    if (has_fifth(type)) { /* the 16 bytes before the last four nibble bytes' end hold the 32 bits */
        const size_t at = quants_at(type) - 4;
        const __m256i header = two_rows(a + at, b + at);
        low = _mm256_or_si256(low, fifth_bits(header, 0));
        high = _mm256_or_si256(high, fifth_bits(header, 2));
    }
    return _mm256_add_epi16(_mm256_maddubs_epi16(low, x_low), _mm256_maddubs_epi16(high, x_high));
}

INLINE __m256i block_sums_unsigned(int type, const uint8_t *const p[ROWS], size_t at, const uint8_t *q)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i x_low = _mm256_broadcastsi128_si256(load16(q)), x_high = _mm256_broadcastsi128_si256(load16(q + 16));
    const __m256i a = fold_pair_16(dot_two_rows(type, p[0] + at, p[4] + at, x_low, x_high),
                                   dot_two_rows(type, p[1] + at, p[5] + at, x_low, x_high));
    const __m256i b = fold_pair_16(dot_two_rows(type, p[2] + at, p[6] + at, x_low, x_high),
                                   dot_two_rows(type, p[3] + at, p[7] + at, x_low, x_high));

    if (fits_four_bits(type)) /* 16 products of at most 15 * 127 still fit */
        return _mm256_madd_epi16(_mm256_add_epi16(even_dwords(a, b), odd_dwords(a, b)), ones);
    {
        const __m256i a32 = _mm256_madd_epi16(a, ones), b32 = _mm256_madd_epi16(b, ones);
        return _mm256_add_epi32(even_dwords(a32, b32), odd_dwords(a32, b32));
    }
}

/* |w| times x with w's sign: exact for w = -128 as well, unlike |x| times w with x's sign. */
INLINE __m256i dot_signed(__m256i w, __m256i x)
{
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));

    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

INLINE __m256i row_signed(int type, const uint8_t *block)
{
    if (type == EL_TYPE_IQ4_NL) {
        const __m128i v = load16(block + quants_at(type));
        const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(v), _mm_srli_epi16(v, 4), 1);
        return look_up(type, low_nibbles(both));
    }
    return load32(block + quants_at(type));
}

INLINE __m256i block_sums_signed(int type, const uint8_t *const p[ROWS], size_t at, const uint8_t *q)
{
    const __m256i x = load32(q);
    __m256i v[4];

    for (int i = 0; i < 4; i++)
        v[i] = join_halves(dot_signed(row_signed(type, p[i] + at), x), dot_signed(row_signed(type, p[i + 4] + at), x));
    return fold_halves_32(v);
}

INLINE __m256i block_sums(int type, const uint8_t *const p[ROWS], size_t at, const uint8_t *q)
{
    return is_signed(type) ? block_sums_signed(type, p, at, q) : block_sums_unsigned(type, p, at, q);
}

INLINE __m256 gemv_8(int type, const uint8_t *const p[ROWS], const uint8_t *x, int64_t k, const uint8_t *ahead)
{
    const float *d = (const float *)(x + el_act32_d(k)), *s = (const float *)(x + el_act32_s(k));
    const int32_t *sum8 = (const int32_t *)(x + el_act32_sum8(k));
    __m256 acc = _mm256_setzero_ps();
    size_t at = 0;

    for (int64_t b = 0; b < k / 32; b++, at += block_bytes(type)) {
        const row_scales w = scales_at(type, p, at);
        const __m256i sum = less_offset(type, block_sums(type, p, at, x + 32 * b), sum8[b]);
        for (size_t line = 0; line < ROWS * block_bytes(type); line += 64)
            _mm_prefetch((const char *)(ahead + ROWS * at + line), _MM_HINT_T0);
        acc = _mm256_fmadd_ps(_mm256_mul_ps(w.d, _mm256_set1_ps(d[b])), _mm256_cvtepi32_ps(sum), acc);
        if (has_min(type))
            acc = _mm256_fmadd_ps(w.m, _mm256_set1_ps(s[b]), acc);
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

INLINE __m256i lane_sums_unsigned(int type, const __m256i w[8], const uint8_t *q)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i a = _mm256_maddubs_epi16(w[0], four(q)), b = _mm256_maddubs_epi16(w[4], four(q + 16));

    for (int s = 1; s < 4; s++) {
        a = _mm256_add_epi16(a, _mm256_maddubs_epi16(w[s], four(q + 4 * s)));
        b = _mm256_add_epi16(b, _mm256_maddubs_epi16(w[s + 4], four(q + 16 + 4 * s)));
    }
    if (fits_four_bits(type))
        return _mm256_madd_epi16(_mm256_add_epi16(a, b), ones);
    return _mm256_add_epi32(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones));
}

INLINE __m256i lane_sums_signed(const __m256i w[8], const __m256i magnitude[8], const uint8_t *q)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();

    for (int s = 0; s < 8; s++) {
        const __m256i pairs = _mm256_maddubs_epi16(magnitude[s], _mm256_sign_epi8(four(q + 4 * s), w[s]));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    return sum;
}

/* acc[j]: eight rows' sums for activation row j. */
INLINE void gemm_8(int type, __m256 *acc, const uint8_t *const p[ROWS], const uint8_t *x, size_t x_stride, int64_t n_x,
                   int64_t k)
{
    const size_t d_at = el_act32_d(k), s_at = el_act32_s(k), sum_at = el_act32_sum8(k);
    __m256i w[8], magnitude[8];
    size_t at = 0;

    for (int64_t j = 0; j < n_x; j++)
        acc[j] = _mm256_setzero_ps();
    for (int64_t b = 0; b < k / 32; b++, at += block_bytes(type)) {
        const row_scales scale = scales_at(type, p, at);
        const uint8_t *q = x + 32 * b, *per_block = x + 4 * b;
        transpose_block(type, w, p, at);
        for (int s = 0; s < 8; s++)
            magnitude[s] = is_signed(type) ? _mm256_abs_epi8(w[s]) : w[s];
        for (int64_t j = 0; j < n_x; j++, q += x_stride, per_block += x_stride) {
            float d, s;
            int32_t sum8;
            __m256i sum;
            memcpy(&d, per_block + d_at, 4);
            memcpy(&s, per_block + s_at, 4);
            memcpy(&sum8, per_block + sum_at, 4);
            sum = is_signed(type) ? lane_sums_signed(w, magnitude, q) : lane_sums_unsigned(type, w, q);
            sum = less_offset(type, sum, sum8);
            acc[j] = _mm256_fmadd_ps(_mm256_mul_ps(scale.d, _mm256_set1_ps(d)), _mm256_cvtepi32_ps(sum), acc[j]);
            if (has_min(type))
                acc[j] = _mm256_fmadd_ps(scale.m, _mm256_set1_ps(s), acc[j]);
        }
    }
}

/* ---- all rows ------------------------------------------------------------------------- */

INLINE void matmul(int type, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes, int64_t n_rows,
                   const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k)
{
    const uint8_t *p[ROWS];
    __m256 acc[X_CHUNK];

    if (n_x == 1) {
        for (int64_t row = 0; row < n_rows; row += ROWS) {
            row_pointers(p, w, row_bytes, row, n_rows);
            store_lanes(y + row, gemv_8(type, p, x, k, w + (size_t)(row + ROWS) * row_bytes), n_rows - row);
        }
        return;
    }
    for (int64_t first = 0; first < n_x; first += X_CHUNK) {
        const int64_t n = EL_MIN(n_x - first, (int64_t)X_CHUNK);
        for (int64_t row = 0; row < n_rows; row += ROWS) {
            row_pointers(p, w, row_bytes, row, n_rows);
            gemm_8(type, acc, p, x + (size_t)first * x_stride, x_stride, n, k);
            for (int64_t j = 0; j < n; j++)
                store_lanes(y + (first + j) * ldy + row, acc[j], n_rows - row);
        }
    }
}

#define MATMUL(NAME, TYPE)                                                                                             \
    static void matmul_##NAME(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,   \
                              size_t x_stride, int64_t n_x, int64_t k, void *scratch)                                  \
    {                                                                                                                  \
        (void)scratch;                                                                                                 \
        matmul(TYPE, y, ldy, w, row_bytes, n_rows, x, x_stride, n_x, k);                                               \
    }
MATMUL(q4_0, EL_TYPE_Q4_0)
MATMUL(q4_1, EL_TYPE_Q4_1)
MATMUL(q5_0, EL_TYPE_Q5_0)
MATMUL(q5_1, EL_TYPE_Q5_1)
MATMUL(q8_0, EL_TYPE_Q8_0)
MATMUL(iq4_nl, EL_TYPE_IQ4_NL)
MATMUL(mxfp4, EL_TYPE_MXFP4)

void el_matmul_use_avx2(el_kernels *t)
{
    t->matmul[EL_TYPE_Q4_0] = matmul_q4_0;
    t->matmul[EL_TYPE_Q4_1] = matmul_q4_1;
    t->matmul[EL_TYPE_Q5_0] = matmul_q5_0;
    t->matmul[EL_TYPE_Q5_1] = matmul_q5_1;
    t->matmul[EL_TYPE_Q8_0] = matmul_q8_0;
    t->matmul[EL_TYPE_IQ4_NL] = matmul_iq4_nl;
    t->matmul[EL_TYPE_MXFP4] = matmul_mxfp4;
}
