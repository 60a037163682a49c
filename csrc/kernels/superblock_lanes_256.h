/* superblock_lanes_256.h - weights in super-blocks of 256 times activations, eight weight rows in eight lanes. The body
 * of superblock_avx2.c and superblock_avxvnni.c, which define the integer steps first:
 *
 *   UNSIGNED_BYTES                    1: IQ4_XS is multiplied as unsigned bytes, 128 too large; 0: signed
 *   add_pairs(total, v, w)            total, int32, plus v's pairs of int16 times w's
 *   add_wide_group(total, w, x, scale), fold_wide(total)
 *                                     IQ4_XS and one activation row, see there
 *   by_strips(type, n_x)              see strips_256.h
 *   run_of(type)                      how many steps of four weights a lane may add up before add_run
 *   products(type, sum, w, x)         sum plus, in each lane, four weights times four activations
 *   run_scale(pair)                   what add_run wants of a scale, from the pair of int16 (s, s)
 *   add_run(total, sum, scale)        total, int32, plus scale times what products() added up
 *
 * One activation row, as in matmul_lanes_256.h, by sub-blocks of 32 weights; the sub-scales stand in the lanes of their
 * rows as pairs of int16, so that a multiply of int16 which adds pairs to int32 applies them at no cost. Minima, and
 * the offsets of the types that subtract one, are a product of pairs of int16 with the activations' sums, once per
 * super-block. How far int16 carries: weights of 2 to 4 bits (at most 15) allow all 16 products of a lane, of 5 bits
 * (31) 8, of 6 bits (63) 4; IQ4_XS (127) two. Several activation rows: see strips_256.h. */
#include "rows_in_lanes_avx2.h"

#include "block_traits.h"

/* ---- what the types differ in ---------------------------------------------------------- */

INLINE bool is_wide(int type) { return type == EL_TYPE_IQ4_XS; } /* for sums in int16 */
INLINE bool has_offset(int type)
{
    return type == EL_TYPE_Q3_K || type == EL_TYPE_Q6_K || (UNSIGNED_BYTES && type == EL_TYPE_IQ4_XS);
}
INLINE bool folds_in_16_bits(int type) { return type == EL_TYPE_Q2_K || type == EL_TYPE_Q3_K || type == EL_TYPE_Q4_K; }

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
    default: /* plus 128 when UNSIGNED_BYTES */
        return _mm256_shuffle_epi8(iq4_values(UNSIGNED_BYTES), bits(low, e * 4, 15));
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
    for (int g = 0; g < 8; g += 2)
        s->min[g / 2] = _mm256_slli_epi16(_mm256_blend_epi16(s->scale[g], s->scale[g + 1], 0xaa), 7);
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
        total = add_pairs(total, s->min[g], two(sums + 2 * g));
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

/* total[0], total[1]: the two halves of a fold not yet finished; with folds_in_16_bits only total[0]. */
INLINE void add_group(int type, __m256i total[4], const __m256i v[4], __m256i scale)
{
    const __m256i a = fold_pair_16(v[0], v[1]), b = fold_pair_16(v[2], v[3]);

    if (folds_in_16_bits(type)) {
        const __m256i whole = _mm256_add_epi16(even_dwords(a, b), odd_dwords(a, b));
        total[0] = add_pairs(total[0], whole, scale);
    } else {
        total[0] = add_pairs(total[0], a, _mm256_unpacklo_epi32(scale, scale));
        total[1] = add_pairs(total[1], b, _mm256_unpackhi_epi32(scale, scale));
    }
}

INLINE void add_sub_block(int type, int s, __m256i total[4], const uint8_t *const p[ROWS], size_t at, const uint8_t *q,
                          const sub_scales *scales)
{
    __m256i v[4];

    if (is_wide(type)) {
        __m256i w[4][2];
        for (int i = 0; i < 8; i++)
            w[i / 2][i % 2] = unit(type, s, i % 2, p[i / 2] + at, p[i / 2 + 4] + at);
        add_wide_group(total, w, q, scales->scale[s]);
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
        if (is_wide(type))
            total[0] = fold_wide(total);
        else if (!folds_in_16_bits(type))
            total[0] = _mm256_add_epi32(even_dwords(total[0], total[1]), odd_dwords(total[0], total[1]));
        acc = step(type, acc, total[0], &scales, in, b);
    }
    return acc;
}

/* ---- several activation rows ---------------------------------------------------------- */

typedef struct strip_block {
    __m256i w[64]; /* w[i]: weights 4 i .. 4 i + 3 */
    sub_scales scales;
} strip_block;

enum { STRIP_BLOCK = 256 };

typedef struct shared_bytes { /* transposed; of the sub-blocks that come from the same bytes */
    __m256i low[2][4], high[4];
} shared_bytes;

/* Unit e of sub-block s. Sub-blocks are asked for in their order. */
INLINE void unpack_unit(int type, int s, int e, __m256i *w, shared_bytes *raw, const uint8_t *const p[ROWS], size_t at)
{
    const int apart = type == EL_TYPE_Q6_K ? 2 : 1, slot = s % apart; /* the next that may share bytes */

    if (s < apart || low_at(type, s, e) != low_at(type, s - apart, e))
        transpose_at(raw->low[slot], p, at + low_at(type, s, e));
    if (has_high(type) && (s == 0 || high_at(type, s, e) != high_at(type, s - 1, e)))
        transpose_at(raw->high, p, at + high_at(type, s, e));
    for (int i = 0; i < 4; i++)
        w[8 * s + 4 * e + i] =
            weights(type, s, e, raw->low[slot][i], has_high(type) ? raw->high[i] : raw->low[slot][i]);
}

