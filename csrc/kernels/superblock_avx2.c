/* superblock_avx2.c - weights in super-blocks of 256 times activations, eight weight rows in eight lanes.
 *
 * As in matmul_avx2.c, by sub-blocks of 32 weights; the sub-scales stand in the lanes of their rows as pairs of int16,
 * so the multiply that widens int16 sums to int32 (vpmaddwd) applies them at no cost. Minima, and the offsets of the
 * types that subtract one, are a product of pairs of int16 with the activations' sums, once per super-block.
 *
 * How far int16 carries: weights of 2 to 4 bits (at most 15) allow all 16 products of a lane, of 5 bits (31) 8, of
 * 6 bits (63) 4; IQ4_XS (127) two, so there the widening comes first. */
#include "rows_in_lanes_avx2.h"

/* ---- what the types differ in ---------------------------------------------------------- */

INLINE size_t block_bytes(int type)
{
    return type == EL_TYPE_Q2_K   ? EL_Q2_K_BYTES
           : type == EL_TYPE_Q3_K ? EL_Q3_K_BYTES
           : type == EL_TYPE_Q4_K ? EL_Q4_K_BYTES
           : type == EL_TYPE_Q5_K ? EL_Q5_K_BYTES
           : type == EL_TYPE_Q6_K ? EL_Q6_K_BYTES
                                  : EL_IQ4_XS_BYTES;
}

INLINE bool is_signed(int type) { return type == EL_TYPE_IQ4_XS; }
INLINE bool has_min(int type) { return type == EL_TYPE_Q2_K || type == EL_TYPE_Q4_K || type == EL_TYPE_Q5_K; }
INLINE bool has_offset(int type) { return type == EL_TYPE_Q3_K || type == EL_TYPE_Q6_K; }
INLINE bool has_high(int type) { return type == EL_TYPE_Q3_K || type == EL_TYPE_Q5_K || type == EL_TYPE_Q6_K; }
INLINE bool by_16(int type) { return type == EL_TYPE_Q2_K || type == EL_TYPE_Q3_K || type == EL_TYPE_Q6_K; }
INLINE bool folds_in_16_bits(int type) { return type == EL_TYPE_Q2_K || type == EL_TYPE_Q3_K || type == EL_TYPE_Q4_K; }

/* Where the low bits of unit e (16 weights) of sub-block s lie, 16 bytes; and the high ones. */
INLINE size_t low_at(int type, int s, int e)
{
    switch (type) {
    case EL_TYPE_Q2_K:
        return (size_t)(EL_Q2_K_QS + s / 4 * 32 + e * 16);
    case EL_TYPE_Q3_K:
        return (size_t)(EL_Q3_K_QS + s / 4 * 32 + e * 16);
    case EL_TYPE_Q4_K:
        return (size_t)(EL_Q4_K_QS + s / 2 * 32 + e * 16);
    case EL_TYPE_Q5_K:
        return (size_t)(EL_Q5_K_QS + s / 2 * 32 + e * 16);
    case EL_TYPE_Q6_K:
        return (size_t)(s / 4 * 64 + s % 2 * 32 + e * 16);
    default:
        return (size_t)(EL_IQ4_XS_QS + s * 16);
    }
}

INLINE size_t high_at(int type, int s, int e)
{
    return (size_t)((type == EL_TYPE_Q5_K ? EL_Q5_K_QH : type == EL_TYPE_Q6_K ? EL_Q6_K_QH + s / 4 * 32 : 0) + e * 16);
}

/* The bits of `mask` after a shift right by n (left when negative). Bits that cross into the next byte are masked. */
INLINE __m256i bits(__m256i v, int n, int mask)
{
    const __m256i shifted = n > 0 ? _mm256_srli_epi16(v, n) : n < 0 ? _mm256_slli_epi16(v, -n) : v;

    return _mm256_and_si256(shifted, _mm256_set1_epi8((char)mask));
}

