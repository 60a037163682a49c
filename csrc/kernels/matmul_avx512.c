/* matmul_avx512.c - weights in blocks of 32 times activations, sixteen weight rows in sixteen lanes.
 *
 * vpdpbusd adds four products per lane. Its first factor is unsigned: every type's weights are unpacked as
 * q_w + offset, and offset * (sum of q_x) is taken off again, exactly, in int32.
 *
 * One activation row: eight weight rows by two neighbouring blocks, multiplied along K as they lie in the file, then
 * folded into sixteen lanes. (Sixteen rows transposed were slower: more loads, and twice the lines between a prefetch
 * and its use.) Short rows of Q8_0: q8_0_row_avx512.h.
 * More: the activations are packed once per call in the order they are used; then some blocks of a strip of sixteen
 * weight rows are transposed, four consecutive weights of a row in each lane, into memory (of the first level), and
 * every group of up to sixteen activation rows, whose sums stay in registers, passes over them. The idea of packing
 * both sides and a register tile is Goto's ("Anatomy of high-performance matrix multiplication", 2008).
 *
 * Zen 5 and the like load two vectors and multiply two in a cycle, so loads are what counts here. */
#include "q8_0_row_avx512.h"

#include "block_traits.h"

/* ---- what the types differ in: known while compiling, so every branch on it disappears ---- */

/* What makes the weights unsigned. */
INLINE int32_t offset(int type)
{
    return type == EL_TYPE_Q4_0 ? 8 : type == EL_TYPE_Q5_0 ? 16 : type == EL_TYPE_MXFP4 ? 12 : has_min(type) ? 0 : 128;
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
    transpose_at(u.w, p, quants);
    if (type == EL_TYPE_Q8_0) {
        transpose_at(u.w + 4, p, quants + 16);
        for (int s = 0; s < 8; s++)
            u.w[s] = _mm512_xor_si512(u.w[s], _mm512_set1_epi8((char)0x80));
        return u;
    }
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

/* acc += the four products of each lane's unsigned weights with the four activations at q. As assembly, because gcc 12
 * loads the broadcast into a register of its own. */
INLINE __m512i dot4(__m512i acc, __m512i w, const uint8_t *q)
{
    typedef int32_t __attribute__((may_alias, aligned(1))) dword;

    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const dword *)q));
    return acc;
}

enum { AHEAD_BYTES = 16384 };

/* How far a prefetch runs ahead, in file order: 16 KB, but at least the rows at hand, which are being read already.
 * Zen 5 with Q4_0 and k = 2048 from memory: 30 GB/s at 9 KB, 37 at 18 KB; with Q8_0 34 at 17 KB, 32 at 35 KB. */
INLINE int64_t rows_ahead(int64_t at_hand, size_t row_bytes)
{
    return EL_MAX(at_hand, (int64_t)(AHEAD_BYTES / row_bytes));
}

enum { PAIR_ROWS = 8 };

/* ---- one activation row --------------------------------------------------------------- */

INLINE __m512i four(const uint8_t *q) { return _mm512_set1_epi32((int)el_load32(q)); }

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

