/* superblock_one_avx512.h - one activation row, for superblock_avx512.c: weights from memory as fast as it gives them.
 *
 * A weight row's super-block is four registers of bytes; their products come in groups of one quarter or half of a
 * register, so one shuffle lays the scales of a row over them and vpdpwssd applies them.
 *
 * Sixteen super-blocks share the unpacking of their scales and the folding of their sums into lanes. They are sixteen
 * in file order, not one of each of sixteen rows: both cores together read 8192x2048 of Q4_K at 97 % of the speed of a
 * loop that only reads, instead of 87 % (2048x8192: 85 and 75; Q6_K: 96 and 76, 94 and 71). The float steps, in the
 * order of a row, follow when sixteen rows are through. */
#ifndef EL_SUPERBLOCK_ONE_AVX512_H
#define EL_SUPERBLOCK_ONE_AVX512_H

#include "superblock_types_avx512.h"

/* Bytes ahead of the loads: 2 KB are 8 % slower, 16 KB 1 %; no prefetch, half the speed. */
enum { AHEAD = 8192 };

typedef struct sums { /* of one activation row */
    const int16_t *sum16, *sum32;
    const float *d;
} sums;

INLINE sums sums_of(const uint8_t *x, int64_t k)
{
    return (sums){(const int16_t *)(x + el_act256_sum16(k)), (const int16_t *)(x + el_act256_sum32(k)),
                  (const float *)(x + el_act256_d(k))};
}

/* Dword i of each quarter: the sum of the four dwords of that quarter of v[i]. */
INLINE __m512i add_dwords(const __m512i v[4])
{
    const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));

    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* Quarter i: the sum of the four quarters of v[i]. */
INLINE __m512i add_quarters(const __m512i v[4])
{
    const __m512i a = _mm512_add_epi32(_mm512_shuffle_i32x4(v[0], v[1], 0x44), _mm512_shuffle_i32x4(v[0], v[1], 0xee));
    const __m512i b = _mm512_add_epi32(_mm512_shuffle_i32x4(v[2], v[3], 0x44), _mm512_shuffle_i32x4(v[2], v[3], 0xee));

    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* `sum`: the sums of the activations of sixteen super-blocks, those of a super-block side by side. */
INLINE __m512i minima_of_one(int type, const heads *h, const uint8_t *sum)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i v[4];

    for (int i = 0; i < 4; i++)
        if (type == EL_TYPE_Q2_K) {
            const uint8_t *x = sum + 32 * i;
            v[i] = _mm512_madd_epi16(_mm512_unpacklo_epi8(h->mins[i], zero), four_rows(x, x + 128, x + 256, x + 384));
            x += 16;
            v[i] = _mm512_dpwssd_epi32(v[i], _mm512_unpackhi_epi8(h->mins[i], zero),
                                       four_rows(x, x + 128, x + 256, x + 384));
        } else {
            const uint8_t *x = sum + 16 * i;
            v[i] = _mm512_madd_epi16(_mm512_unpackhi_epi8(h->scales[i], zero), four_rows(x, x + 64, x + 128, x + 192));
        }
    return add_dwords(v);
}

typedef struct activations {
    __m512i x[4];
    __m512i start[4]; /* minus offset times the sums of four */
} activations;

INLINE __m512i x_of(int type, int z, const uint8_t *q)
{
    if (type == EL_TYPE_Q6_K)
        return load64(q + 64 * z);
    if (type == EL_TYPE_IQ4_XS)
        return four_rows(q + x_at(type, z, 0), q + x_at(type, z, 1), q + x_at(type, z, 2), q + x_at(type, z, 3));
    return two_rows(q + x_at(type, z, 0), q + x_at(type, z, 2));
}

INLINE void activations_of(int type, activations *a, const uint8_t *q)
{
    const __m512i zero = _mm512_setzero_si512();

    for (int z = 0; z < 4; z++) {
        const int less = is_times_four(type) && z % 2 ? 4 * offset(type) : offset(type);
        a->x[z] = x_of(type, z, q);
        if (!has_min(type))
            a->start[z] = _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, _mm512_set1_epi8((char)less), a->x[z]));
    }
    if (type == EL_TYPE_IQ4_XS)
        for (int z = 0; z < 4; z += 2)
            a->start[z] = _mm512_add_epi32(a->start[z], a->start[z + 1]);
}