/* Bytes of weights from the bytes that hold their low and high bits. */
INLINE __m256i weights(int type, int s, int e, __m256i low, __m256i high)
{
    switch (type) {
    case EL_TYPE_Q2_K:
        return bits(low, s % 4 * 2, 3);
    case EL_TYPE_Q3_K: /* plus 4 */
        return _mm256_or_si256(bits(low, s % 4 * 2, 3), bits(high, s - 2, 4));
    case EL_TYPE_Q4_K:
        return bits(low, s % 2 * 4, 15);
    case EL_TYPE_Q5_K:
        return _mm256_or_si256(bits(low, s % 2 * 4, 15), bits(high, s - 4, 16));
    case EL_TYPE_Q6_K: /* plus 32 */
        return _mm256_or_si256(bits(low, s % 4 / 2 * 4, 15), bits(high, s % 4 * 2 - 4, 48));
    default:
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load16((const uint8_t *)el_iq4_values)),
                                   bits(low, e * 4, 15));
    }
}

/* ---- scales: eight rows in lanes -------------------------------------------------------- */

typedef struct sub_scales {
    __m256i scale[16]; /* int16 pair (s, s) of each group of 16, or of 32 in the first 8 */
    __m256i min[8];    /* int16 pairs of neighbouring groups: minima, or offset times scale */
    __m256 d, dmin;
} sub_scales;

/* Byte i of each dword as (b, b), and bytes i, i + 1 as a pair, unsigned. */
INLINE __m256i pair_of(__m256i v, int i, int j)
{
    const int32_t order = (int32_t)(0x80008000u | (uint32_t)i | (uint32_t)j << 16);

    return _mm256_shuffle_epi8(v, _mm256_add_epi32(_mm256_setr_epi32(0, 0x00040004, 0x00080008, 0x000c000c, 0,
                                                                     0x00040004, 0x00080008, 0x000c000c),
                                                   _mm256_set1_epi32(order)));
}

/* The same of signed bytes. */
INLINE __m256i signed_pair_of(__m256i v, int i, int j)
{
    return _mm256_srai_epi16(_mm256_slli_epi16(pair_of(v, i, j), 8), 8);
}

/* quads[t]: the bytes of groups 4 t .. 4 t + 3. */
INLINE void set_pairs(__m256i *out, const __m256i *quads, int n)
{
    for (int g = 0; g < n; g++)
        out[g] = pair_of(quads[g / 4], g % 4, g % 4);
}

INLINE void set_neighbours(__m256i *out, const __m256i *quads, int n)
{
    for (int g = 0; g < n; g += 2)
        out[g / 2] = pair_of(quads[g / 4], g % 4, g % 4 + 1);
}

INLINE void scales_q2_k(sub_scales *s, const uint8_t *const p[ROWS], size_t at)
{
    __m256i v[4], mins[4];

    transpose_at(v, p, at);
    for (int t = 0; t < 4; t++) {
        mins[t] = high_nibbles(v[t]);
        v[t] = low_nibbles(v[t]);
    }
    set_pairs(s->scale, v, 16);
    set_neighbours(s->min, mins, 16);
    split_f16(gather_32(p, at + EL_Q2_K_D), &s->d, &s->dmin);
}

INLINE void scales_q3_k(sub_scales *s, const uint8_t *const p[ROWS], size_t at)
{
    const __m256i a = gather_32(p, at + EL_Q3_K_SCALES), b = gather_32(p, at + EL_Q3_K_SCALES + 4);
    const __m256i high = gather_32(p, at + EL_Q3_K_SCALES + 8), offset = _mm256_set1_epi16(32);
    const __m256i v[4] = {
        _mm256_or_si256(low_nibbles(a), bits(high, -4, 48)), _mm256_or_si256(low_nibbles(b), bits(high, -2, 48)),
        _mm256_or_si256(high_nibbles(a), bits(high, 0, 48)), _mm256_or_si256(high_nibbles(b), bits(high, 2, 48))};

    set_pairs(s->scale, v, 16);
    set_neighbours(s->min, v, 16);
    for (int g = 0; g < 16; g++)
        s->scale[g] = _mm256_sub_epi16(s->scale[g], offset);
    for (int g = 0; g < 8; g++)
        s->min[g] = _mm256_slli_epi16(_mm256_sub_epi16(s->min[g], offset), 2);
    s->d = gather_f16(p, at + EL_Q3_K_D);
}

