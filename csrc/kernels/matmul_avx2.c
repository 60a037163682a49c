/* matmul_avx2.c - activations quantized, and weights in blocks of 32 times them, eight weight rows in eight lanes.
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
#include "lanes_avx2.h"

#include "blocks.h"
#include "mem.h"

enum { ROWS = 8, X_CHUNK = 32 };

/* ---- activations ---------------------------------------------------------------------- */

INLINE uint32_t max_lane(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

INLINE uint32_t peak_of(const float *x, int n)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i peak = _mm256_setzero_si256();

    for (int i = 0; i < n; i += 8)
        peak = _mm256_max_epi32(peak, _mm256_and_si256(magnitude, _mm256_loadu_si256((const __m256i *)(x + i))));
    return max_lane(peak);
}

INLINE __m256i rounded(const float *x, __m256 inverse)
{
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
}

/* 32 values as int8. The packs work within halves, so their order is restored at the end. */
INLINE __m256i quantize_32_values(const float *x, __m256 inverse)
{
    const __m256i a = _mm256_packs_epi32(rounded(x, inverse), rounded(x + 8, inverse));
    const __m256i b = _mm256_packs_epi32(rounded(x + 16, inverse), rounded(x + 24, inverse));

    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

typedef struct scales {
    float d, inverse; /* inverse 0: all q are 0 */
} scales;

INLINE scales scales_of(uint32_t peak)
{
    const float amax = el_float_of(peak);

    if (peak >= 0x7f800000)
        return (scales){el_float_of(0x7fc00000), 0};
    if (amax < 0x1p-120f)
        return (scales){0, 0};
    return (scales){amax / 127.0f, 127.0f / amax};
}

/* Sums of 16 in the low and the high half, as the first int32 of each. */
INLINE __m256i sums_of_16(__m256i q)
{
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
    __m256i s = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));

    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
    return _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
}

static void quantize_32(uint8_t *row, const float *x, int64_t k)
{
    float *d = (float *)(row + el_act32_d(k)), *s = (float *)(row + el_act32_s(k));
    int32_t *sum8 = (int32_t *)(row + el_act32_sum8(k));

    for (int64_t b = 0; b < k / 32; b++, x += 32) {
        const scales sc = scales_of(peak_of(x, 32));
        __m256i q = _mm256_setzero_si256(), halves;
        int32_t sum;
        if (sc.inverse != 0)
            q = quantize_32_values(x, _mm256_set1_ps(sc.inverse));
        _mm256_storeu_si256((__m256i *)(row + 32 * b), q);
        halves = sums_of_16(q);
        sum = _mm256_extract_epi32(halves, 0) + _mm256_extract_epi32(halves, 4);
        d[b] = sc.d;
        s[b] = sc.d * (float)sum;
        sum8[b] = 8 * sum;
    }
}

static void quantize_256(uint8_t *row, const float *x, int64_t k)
{
    int16_t *sum16 = (int16_t *)(row + el_act256_sum16(k)), *sum32 = (int16_t *)(row + el_act256_sum32(k));
    float *d = (float *)(row + el_act256_d(k));

    for (int64_t b = 0; b < k / 256; b++) {
        const scales sc = scales_of(peak_of(x + 256 * b, 256));
        d[b] = sc.d;
        for (int64_t g = 8 * b; g < 8 * b + 8; g++) {
            __m256i q = _mm256_setzero_si256(), halves;
            if (sc.inverse != 0)
                q = quantize_32_values(x + 32 * g, _mm256_set1_ps(sc.inverse));
            _mm256_storeu_si256((__m256i *)(row + 32 * g), q);
            halves = sums_of_16(q);
            sum16[2 * g] = (int16_t)_mm256_extract_epi32(halves, 0);
            sum16[2 * g + 1] = (int16_t)_mm256_extract_epi32(halves, 4);
            sum32[g] = (int16_t)(sum16[2 * g] + sum16[2 * g + 1]);
        }
    }
}

static void act_quantize(el_act_kind kind, void *dst, const float *x, int64_t k)
{
    if (kind == EL_ACT_Q8_32)
        quantize_32(dst, x, k);
    else if (kind == EL_ACT_Q8_256)
        quantize_256(dst, x, k);
    else if (k)
        memcpy(dst, x, (size_t)k * sizeof *x);
}

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

INLINE __m128i load16(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
INLINE __m256i load32(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

INLINE __m256i two_rows(const uint8_t *a, const uint8_t *b)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(a)), load16(b), 1);
}