/* One dword per quarter: `one` times its group plus `plus`. */
INLINE __m512i per_quarter(int type, int z, uint32_t one, uint32_t plus)
{
    const uint32_t a = (uint32_t)(x_at(type, z, 0) / group_size(type)) * one + plus;
    const uint32_t b = (uint32_t)(x_at(type, z, 1) / group_size(type)) * one + plus;
    const uint32_t c = (uint32_t)(x_at(type, z, 2) / group_size(type)) * one + plus;
    const uint32_t d = (uint32_t)(x_at(type, z, 3) / group_size(type)) * one + plus;

    return _mm512_setr_epi32((int)a, (int)a, (int)a, (int)a, (int)b, (int)b, (int)b, (int)b, (int)c, (int)c, (int)c,
                             (int)c, (int)d, (int)d, (int)d, (int)d);
}

/* The lanes' sums of one row over one super-block. Sums of four products fit int16 where vpdpwssd applies the scale:
 * 63 * 127 * 2 at most before it (pairs), 32 * 127 * 4 with the offset taken off. */
INLINE __m512i row_sums(int type, const uint8_t *b, const uint8_t *scales, const activations *a)
{
    __m512i sum = _mm512_setzero_si512();

    if (has_min(type)) {
        const __m512i s = _mm512_broadcast_i32x4(load16(scales));
#define DO(Z)                                                                                                          \
    sum = _mm512_dpwssd_epi32(sum, _mm512_maddubs_epi16(weights(type, Z, b), a->x[Z]),                                 \
                              _mm512_shuffle_epi8(s, per_quarter(type, Z, 0x00010001, 0x80008000)))
        DO(0);
        DO(1);
        DO(2);
        DO(3);
#undef DO
    } else if (type == EL_TYPE_IQ4_XS) {
        const __m512i s = _mm512_castsi256_si512(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)scales)));
#define DO(Z)                                                                                                          \
    sum = _mm512_add_epi32(                                                                                            \
        sum, _mm512_mullo_epi32(_mm512_dpbusd_epi32(_mm512_dpbusd_epi32(a->start[Z], weights(type, Z, b), a->x[Z]),    \
                                                    weights(type, (Z) + 1, b), a->x[(Z) + 1]),                         \
                                _mm512_permutexvar_epi32(per_quarter(type, Z, 1, 0), s)))
        DO(0);
        DO(2);
#undef DO
    } else {
        const __m512i s = _mm512_castsi256_si512(_mm256_cvtepi8_epi16(load16(scales)));
#define DO(Z)                                                                                                          \
    sum = _mm512_dpwssd_epi32(sum, _mm512_dpbusd_epi32(a->start[Z], weights(type, Z, b), a->x[Z]),                     \
                              _mm512_maskz_permutexvar_epi16(0x55555555, per_quarter(type, Z, 1, 0), s))
        DO(0);
        DO(1);
        DO(2);
        DO(3);
#undef DO
    }
    return sum;
}

/* ---- super-blocks in file order -------------------------------------------------------- */

/* The float factors of sixteen rows in file order: row r's of super-block b at r * n_blocks + b; those past the end are
 * for loads of four. */
typedef struct factors {
    float *d, *total, *dmin, *less;
} factors;

/* What all weight rows share, and room for sixteen of them. */
typedef struct one_row {
    int64_t n_blocks;
    const activations *a;
    /* The next super-block of a stream, whatever row it is of: sixteen more than the activation row has. */
    const uint8_t *sums;
    const float *d;
    factors f;
} one_row;

INLINE size_t sums_bytes(int type) { return type == EL_TYPE_Q2_K ? 32 : 16; }

/* Cuts scratch (el_matmul_scratch) into its parts. */
INLINE void prepare_one(int type, one_row *o, const uint8_t *x, int64_t k, void *scratch)
{
    const sums in = sums_of(x, k);
    const uint8_t *from = (const uint8_t *)(type == EL_TYPE_Q2_K ? in.sum16 : in.sum32);
    const int64_t n = k / 256;
    activations *a = scratch;
    float *f = (float *)(a + n), *d = f + 4 * 16 * (n + 1);
    uint8_t *sum = (uint8_t *)(d + n + 16);

    *o = (one_row){n, a, sum, d, {f, f + 16 * (n + 1), f + 32 * (n + 1), f + 48 * (n + 1)}};
    for (int64_t b = 0; b < n; b++)
        activations_of(type, &a[b], x + 256 * b);
    for (int64_t i = 0, b = 0; i < n + 16; i++) {
        d[i] = in.d[b];
        if (has_min(type))
            memcpy(sum + (size_t)i * sums_bytes(type), from + (size_t)b * sums_bytes(type), sums_bytes(type));
        b = b + 1 < n ? b + 1 : 0;
    }
}