/* Q4_K and Q5_K: 4 bytes of d and dmin, then the 12 bytes of blocks.c's scales_and_mins. */
INLINE void scales_q4_k(sub_scales *s, const uint8_t *const p[ROWS], size_t at)
{
    __m256i v[4], scales[2], mins[2];

    transpose_at(v, p, at);
    split_f16(v[0], &s->d, &s->dmin);
    scales[0] = bits(v[1], 0, 63);
    scales[1] = _mm256_or_si256(low_nibbles(v[3]), bits(v[1], 2, 48));
    mins[0] = bits(v[2], 0, 63);
    mins[1] = _mm256_or_si256(high_nibbles(v[3]), bits(v[2], 2, 48));
    set_pairs(s->scale, scales, 8);
    set_neighbours(s->min, mins, 8);
}

INLINE void scales_q6_k(sub_scales *s, const uint8_t *const p[ROWS], size_t at)
{
    __m256i v[4];

    transpose_at(v, p, at + EL_Q6_K_SCALES);
    for (int g = 0; g < 16; g++)
        s->scale[g] = signed_pair_of(v[g / 4], g % 4, g % 4);
    for (int g = 0; g < 16; g += 2)
        s->min[g / 2] = _mm256_slli_epi16(signed_pair_of(v[g / 4], g % 4, g % 4 + 1), 5);
    s->d = gather_f16(p, at + EL_Q6_K_D);
}

/* The low 4 bits of scale g are nibble g of a dword, the high 2 lie above d in another. */
INLINE void scales_iq4_xs(sub_scales *s, const uint8_t *const p[ROWS], size_t at)
{
    const __m256i head = gather_32(p, at), low = gather_32(p, at + EL_IQ4_XS_LOW);
    __m256 unused;

    split_f16(head, &s->d, &unused);
    for (int g = 0; g < 8; g++) {
        const __m256i a = _mm256_and_si256(_mm256_srli_epi32(low, 4 * g), _mm256_set1_epi32(15));
        const __m256i b = _mm256_and_si256(_mm256_srli_epi32(head, 12 + 2 * g), _mm256_set1_epi32(48));
        const __m256i both = _mm256_or_si256(a, b);
        s->scale[g] = _mm256_sub_epi16(_mm256_or_si256(both, _mm256_slli_epi32(both, 16)), _mm256_set1_epi16(32));
    }
}

INLINE void scales_at(int type, sub_scales *s, const uint8_t *const p[ROWS], size_t at)
{
    if (type == EL_TYPE_Q2_K)
        scales_q2_k(s, p, at);
    else if (type == EL_TYPE_Q3_K)
        scales_q3_k(s, p, at);
    else if (type == EL_TYPE_Q6_K)
        scales_q6_k(s, p, at);
    else if (type == EL_TYPE_IQ4_XS)
        scales_iq4_xs(s, p, at);
    else
        scales_q4_k(s, p, at);
}

INLINE __m256i two(const int16_t *sums)
{
    int32_t pair;

    memcpy(&pair, sums, 4);
    return _mm256_set1_epi32(pair);
}

