/* strips_avx512.h - weights in blocks of 32, sixteen rows in sixteen lanes, times several activation rows. For
 * matmul_avx512.c only.
 *
 * Some blocks of a strip of sixteen weight rows are transposed, four consecutive weights of a row in each lane, into
 * memory (of the first level), and every group of up to eight activation rows passes over two such strips: then a load
 * serves two or eight multiplications. Zen 5 loads two vectors and multiplies two in a cycle, and of the ten
 * multiplications that a block takes eight are the weights'. The idea of unpacking once and of a register tile is
 * Goto's ("Anatomy of high-performance matrix multiplication", 2008). */
#ifndef EL_STRIPS_AVX512_H
#define EL_STRIPS_AVX512_H

#include "strip_block_avx512.h"

/* ---- strips ----------------------------------------------------------------------------- */

enum {
    X_CHUNK = 128,     /* activation rows of a pass over the weights: 64 are 5 % slower, Q6_K, 512 rows */
    TILE = 8,          /* of them multiplied at once, at most */
    STRIPS = 2,        /* weight rows multiplied at once, in sixteens */
    RUN = 16,          /* blocks unpacked at once; half as many when one group is all: then memory sets the pace */
    STRIP_BYTES = 640, /* of an unpacked block: w, d, m */
    ACC_FLOATS =
        (X_CHUNK + 18) * ROWS, /* of a strip's sums: not 4 KB, where loads wait for stores that only look alike */
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
    float acc[STRIPS][ACC_FLOATS];
} workspace;

INLINE void store_block(int type, uint8_t *strip, const strip_block *u)
{
    for (int s = 0; s < 8; s++)
        _mm512_store_si512(strip + 64 * s, u->w[s]);
    _mm512_store_ps((float *)(strip + 512), u->scale.d);
    if (has_min(type))
        _mm512_store_ps((float *)(strip + 576), u->scale.m);
}

INLINE void unpack_run(int type, uint8_t *strip, const uint8_t *const p[ROWS], size_t at, int64_t n)
{
    const int step = in_pairs(type) ? 2 : 1;
    strip_block u[2];

    for (; n > 0; n -= step, at += (size_t)step * block_bytes(type), strip += step * STRIP_BYTES) {
        if (n < step) {
            unpack(type, u, p, at);
            store_block(type, strip, u);
            break;
        }
        if (step == 1) {
            unpack(type, u, p, at);
        } else {
            unpack_pair(type, u, p, at);
            store_block(type, strip + STRIP_BYTES, u + 1);
        }
        store_block(type, strip, u);
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

/* acc[t][first + j][16]: the sums of strip t's rows for activation row j of n, over n_blocks more blocks from block b
 * on. Here, and not where strips are unpacked, is the time to ask the memory for what comes next, `lines` per block. */
INLINE void tile(int type, int n, workspace *ws, int64_t first, const uint8_t *x, size_t x_stride, int64_t k, int64_t b,
                 int64_t n_blocks, const uint8_t *ahead, int64_t lines)
{
    const uint8_t *d = x + el_act32_d(k) + 4 * b, *s_x = x + el_act32_s(k) + 4 * b,
                  *sum8 = x + el_act32_sum8(k) + 4 * b;
    const uint8_t *strip = ws->strips[0];
    float *acc = ws->acc[0] + ROWS * first;

    x += 32 * b;
    for (; n_blocks > 0; n_blocks--, strip += STRIP_BYTES, x += 32, d += 4, s_x += 4, sum8 += 4) {
        __m512i i[STRIPS][TILE];
        for (int64_t line = 0; line < lines; line++, ahead += 64)
            _mm_prefetch((const char *)ahead, _MM_HINT_T0);
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
                float *to = acc + t * ACC_FLOATS + ROWS * j;
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
                     int64_t n_blocks, const uint8_t *ahead, int64_t lines);

#define TILE_OF(NAME, TYPE, N)                                                                                         \
    static void tile_##NAME##_##N(workspace *ws, int64_t first, const uint8_t *x, size_t x_stride, int64_t k,          \
                                  int64_t b, int64_t n_blocks, const uint8_t *ahead, int64_t lines)                    \
    {                                                                                                                  \
        tile(TYPE, N, ws, first, x, x_stride, k, b, n_blocks, ahead, lines);                                           \
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
    const int64_t lines = ((int64_t)(STRIPS * ROWS * block_bytes(type)) + 63) / 64;
    const uint8_t *p[STRIPS][ROWS];

    for (int64_t row = 0; row < n_rows; row += STRIPS * ROWS) {
        const uint8_t *ahead = w + (size_t)(row + rows_ahead(STRIPS * ROWS, row_bytes)) * row_bytes;
        for (int t = 0; t < STRIPS; t++) {
            row_pointers(p[t], w, row_bytes, row + t * ROWS, n_rows);
            memset(ws->acc[t], 0, (size_t)(n * ROWS) * sizeof(float));
        }
        for (int64_t b = 0, run; b < k / 32; b += run) {
            run = EL_MIN(k / 32 - b, (int64_t)(n_groups > 1 ? RUN : RUN / 2));
            for (int t = 0; t < STRIPS; t++)
                unpack_run(type, ws->strips[t], p[t], (size_t)b * block_bytes(type), run);
            for (int64_t g = 0; g < n_groups; g++) {
                const int64_t first = g * n / n_groups, end = (g + 1) * n / n_groups;
                tiles_of(type)[end - first - 1](ws, first, x + (size_t)first * x_stride, x_stride, k, b, run,
                                                ahead + STRIPS * ROWS * (size_t)b * block_bytes(type), g ? 0 : lines);
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