/* Where a walk over sixteen rows is. */
typedef struct place {
    const uint8_t *p;
    int64_t block, row;
} place;

INLINE void next(int type, place *at, const uint8_t *const rows[ROWS], int64_t n)
{
    at->p += block_bytes(type);
    if (++at->block == n) {
        at->block = 0;
        if (++at->row < ROWS)
            at->p = rows[at->row];
    }
}

/* Part i of 4 of the lines of four super-blocks; all at once they fill the core's miss buffers and stop the loads
 * behind them. */
INLINE void prefetch_part(int type, const uint8_t *ahead, size_t i)
{
    const size_t lines = (4 * block_bytes(type) + 63) / 64;

    for (size_t line = i * lines / 4; line < (i + 1) * lines / 4; line++)
        _mm_prefetch((const char *)(ahead + 64 * line), _MM_HINT_T0);
}

/* Sixteen super-blocks that follow each other in the file, their factors at `to` of o->f. */
INLINE void sixteen_blocks(int type, const one_row *o, const uint8_t *const rows[ROWS], place *at, int64_t to)
{
    const size_t first = (size_t)at->block;
    const __m512 dx = _mm512_loadu_ps(o->d + first);
    _Alignas(64) uint8_t scales[4][64];
    int64_t block = at->block;
    const uint8_t *p[ROWS];
    __m512i sum[4], quarter[4];
    heads h;

    for (int i = 0; i < ROWS; i++) {
        p[i] = at->p;
        next(type, at, rows, o->n_blocks);
    }
    heads_at(type, &h, p, 0);
    for (int i = 0; i < 4; i++)
        _mm512_store_si512(scales[i], h.scales[i]);
    for (int l = 0; l < 4; l++) {
#define DO(I)                                                                                                          \
    prefetch_part(type, p[4 * l] + AHEAD, I);                                                                          \
    sum[I] = row_sums(type, p[4 * l + (I)], scales[I] + 16 * l, &o->a[block]);                                         \
    block = block + 1 < o->n_blocks ? block + 1 : 0
        DO(0);
        DO(1);
        DO(2);
        DO(3);
#undef DO
        quarter[l] = add_dwords(sum);
    }
    quarter[0] = add_quarters(quarter);
    if (is_times_four(type))
        quarter[0] = _mm512_srai_epi32(quarter[0], 2);
    _mm512_storeu_ps(o->f.d + to, _mm512_mul_ps(h.d, dx));
    _mm512_storeu_ps(o->f.total + to, _mm512_cvtepi32_ps(quarter[0]));
    if (has_min(type)) {
        _mm512_storeu_ps(o->f.dmin + to, _mm512_mul_ps(h.dmin, dx));
        _mm512_storeu_ps(o->f.less + to,
                         _mm512_cvtepi32_ps(minima_of_one(type, &h, o->sums + first * sums_bytes(type))));
    }
}

/* Four super-blocks of each of sixteen rows that are n floats apart, row r in lane r. */
INLINE void four_of_rows(__m512 out[4], const float *from, int64_t n)
{
    const uint8_t *p[ROWS];
    __m512i v[4];

    for (int64_t r = 0; r < ROWS; r++)
        p[r] = (const uint8_t *)(from + r * n);
    transpose_at(v, p, 0);
    for (int i = 0; i < 4; i++)
        out[i] = _mm512_castsi512_ps(v[i]);
}

INLINE __m512 one_x(int type, const uint8_t *const p[ROWS], const one_row *o)
{
    const int64_t n = o->n_blocks;
    place at = {p[0], 0, 0};
    __m512 acc = _mm512_setzero_ps(), d[4], total[4], dmin[4], less[4];

    for (int64_t i = 0; i < n; i++)
        sixteen_blocks(type, o, p, &at, ROWS * i);
    for (int64_t b = 0; b < n; b += 4) {
        four_of_rows(d, o->f.d + b, n);
        four_of_rows(total, o->f.total + b, n);
        if (has_min(type)) {
            four_of_rows(dmin, o->f.dmin + b, n);
            four_of_rows(less, o->f.less + b, n);
        }
        for (int i = 0; i < 4 && b + i < n; i++) {
            acc = _mm512_fmadd_ps(d[i], total[i], acc);
            if (has_min(type))
                acc = _mm512_fnmadd_ps(dmin[i], less[i], acc);
        }
    }
    return acc;
}

#endif