/* Sum of min (or offset * scale) times the activations' sums, over the super-block. */
INLINE __m256i minima(int type, const sub_scales *s, const int16_t *sum16, const int16_t *sum32)
{
    const int16_t *sums = by_16(type) ? sum16 : sum32;
    __m256i total = _mm256_madd_epi16(s->min[0], two(sums));

    for (int g = 1; g < (by_16(type) ? 8 : 4); g++)
        total = _mm256_add_epi32(total, _mm256_madd_epi16(s->min[g], two(sums + 2 * g)));
    return total;
}

typedef struct sums { /* of one activation row */
    const int16_t *sum16, *sum32;
    const float *d;
} sums;

INLINE sums sums_of(const uint8_t *x, int64_t k)
{
    return (sums){(const int16_t *)(x + el_act256_sum16(k)), (const int16_t *)(x + el_act256_sum32(k)),
                  (const float *)(x + el_act256_d(k))};
}

/* The float steps of super-block b. */
INLINE __m256 step(int type, __m256 acc, __m256i total, const sub_scales *s, sums x, int64_t b)
{
    const __m256 d = _mm256_set1_ps(x.d[b]);
    __m256i less;

    if (!has_min(type) && !has_offset(type))
        return _mm256_fmadd_ps(_mm256_mul_ps(s->d, d), _mm256_cvtepi32_ps(total), acc);
    less = minima(type, s, x.sum16 + 16 * b, x.sum32 + 8 * b);
    if (has_offset(type))
        total = _mm256_sub_epi32(total, less);
    acc = _mm256_fmadd_ps(_mm256_mul_ps(s->d, d), _mm256_cvtepi32_ps(total), acc);
    return has_min(type) ? _mm256_fnmadd_ps(_mm256_mul_ps(s->dmin, d), _mm256_cvtepi32_ps(less), acc) : acc;
}

/* ---- one activation row --------------------------------------------------------------- */

INLINE __m256i unit(int type, int s, int e, const uint8_t *a, const uint8_t *b)
{
    const __m256i low = two_rows(a + low_at(type, s, e), b + low_at(type, s, e));

    return weights(type, s, e, low, has_high(type) ? two_rows(a + high_at(type, s, e), b + high_at(type, s, e)) : low);
}

/* int16 sums of unit e, or of both units when e is negative, for each pair of rows. */
INLINE void unit_products(int type, int s, int e, __m256i out[4], const uint8_t *const p[ROWS], size_t at,
                          const uint8_t *q)
{
    const __m256i x0 = _mm256_broadcastsi128_si256(load16(q)), x1 = _mm256_broadcastsi128_si256(load16(q + 16));

    for (int i = 0; i < 4; i++) {
        const uint8_t *a = p[i] + at, *b = p[i + 4] + at;
        if (e < 0)
            out[i] = _mm256_add_epi16(_mm256_maddubs_epi16(unit(type, s, 0, a, b), x0),
                                      _mm256_maddubs_epi16(unit(type, s, 1, a, b), x1));
        else
            out[i] = _mm256_maddubs_epi16(unit(type, s, e, a, b), e ? x1 : x0);
    }
}

/* total[0], total[1]: the two halves of a fold not yet finished; with folds_in_16_bits only total[0]; when signed, one
 * per pair of rows. */
INLINE void add_group(int type, __m256i total[4], const __m256i v[4], __m256i scale)
{
    const __m256i a = fold_pair_16(v[0], v[1]), b = fold_pair_16(v[2], v[3]);

    if (folds_in_16_bits(type)) {
        const __m256i whole = _mm256_add_epi16(even_dwords(a, b), odd_dwords(a, b));
        total[0] = _mm256_add_epi32(total[0], _mm256_madd_epi16(whole, scale));
    } else {
        total[0] = _mm256_add_epi32(total[0], _mm256_madd_epi16(a, _mm256_unpacklo_epi32(scale, scale)));
        total[1] = _mm256_add_epi32(total[1], _mm256_madd_epi16(b, _mm256_unpackhi_epi32(scale, scale)));
    }
}

INLINE __m256i times_signed(__m256i w, __m256i x)
{
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
}