/* The integer sum of a block less what made its weights unsigned: offset / 8 times sum8. */
INLINE __m512i less_offset(int type, __m512i sum, __m512i sum8)
{
    if (has_min(type))
        return sum;
    if (type == EL_TYPE_MXFP4)
        return _mm512_sub_epi32(sum, _mm512_add_epi32(sum8, _mm512_srai_epi32(sum8, 1)));
    return _mm512_sub_epi32(sum, _mm512_slli_epi32(sum8, type == EL_TYPE_Q4_0 ? 0 : type == EL_TYPE_Q5_0 ? 1 : 4));
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

/* ---- several activation rows: packing ------------------------------------------------- */

enum {
    TILE = 16,         /* activation rows of a group, at most; groups have an even size */
    X_CHUNK = 64,      /* activation rows packed at once */
    RUN = 16,          /* blocks unpacked at once */
    STRIP_BYTES = 640, /* of an unpacked block: w, d, m */
    PACKED_BYTES = 40, /* of a packed activation block: q, d, and what the sum begins with or s_x */
};

typedef struct workspace {
    uint8_t strip[RUN * STRIP_BYTES];
    float acc[X_CHUNK * ROWS];
    uint8_t packed[]; /* per RUN blocks, per group of n rows, per block: q[n][32] | float d[n] | int32 start[n], or
                         float s[n] */
} workspace;

/* n_blocks blocks from block b on of n activation rows, of which n_real exist; the rest count as zeros. */
INLINE void pack(int type, uint8_t *to, const uint8_t *x, size_t x_stride, int64_t n, int64_t n_real, int64_t k,
                 int64_t b, int64_t n_blocks)
{
    const size_t step = PACKED_BYTES * (size_t)n;

    if (n_real < n)
        memset(to, 0, (size_t)n_blocks * step);
    for (int64_t j = 0; j < EL_MIN(n, n_real); j++, x += x_stride) {
        const uint8_t *q = x + 32 * b, *per_block = x + el_act32_d(k) + 4 * b;
        uint8_t *to_q = to + 32 * j, *to_d = to + 32 * n + 4 * j;
        for (int64_t i = 0; i < n_blocks; i++, q += 32, per_block += 4, to_q += step, to_d += step) {
            const int32_t start = -((int32_t)el_load32(per_block + k / 4) >> 3) * offset(type); /* k / 4: to sum8 */
            _mm256_storeu_si256((__m256i *)to_q, load32(q));
            memcpy(to_d, per_block, 4);
            if (has_min(type))
                memcpy(to_d + 4 * n, per_block + k / 8, 4);
            else
                memcpy(to_d + 4 * n, &start, 4);
        }
    }
}

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

/* ---- several activation rows: multiplying --------------------------------------------- */

typedef void tile_fn(float *acc, const uint8_t *strip, const uint8_t *packed, int64_t n_blocks);

/* acc[j][16]: sixteen weight rows' sums for activation row j of n, over n_blocks more blocks. */
INLINE void tile(bool with_min, int n, float *acc, const uint8_t *strip, const uint8_t *packed, int64_t n_blocks)
{
    __m512 sum[TILE];

#pragma GCC unroll 16
    for (int j = 0; j < n; j++)
        sum[j] = _mm512_load_ps(acc + ROWS * j);
    for (; n_blocks > 0; n_blocks--, strip += STRIP_BYTES, packed += PACKED_BYTES * n) {
        const __m512 d = _mm512_load_ps(strip + 512);
        __m512i w[8];
#pragma GCC unroll 8
        for (int s = 0; s < 8; s++)
            w[s] = _mm512_load_si512(strip + 64 * s);
#pragma GCC unroll 16
        for (int j = 0; j < n; j++) {
            const uint8_t *q = packed + 32 * j, *x_d = packed + 32 * n + 4 * j, *x_last = x_d + 4 * n;
            __m512i i = with_min ? _mm512_setzero_si512() : four(x_last);
#pragma GCC unroll 8
            for (int s = 0; s < 8; s++)
                i = dot4(i, w[s], q + 4 * s);
            sum[j] = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_castsi512_ps(four(x_d))), _mm512_cvtepi32_ps(i), sum[j]);
            if (with_min)
                sum[j] = _mm512_fmadd_ps(_mm512_load_ps(strip + 576), _mm512_castsi512_ps(four(x_last)), sum[j]);
        }
    }
#pragma GCC unroll 16
    for (int j = 0; j < n; j++)
        _mm512_store_ps(acc + ROWS * j, sum[j]);
}

#define TILES(N)                                                                                                       \
    static void tile_##N(float *acc, const uint8_t *strip, const uint8_t *packed, int64_t n_blocks)                    \
    {                                                                                                                  \
        tile(false, N, acc, strip, packed, n_blocks);                                                                  \
    }                                                                                                                  \
    static void tile_min_##N(float *acc, const uint8_t *strip, const uint8_t *packed, int64_t n_blocks)                \
    {                                                                                                                  \
        tile(true, N, acc, strip, packed, n_blocks);                                                                   \
    }
TILES(2)
TILES(4)
TILES(6)
TILES(8)
TILES(10)
TILES(12)
TILES(14)
TILES(16)

static tile_fn *const tiles[2][TILE / 2] = {
    {tile_2, tile_4, tile_6, tile_8, tile_10, tile_12, tile_14, tile_16},
    {tile_min_2, tile_min_4, tile_min_6, tile_min_8, tile_min_10, tile_min_12, tile_min_14, tile_min_16},
};

/* y for n <= X_CHUNK activation rows. */
INLINE void matmul_chunk(int type, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes, int64_t n_rows,
                         const uint8_t *x, size_t x_stride, int64_t n, int64_t k, workspace *ws)
{
    const int64_t n_groups = (n + TILE - 1) / TILE, group = ((n + n_groups - 1) / n_groups + 1) & ~(int64_t)1;
    tile_fn *multiply = tiles[has_min(type)][group / 2 - 1];
    const uint8_t *p[ROWS];
    uint8_t *packed = ws->packed;

    for (int64_t b = 0; b < k / 32; b += RUN) {
        const int64_t run = EL_MIN(k / 32 - b, (int64_t)RUN);
        for (int64_t g = 0; g * group < n; g++, packed += run * group * PACKED_BYTES)
            pack(type, packed, x + (size_t)(g * group) * x_stride, x_stride, group, n - g * group, k, b, run);
    }
    for (int64_t row = 0; row < n_rows; row += ROWS) {
        packed = ws->packed;
        row_pointers(p, w, row_bytes, row, n_rows);
        memset(ws->acc, 0, (size_t)(n_groups * group * ROWS) * sizeof(float));
        for (int64_t b = 0; b < k / 32; b += RUN) {
            const int64_t run = EL_MIN(k / 32 - b, (int64_t)RUN);
            unpack_run(type, ws->strip, p, (size_t)b * block_bytes(type), run,
                       w + (size_t)(row + rows_ahead(ROWS, row_bytes)) * row_bytes);
            for (int64_t g = 0; g * group < n; g++, packed += run * group * PACKED_BYTES)
                multiply(ws->acc + g * group * ROWS, ws->strip, packed, run);
        }
        for (int64_t j = 0; j < n; j++)
            store_lanes(y + j * ldy + row, _mm512_load_ps(ws->acc + j * ROWS), n_rows - row);
    }
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
