/* strips_avx512.h - weights in blocks of 32, sixteen rows in sixteen lanes, times several activation rows. For
 * matmul_avx512.c only.
 *
 * vpdpbusd adds four products per lane. Its first factor is unsigned: every type's weights are unpacked as
 * q_w + offset, and offset * (sum of q_x) is taken off again, exactly, in int32.
 *
 * Some blocks of a strip of sixteen weight rows are transposed, four consecutive weights of a row in each lane, into
 * memory (of the first level), and every group of up to eight activation rows passes over two such strips: then a load
 * serves two or eight multiplications. Zen 5 loads two vectors and multiplies two in a cycle, and of the ten
 * multiplications that a block takes eight are the weights'. The idea of unpacking once and of a register tile is
 * Goto's ("Anatomy of high-performance matrix multiplication", 2008). */
#ifndef EL_STRIPS_AVX512_H
#define EL_STRIPS_AVX512_H

#include "rows_in_lanes_avx512.h"

#include "block_traits.h"

/* ---- what the types differ in: known while compiling, so every branch on it disappears ---- */

/* The integer sum of a block less what made its weights unsigned: offset / 8 times sum8. */
INLINE __m512i less_offset(int type, __m512i sum, __m512i sum8)
{
    if (has_min(type))
        return sum;
    if (type == EL_TYPE_MXFP4)
        return _mm512_sub_epi32(sum, _mm512_add_epi32(sum8, _mm512_srai_epi32(sum8, 1)));
    return _mm512_sub_epi32(sum, _mm512_slli_epi32(sum8, type == EL_TYPE_Q4_0 ? 0 : type == EL_TYPE_Q5_0 ? 1 : 4));
}

/* Nibbles to unsigned weights, without the fifth bit. */
INLINE __m512i look_up(int type, __m512i v)
{
    const __m128i mxfp4 = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    const __m128i iq4 = _mm_xor_si128(load16((const uint8_t *)el_iq4_values), _mm_set1_epi8((char)0x80));

    if (type == EL_TYPE_MXFP4)
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(mxfp4), v);
    return type == EL_TYPE_IQ4_NL ? _mm512_shuffle_epi8(_mm512_broadcast_i32x4(iq4), v) : v;
}

/* Element 4 s + i of each lane's 32 bits as 16 in byte i, added to w. */
INLINE __m512i add_fifth(__m512i w, __m512i bits, int s)
{
    const __m512i byte = _mm512_broadcast_i32x4(
        _mm_add_epi8(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12), _mm_set1_epi8((char)(s / 2))));
    const __m512i place = _mm512_set1_epi32(s % 2 ? (int)0x80402010 : 0x08040201);
    const __mmask64 set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits, byte), place);

    return _mm512_mask_add_epi8(w, set, w, _mm512_set1_epi8(16));
}

/* ---- a block of sixteen rows ---------------------------------------------------------- */

typedef struct row_scales {
    __m512 d, m;
} row_scales;

typedef struct strip_block {
    __m512i w[8]; /* w[s]: weights 4 s .. 4 s + 3, unsigned, row r in lane r */
    row_scales scale;
} strip_block;

/* 2^(e - 128) as el_e8m0_half. */
INLINE __m512 e8m0_half(__m512i e)
{
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);

    return _mm512_castsi512_ps(
        _mm512_mask_mov_epi32(normal, _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2)), subnormal));
}

INLINE row_scales scales_at(int type, const uint8_t *const p[ROWS], size_t at)
{
    row_scales w = {_mm512_setzero_ps(), _mm512_setzero_ps()};

    if (has_min(type))
        split_f16(gather_32(p, at), &w.d, &w.m);
    else
        w.d = type == EL_TYPE_MXFP4
                  ? e8m0_half(_mm512_and_si512(_mm512_cvtepu16_epi32(gather_16(p, at)), _mm512_set1_epi32(255)))
                  : gather_f16(p, at);
    return w;
}

INLINE strip_block unpack(int type, const uint8_t *const p[ROWS], size_t at)
{
    const __m512i nibble = _mm512_set1_epi8(15);
    const size_t quants = at + quants_at(type);
    strip_block u;

    u.scale = scales_at(type, p, at);
    if (type == EL_TYPE_Q8_0) {
        transpose_32(u.w, p, quants);
        for (int s = 0; s < 8; s++)
            u.w[s] = _mm512_xor_si512(u.w[s], _mm512_set1_epi8((char)0x80));
        return u;
    }
    transpose_at(u.w, p, quants);
    for (int s = 0; s < 4; s++) {
        u.w[s + 4] = look_up(type, _mm512_and_si512(_mm512_srli_epi16(u.w[s], 4), nibble));
        u.w[s] = look_up(type, _mm512_and_si512(u.w[s], nibble));
    }
    if (has_fifth(type)) {
        const __m512i bits = gather_32(p, quants - 4);
        for (int s = 0; s < 8; s++)
            u.w[s] = add_fifth(u.w[s], bits, s);
    }
    return u;
}