#define ADD_SIGNED(I)                                                                                                  \
    do {                                                                                                               \
        const __m256i one = _mm256_shuffle_epi32(scale, (I)*0x55);                                                     \
        for (int e = 0; e < 2; e++) {                                                                                  \
            const __m256i w = unit(type, s, e, p[I] + at, p[(I) + 4] + at);                                            \
            const __m256i x = _mm256_broadcastsi128_si256(load16(q + 16 * e));                                         \
            total[I] = _mm256_add_epi32(total[I], _mm256_madd_epi16(times_signed(w, x), one));                         \
        }                                                                                                              \
    } while (0)

INLINE void add_sub_block(int type, int s, __m256i total[4], const uint8_t *const p[ROWS], size_t at, const uint8_t *q,
                          const sub_scales *scales)
{
    __m256i v[4];

    if (is_signed(type)) {
        const __m256i scale = scales->scale[s];
        ADD_SIGNED(0);
        ADD_SIGNED(1);
        ADD_SIGNED(2);
        ADD_SIGNED(3);
    } else if (by_16(type)) {
        unit_products(type, s, 0, v, p, at, q);
        add_group(type, total, v, scales->scale[2 * s]);
        unit_products(type, s, 1, v, p, at, q);
        add_group(type, total, v, scales->scale[2 * s + 1]);
    } else {
        unit_products(type, s, -1, v, p, at, q);
        add_group(type, total, v, scales->scale[s]);
    }
}

/* The shifts of weights() are constants only when s is one. */
#define EACH_SUB_BLOCK(DO)                                                                                             \
    DO(0);                                                                                                             \
    DO(1);                                                                                                             \
    DO(2);                                                                                                             \
    DO(3);                                                                                                             \
    DO(4);                                                                                                             \
    DO(5);                                                                                                             \
    DO(6);                                                                                                             \
    DO(7)

INLINE __m256 gemv_8(int type, const uint8_t *const p[ROWS], const uint8_t *x, int64_t k, const uint8_t *ahead)
{
    const sums in = sums_of(x, k);
    __m256 acc = _mm256_setzero_ps();
    size_t at = 0;

    for (int64_t b = 0; b < k / 256; b++, at += block_bytes(type)) {
        const uint8_t *q = x + 256 * b;
        __m256i total[4];
        sub_scales scales;
        for (int i = 0; i < 4; i++)
            total[i] = _mm256_setzero_si256();
        for (size_t line = 0; line < ROWS * block_bytes(type); line += 64)
            _mm_prefetch((const char *)(ahead + ROWS * at + line), _MM_HINT_T0);
        scales_at(type, &scales, p, at);
#define DO(S) add_sub_block(type, S, total, p, at, q + 32 * (S), &scales)
        EACH_SUB_BLOCK(DO);
#undef DO
        if (is_signed(type))
            total[0] = fold_halves_32(total);
        else if (!folds_in_16_bits(type))
            total[0] = _mm256_add_epi32(even_dwords(total[0], total[1]), odd_dwords(total[0], total[1]));
        acc = step(type, acc, total[0], &scales, in, b);
    }
    return acc;
}

/* ---- several activation rows ---------------------------------------------------------- */

/* w[i]: weights 4 i .. 4 i + 3 of sub-block s, row r in lane r. */
INLINE void transpose_sub_block(int type, int s, __m256i w[8], const uint8_t *const p[ROWS], size_t at)
{
    __m256i low[4], high[4];

    for (int e = 0; e < 2; e++) {
        transpose_at(low, p, at + low_at(type, s, e));
        if (has_high(type))
            transpose_at(high, p, at + high_at(type, s, e));
        for (int i = 0; i < 4; i++)
            w[4 * e + i] = weights(type, s, e, low[i], has_high(type) ? high[i] : low[i]);
    }
}