INLINE void unpack(int type, strip_block *to, const uint8_t *const p[ROWS], int64_t n_blocks)
{
    for (int64_t b = 0; b < n_blocks; b++, to++) {
        const size_t at = (size_t)b * block_bytes(type);
        shared_bytes raw;
        scales_at(type, &to->scales, p, at);
        for (int g = 0; g < (by_16(type) ? 16 : 8); g++)
            to->scales.scale[g] = run_scale(to->scales.scale[g]);
#define DO(S) unpack_unit(type, S, 0, to->w, &raw, p, at)
        EACH_SUB_BLOCK(DO);
#undef DO
#define DO(S) unpack_unit(type, S, 1, to->w, &raw, p, at)
        EACH_SUB_BLOCK(DO);
#undef DO
    }
}

INLINE void tile(int type, int n, int n_strips, __m256 acc[TILE][STRIPS], const strip_block *strips, int64_t b0,
                 int64_t n_blocks, const uint8_t *x, size_t x_stride, int64_t k)
{
    const int run = run_of(type), group = by_16(type) ? 4 : 8;

    for (int64_t b = b0; b < b0 + n_blocks; b++, strips++) {
        __m256i total[TILE][STRIPS], sum[TILE][STRIPS];
        for (int j = 0; j < n; j++)
            for (int i = 0; i < n_strips; i++)
                total[j][i] = _mm256_setzero_si256();
        for (int g = 0; g < 64 / group; g++)
            for (int first = 0; first < group; first += run) {
                for (int s = first; s < first + run; s++)
                    for (int j = 0; j < n; j++) {
                        const __m256i four_x = four(x + (size_t)j * x_stride + 256 * b + 4 * (g * group + s));
                        for (int i = 0; i < n_strips; i++)
                            sum[j][i] = summed(products(type, s == first ? _mm256_setzero_si256() : sum[j][i],
                                                        strips[i * n_blocks].w[g * group + s], four_x));
                    }
                for (int j = 0; j < n; j++)
                    for (int i = 0; i < n_strips; i++)
                        total[j][i] = summed(add_run(total[j][i], sum[j][i], strips[i * n_blocks].scales.scale[g]));
            }
        for (int j = 0; j < n; j++)
            for (int i = 0; i < n_strips; i++)
                acc[j][i] = step(type, acc[j][i], total[j][i], &strips[i * n_blocks].scales,
                                 sums_of(x + (size_t)j * x_stride, k), b);
    }
}

/* total[j] of every activation row, from sub-block s. */
INLINE void add_sub_block_lanes(int type, int s, __m256i total[X_CHUNK], const uint8_t *const p[ROWS], size_t at,
                                const uint8_t *q, size_t x_stride, int64_t n_x, const sub_scales *scales)
{
    const int run = run_of(type), group = by_16(type) ? 4 : 8;
    __m256i w[8], low[4], high[4];

    for (int e = 0; e < 2; e++) {
        transpose_at(low, p, at + low_at(type, s, e));
        if (has_high(type))
            transpose_at(high, p, at + high_at(type, s, e));
        for (int i = 0; i < 4; i++)
            w[4 * e + i] = weights(type, s, e, low[i], has_high(type) ? high[i] : low[i]);
    }
    for (int64_t j = 0; j < n_x; j++, q += x_stride) {
        __m256i all = _mm256_setzero_si256();
        for (int first = 0; first < 8; first += run) {
            __m256i sum = _mm256_setzero_si256();
            for (int i = first; i < first + run; i++)
                sum = products(type, sum, w[i], four(q + 4 * i));
            all = add_run(all, sum, run_scale(scales->scale[(8 * s + first) / group]));
        }
        total[j] = s ? _mm256_add_epi32(total[j], all) : all;
    }
}

INLINE void gemm_8(int type, __m256 acc[X_CHUNK], const uint8_t *const p[ROWS], const uint8_t *x, size_t x_stride,
                   int64_t n_x, int64_t k)
{
    __m256i total[X_CHUNK];
    sub_scales scales;
    size_t at = 0;

    for (int64_t b = 0; b < k / 256; b++, at += block_bytes(type)) {
        scales_at(type, &scales, p, at);
#define DO(S) add_sub_block_lanes(type, S, total, p, at, x + 256 * b + 32 * (S), x_stride, n_x, &scales)
        EACH_SUB_BLOCK(DO);
#undef DO
        for (int64_t j = 0; j < n_x; j++)
            acc[j] = step(type, acc[j], total[j], &scales, sums_of(x + (size_t)j * x_stride, k), b);
    }
}

#include "strips_256.h"

#define MATMUL(NAME, TYPE)                                                                                             \
    static void matmul_##NAME(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,   \
                              size_t x_stride, int64_t n_x, int64_t k, void *scratch)                                  \
    {                                                                                                                  \
        matmul(TYPE, y, ldy, w, row_bytes, n_rows, x, x_stride, n_x, k, scratch);                                      \
    }
MATMUL(q2_k, EL_TYPE_Q2_K)
MATMUL(q3_k, EL_TYPE_Q3_K)
MATMUL(q4_k, EL_TYPE_Q4_K)
MATMUL(q5_k, EL_TYPE_Q5_K)
MATMUL(q6_k, EL_TYPE_Q6_K)
MATMUL(iq4_xs, EL_TYPE_IQ4_XS)

INLINE void use_superblocks(el_kernels *t)
{
    t->matmul[EL_TYPE_Q2_K] = matmul_q2_k;
    t->matmul[EL_TYPE_Q3_K] = matmul_q3_k;
    t->matmul[EL_TYPE_Q4_K] = matmul_q4_k;
    t->matmul[EL_TYPE_Q5_K] = matmul_q5_k;
    t->matmul[EL_TYPE_Q6_K] = matmul_q6_k;
    t->matmul[EL_TYPE_IQ4_XS] = matmul_iq4_xs;
}