/* ---- strips ----------------------------------------------------------------------------- */

enum {
    X_CHUNK = 64,      /* activation rows of a pass over the weights */
    TILE = 8,          /* of them multiplied at once, at most */
    STRIPS = 2,        /* weight rows multiplied at once, in sixteens */
    RUN = 16,          /* blocks unpacked at once */
    STRIP_BYTES = 640, /* of an unpacked block: w, d, m */
};

enum { AHEAD_BYTES = 16384 };

/* How far a prefetch runs ahead, in file order: 16 KB, but at least the rows at hand, which are being read already.
 * Zen 5 with Q4_0 and k = 2048 from memory: 30 GB/s at 9 KB, 37 at 18 KB; with Q8_0 34 at 17 KB, 32 at 35 KB. */
INLINE int64_t rows_ahead(int64_t at_hand, size_t row_bytes)
{
    return EL_MAX(at_hand, (int64_t)(AHEAD_BYTES / row_bytes));
}

typedef struct workspace {
    uint8_t strips[STRIPS][RUN * STRIP_BYTES];
    float acc[STRIPS][X_CHUNK * ROWS];
} workspace;

INLINE void unpack_run(int type, uint8_t *strip, const uint8_t *const p[ROWS], size_t at, int64_t n,
                       const uint8_t *ahead)
{
    for (int64_t b = 0; b < n; b++, at += block_bytes(type), strip += STRIP_BYTES) {
        const strip_block u = unpack(type, p, at);
        for (size_t line = 0; line < ROWS * block_bytes(type); line += 64)
            _mm_prefetch((const char *)(ahead + ROWS * at + line), _MM_HINT_T0);
        for (int s = 0; s < 8; s++)
            _mm512_store_si512(strip + 64 * s, u.w[s]);
        _mm512_store_ps((float *)(strip + 512), u.scale.d);
        if (has_min(type))
            _mm512_store_ps((float *)(strip + 576), u.scale.m);
    }
}

/* ---- multiplying -------------------------------------------------------------------------- */

INLINE __m512i four(const uint8_t *q) { return _mm512_set1_epi32((int)el_load32(q)); }

/* Where a block's sum begins: minus offset times the sum of its activations. */
INLINE __m512i start_of(int type, const uint8_t *sum8)
{
    const __m512i zero = _mm512_setzero_si512();

    return has_min(type) ? zero : less_offset(type, zero, four(sum8));
}

/* acc[t][j][16]: the sums of strip t's rows for activation row j of n, over n_blocks more blocks from block b on. */
INLINE void tile(int type, int n, workspace *ws, int64_t first, const uint8_t *x, size_t x_stride, int64_t k, int64_t b,
                 int64_t n_blocks)
{
    const uint8_t *d = x + el_act32_d(k) + 4 * b, *s_x = x + el_act32_s(k) + 4 * b,
                  *sum8 = x + el_act32_sum8(k) + 4 * b;
    const uint8_t *strip = ws->strips[0];
    float *acc = ws->acc[0] + ROWS * first;

    x += 32 * b;
    for (; n_blocks > 0; n_blocks--, strip += STRIP_BYTES, x += 32, d += 4, s_x += 4, sum8 += 4) {
        __m512i i[STRIPS][TILE];
#pragma GCC unroll 8
        for (int j = 0; j < n; j++)
            i[0][j] = i[1][j] = start_of(type, sum8 + (size_t)j * x_stride);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            __m512i w[STRIPS][4];
#pragma GCC unroll 4
            for (int s = 0; s < 4; s++)
                for (int t = 0; t < STRIPS; t++)
                    w[t][s] = _mm512_load_si512(strip + t * RUN * STRIP_BYTES + 256 * half + 64 * s);
#pragma GCC unroll 8
            for (int j = 0; j < n; j++)
#pragma GCC unroll 4
                for (int s = 0; s < 4; s++) {
                    const __m512i q = four(x + (size_t)j * x_stride + 16 * half + 4 * s);
                    for (int t = 0; t < STRIPS; t++)
                        i[t][j] = _mm512_dpbusd_epi32(i[t][j], w[t][s], q);
                }
        }
#pragma GCC unroll 8
        for (int j = 0; j < n; j++) {
            const __m512 x_d = _mm512_castsi512_ps(four(d + (size_t)j * x_stride));
            for (int t = 0; t < STRIPS; t++) {
                const uint8_t *scales = strip + t * RUN * STRIP_BYTES + 512;
                float *to = acc + t * X_CHUNK * ROWS + ROWS * j;
                __m512 sum = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_load_ps(scales), x_d), _mm512_cvtepi32_ps(i[t][j]),
                                             _mm512_load_ps(to));
                if (has_min(type))
                    sum = _mm512_fmadd_ps(_mm512_load_ps(scales + 64),
                                          _mm512_castsi512_ps(four(s_x + (size_t)j * x_stride)), sum);
                _mm512_store_ps(to, sum);
            }
        }
    }
}