/* Sums over unit e, times its scale. */
INLINE __m256i unit_sums(int type, const __m256i w[4], const uint8_t *q, __m256i scale)
{
    const __m256i a = _mm256_maddubs_epi16(w[0], four(q)), b = _mm256_maddubs_epi16(w[1], four(q + 4));
    const __m256i c = _mm256_maddubs_epi16(w[2], four(q + 8)), d = _mm256_maddubs_epi16(w[3], four(q + 12));
    const __m256i ab = _mm256_add_epi16(a, b), cd = _mm256_add_epi16(c, d);

    if (type == EL_TYPE_Q6_K)
        return _mm256_add_epi32(_mm256_madd_epi16(ab, scale), _mm256_madd_epi16(cd, scale));
    return _mm256_madd_epi16(_mm256_add_epi16(ab, cd), scale);
}

INLINE __m256i signed_sums(const __m256i w[8], const uint8_t *q, __m256i scale)
{
    __m256i sum = _mm256_setzero_si256();

    for (int i = 0; i < 8; i++)
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(times_signed(w[i], four(q + 4 * i)), scale));
    return sum;
}

/* total[j] of every activation row. */
INLINE void add_sub_block_lanes(int type, int s, __m256i *total, const uint8_t *const p[ROWS], size_t at,
                                const uint8_t *q, size_t x_stride, int64_t n_x, const sub_scales *scales)
{
    const __m256i scale = scales->scale[by_16(type) ? 2 * s : s], scale1 = scales->scale[by_16(type) ? 2 * s + 1 : s];
    __m256i w[8];

    transpose_sub_block(type, s, w, p, at);
    for (int64_t j = 0; j < n_x; j++, q += x_stride) {
        __m256i sum;
        if (is_signed(type))
            sum = signed_sums(w, q, scale);
        else
            sum = _mm256_add_epi32(unit_sums(type, w, q, scale), unit_sums(type, w + 4, q + 16, scale1));
        total[j] = s ? _mm256_add_epi32(total[j], sum) : sum;
    }
}

INLINE void gemm_8(int type, __m256 *acc, const uint8_t *const p[ROWS], const uint8_t *x, size_t x_stride, int64_t n_x,
                   int64_t k)
{
    __m256i total[X_CHUNK];
    sub_scales scales;
    size_t at = 0;

    for (int64_t j = 0; j < n_x; j++)
        acc[j] = _mm256_setzero_ps();
    for (int64_t b = 0; b < k / 256; b++, at += block_bytes(type)) {
        const uint8_t *q = x + 256 * b;
        scales_at(type, &scales, p, at);
#define DO(S) add_sub_block_lanes(type, S, total, p, at, q + 32 * (S), x_stride, n_x, &scales)
        EACH_SUB_BLOCK(DO);
#undef DO
        for (int64_t j = 0; j < n_x; j++)
            acc[j] = step(type, acc[j], total[j], &scales, sums_of(x + (size_t)j * x_stride, k), b);
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
MATMUL(q2_k, EL_TYPE_Q2_K)
MATMUL(q3_k, EL_TYPE_Q3_K)
MATMUL(q4_k, EL_TYPE_Q4_K)
MATMUL(q5_k, EL_TYPE_Q5_K)
MATMUL(q6_k, EL_TYPE_Q6_K)
MATMUL(iq4_xs, EL_TYPE_IQ4_XS)

void el_superblock_use_avx2(el_kernels *t)
{
    t->matmul[EL_TYPE_Q2_K] = matmul_q2_k;
    t->matmul[EL_TYPE_Q3_K] = matmul_q3_k;
    t->matmul[EL_TYPE_Q4_K] = matmul_q4_k;
    t->matmul[EL_TYPE_Q5_K] = matmul_q5_k;
    t->matmul[EL_TYPE_Q6_K] = matmul_q6_k;
    t->matmul[EL_TYPE_IQ4_XS] = matmul_iq4_xs;
}