INLINE __m256i low_nibbles(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
INLINE __m256i high_nibbles(__m256i v) { return low_nibbles(_mm256_srli_epi16(v, 4)); }

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

/* Scales of eight rows as floats. */
INLINE __m256 gather_f16(const uint8_t *const p[ROWS], size_t at)
{
    __m128i v = _mm_cvtsi32_si128(el_load16(p[0] + at));

    v = _mm_insert_epi16(v, el_load16(p[1] + at), 1);
    v = _mm_insert_epi16(v, el_load16(p[2] + at), 2);
    v = _mm_insert_epi16(v, el_load16(p[3] + at), 3);
    v = _mm_insert_epi16(v, el_load16(p[4] + at), 4);
    v = _mm_insert_epi16(v, el_load16(p[5] + at), 5);
    v = _mm_insert_epi16(v, el_load16(p[6] + at), 6);
    v = _mm_insert_epi16(v, el_load16(p[7] + at), 7);
    return _mm256_cvtph_ps(v);
}

/* A dword of each row: row r in lane r. */
INLINE __m256i gather_32(const uint8_t *const p[ROWS], size_t at)
{
    __m128i a = _mm_cvtsi32_si128((int)el_load32(p[0] + at)), b = _mm_cvtsi32_si128((int)el_load32(p[4] + at));

    a = _mm_insert_epi32(a, (int)el_load32(p[1] + at), 1);
    b = _mm_insert_epi32(b, (int)el_load32(p[5] + at), 1);
    a = _mm_insert_epi32(a, (int)el_load32(p[2] + at), 2);
    b = _mm_insert_epi32(b, (int)el_load32(p[6] + at), 2);
    a = _mm_insert_epi32(a, (int)el_load32(p[3] + at), 3);
    b = _mm_insert_epi32(b, (int)el_load32(p[7] + at), 3);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}

typedef struct row_scales {
    __m256 d, m;
} row_scales;

INLINE row_scales scales_at(int type, const uint8_t *const p[ROWS], size_t at)
{
    row_scales s = {_mm256_setzero_ps(), _mm256_setzero_ps()};

    if (has_min(type)) { /* d in the low half of each dword, m in the high one */
        const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9,
                                               12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
        const __m256i v = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(gather_32(p, at), order), 0xd8);
        s.d = _mm256_cvtph_ps(_mm256_castsi256_si128(v));
        s.m = _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1));
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

/* ---- folding eight rows into eight lanes ---------------------------------------------- */

/* a and b hold sums of one row in each half: the result's dwords 0, 1 come from a and 2, 3 from b. */
INLINE __m256i fold_pair_16(__m256i a, __m256i b)
{
    return _mm256_add_epi16(_mm256_blend_epi32(a, b, 0xcc), _mm256_alignr_epi8(b, a, 8));
}

INLINE __m256i fold_pair_32(__m256i a, __m256i b)
{
    return _mm256_add_epi32(_mm256_blend_epi32(a, b, 0xcc), _mm256_alignr_epi8(b, a, 8));
}

INLINE __m256i even_dwords(__m256i a, __m256i b)
{
    return _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88));
}

INLINE __m256i odd_dwords(__m256i a, __m256i b)
{
    return _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0xdd));
}

/* v[i]: int32 sums of row i in the low half, of row 4 + i in the high one. */
INLINE __m256i fold_halves_32(const __m256i v[4])
{
    const __m256i a = fold_pair_32(v[0], v[1]), b = fold_pair_32(v[2], v[3]);

    return _mm256_add_epi32(even_dwords(a, b), odd_dwords(a, b));
}

INLINE __m256i join_halves(__m256i a, __m256i b)
{
    return _mm256_add_epi32(_mm256_blend_epi32(a, b, 0xf0), _mm256_permute2x128_si256(a, b, 0x21));
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

/* v[i]: 16 bytes of row i in the low half, of row 4 + i in the high one. out[s]: bytes 4 s .. 4 s + 3 of row r in
 * lane r. */
INLINE void transpose_halves(__m256i out[4], const __m256i v[4])
{
    const __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
    const __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);

    out[0] = _mm256_unpacklo_epi64(a, c);
    out[1] = _mm256_unpackhi_epi64(a, c);
    out[2] = _mm256_unpacklo_epi64(b, d);
    out[3] = _mm256_unpackhi_epi64(b, d);
}

INLINE void transpose_at(__m256i out[4], const uint8_t *const p[ROWS], size_t at)
{
    __m256i v[4];

    for (int i = 0; i < 4; i++)
        v[i] = two_rows(p[i] + at, p[i + 4] + at);
    transpose_halves(out, v);
}

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

INLINE __m256i four(const uint8_t *q) { return _mm256_set1_epi32((int)el_load32(q)); }

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

INLINE void store_lanes(float *y, __m256 v, int64_t n)
{
    float lanes[ROWS];

    if (n >= ROWS) {
        _mm256_storeu_ps(y, v);
        return;
    }
    _mm256_storeu_ps(lanes, v);
    memcpy(y, lanes, (size_t)n * sizeof *y);
}

/* The last rows of a matrix whose count is no multiple of 8: missing ones repeat the last, and are not stored. */
INLINE void row_pointers(const uint8_t *p[ROWS], const uint8_t *w, size_t row_bytes, int64_t row, int64_t n_rows)
{
    for (int64_t i = 0; i < ROWS; i++)
        p[i] = w + (size_t)EL_MIN(row + i, n_rows - 1) * row_bytes;
}

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
    t->act_quantize = act_quantize;
    t->matmul[EL_TYPE_Q4_0] = matmul_q4_0;
    t->matmul[EL_TYPE_Q4_1] = matmul_q4_1;
    t->matmul[EL_TYPE_Q5_0] = matmul_q5_0;
    t->matmul[EL_TYPE_Q5_1] = matmul_q5_1;
    t->matmul[EL_TYPE_Q8_0] = matmul_q8_0;
    t->matmul[EL_TYPE_IQ4_NL] = matmul_iq4_nl;
    t->matmul[EL_TYPE_MXFP4] = matmul_mxfp4;
}