typedef void tile_fn(workspace *ws, int64_t first, const uint8_t *x, size_t x_stride, int64_t k, int64_t b,
                     int64_t n_blocks);

#define TILE_OF(NAME, TYPE, N)                                                                                         \
    static void tile_##NAME##_##N(workspace *ws, int64_t first, const uint8_t *x, size_t x_stride, int64_t k,          \
                                  int64_t b, int64_t n_blocks)                                                         \
    {                                                                                                                  \
        tile(TYPE, N, ws, first, x, x_stride, k, b, n_blocks);                                                         \
    }
#define TILES(NAME, TYPE)                                                                                              \
    TILE_OF(NAME, TYPE, 1)                                                                                             \
    TILE_OF(NAME, TYPE, 2)                                                                                             \
    TILE_OF(NAME, TYPE, 3)                                                                                             \
    TILE_OF(NAME, TYPE, 4)                                                                                             \
    TILE_OF(NAME, TYPE, 5)                                                                                             \
    TILE_OF(NAME, TYPE, 6)                                                                                             \
    TILE_OF(NAME, TYPE, 7)                                                                                             \
    TILE_OF(NAME, TYPE, 8)                                                                                             \
    static tile_fn *const tiles_##NAME[TILE] = {tile_##NAME##_1, tile_##NAME##_2, tile_##NAME##_3, tile_##NAME##_4,    \
                                                tile_##NAME##_5, tile_##NAME##_6, tile_##NAME##_7, tile_##NAME##_8};

/* What types have in common when it comes to multiplying: what is taken off again. */
TILES(min, EL_TYPE_Q4_1)
TILES(less_8, EL_TYPE_Q4_0)
TILES(less_12, EL_TYPE_MXFP4)
TILES(less_16, EL_TYPE_Q5_0)
TILES(less_128, EL_TYPE_Q8_0)

INLINE tile_fn *const *tiles_of(int type)
{
    return has_min(type)           ? tiles_min
           : type == EL_TYPE_Q4_0  ? tiles_less_8
           : type == EL_TYPE_MXFP4 ? tiles_less_12
           : type == EL_TYPE_Q5_0  ? tiles_less_16
                                   : tiles_less_128;
}

/* y for n <= X_CHUNK activation rows. */
INLINE void matmul_chunk(int type, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes, int64_t n_rows,
                         const uint8_t *x, size_t x_stride, int64_t n, int64_t k, workspace *ws)
{
    const int64_t n_groups = (n + TILE - 1) / TILE;
    const uint8_t *p[STRIPS][ROWS];

    for (int64_t row = 0; row < n_rows; row += STRIPS * ROWS) {
        const uint8_t *ahead = w + (size_t)(row + rows_ahead(STRIPS * ROWS, row_bytes)) * row_bytes;
        for (int t = 0; t < STRIPS; t++) {
            row_pointers(p[t], w, row_bytes, row + t * ROWS, n_rows);
            memset(ws->acc[t], 0, (size_t)(n * ROWS) * sizeof(float));
        }
        for (int64_t b = 0; b < k / 32; b += RUN) {
            const int64_t run = EL_MIN(k / 32 - b, (int64_t)RUN);
            for (int t = 0; t < STRIPS; t++)
                unpack_run(type, ws->strips[t], p[t], (size_t)b * block_bytes(type), run,
                           ahead + (size_t)(t * ROWS) * row_bytes);
            for (int64_t g = 0; g < n_groups; g++) {
                const int64_t first = g * n / n_groups, end = (g + 1) * n / n_groups;
                tiles_of(type)[end - first - 1](ws, first, x + (size_t)first * x_stride, x_stride, k, b, run);
            }
        }
        for (int64_t j = 0; j < n; j++)
            for (int t = 0; t < STRIPS; t++)
                if (row + t * ROWS < n_rows)
                    store_lanes(y + j * ldy + row + t * ROWS, _mm512_load_ps(ws->acc[t] + j * ROWS),
                                n_rows - row - t * ROWS);
    }
}

#endif
