/* attention_avx512.c - attention over one segment; the same bits as attention_ref.c. Up to four queries share what is
 * loaded. Many queries score against K turned to columns, a lane a position, so that nothing is ever folded across
 * lanes; few queries do not pay for the turning: their lanes run along the head, and the sums of 16 positions are
 * folded together. */
#include "lanes_avx512.h"

#include "attention_scores_avx512.h"
#include "blocks.h"
#include "mem.h"

/* Columns pay only with many queries and short rows. Measured on Zen 5, 512 positions in f16, by rows and by columns:
 * 8 queries of 64: 6.9 and 7.5 us; 32 of 64: 27.8 and 25.6; 32 of 128: 45.9 and 48.7; 32 of 256: 79.6 and 82.9. */
INLINE bool wants_columns(const el_attn *a) { return a->n_q > 8 && a->head_k < 128; }

typedef struct work { /* views of the scratch */
    float *queries;   /* [n_q][width]: padded with zeros to whole sums of 16 */
    float *scores;    /* [n_q][EL_ATTN_SEGMENT], then exp(score - max) */
    float *rows;      /* [EL_ATTN_BLOCK][width] */
    float *columns;   /* [width][EL_ATTN_BLOCK] */
    int64_t width;    /* of the larger head, a multiple of 16 */
} work;

INLINE int64_t round16(int64_t n) { return (n + 15) & ~(int64_t)15; }

/* ---- rows of the cache ---------------------------------------------------------------- */

typedef struct side { /* K or V */
    const uint8_t *data;
    size_t stride;
    el_kv_type type;
    int32_t head;
} side;

INLINE side side_k(const el_attn *a) { return (side){a->k, a->k_stride, a->k_type, a->head_k}; }
INLINE side side_v(const el_attn *a) { return (side){a->v, a->v_stride, a->v_type, a->head_v}; }

static void convert_row(float *y, el_kv_type type, const uint8_t *row, int32_t n)
{
    for (int32_t i = 0; i < n; i += 16) {
        const __mmask16 some = el_first_lanes(n - i);
        __m512 v;
        if (type == EL_KV_F32) {
            v = _mm512_maskz_loadu_ps(some, row + 4 * i);
        } else if (type == EL_KV_F16) {
            v = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(some, row + 2 * i));
        } else {
            const uint8_t *block = row + i / 32 * 34;
            const __m128i q = _mm_loadu_si128((const __m128i *)(block + 2 + i % 32));
            v = _mm512_mul_ps(_mm512_set1_ps(_cvtsh_ss(el_load16(block))), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)));
        }
        _mm512_storeu_ps(y + i, v);
    }
}

INLINE const uint8_t *block_of(const el_attn *a, const side *s, int32_t block)
{
    return s->data + (size_t)a->blocks[block] * EL_ATTN_BLOCK * s->stride;
}

/* The rows of a block as they lie in the cache, or converted (then begin .. end - 1 only). */
INLINE view block_rows(const el_attn *a, const side *s, const work *w, int32_t block, span in)
{
    const uint8_t *data = block_of(a, s, block);

    if (s->type != EL_KV_Q8_0 && s->head % 16 == 0)
        return (view){data, s->stride, s->type == EL_KV_F16};
    for (int32_t p = in.begin; p < in.end; p++)
        convert_row(w->rows + p * w->width, s->type, data + (size_t)p * s->stride, s->head);
    return (view){(const uint8_t *)w->rows, (size_t)w->width * sizeof(float), false};
}

enum { AHEAD = 1 }; /* blocks; 2 was up to 9 % better alone, but the next segment may be another worker's */

/* Asks for the rows that come AHEAD blocks after step i: a segment is K's blocks, then V's, then the next segment's K.
 * With few queries memory sets the pace, and rows of one head lie apart, which the CPU's own prefetching follows badly:
 * 3 queries of 64 over 47 MB of cache took 5.9 ms without, 3.1 ms with this. Inline, because gcc 12 drops calls of a
 * function that only prefetches. */
INLINE void prefetch_ahead(const el_attn *a, int32_t base, span all, int32_t i)
{
    const int32_t first = all.begin / EL_ATTN_BLOCK, n = (all.end - 1) / EL_ATTN_BLOCK - first + 1, at = i + AHEAD;
    const int32_t next = base + EL_ATTN_SEGMENT + (at - 2 * n) * EL_ATTN_BLOCK; /* a position */
    const side s = at < n || at >= 2 * n ? side_k(a) : side_v(a);
    const int32_t bytes = s.type == EL_KV_F32 ? s.head * 4 : s.type == EL_KV_F16 ? s.head * 2 : s.head / 32 * 34;
    const uint8_t *row;

    if (a->n_q > TILE || (at >= 2 * n && next >= a->last[0]))
        return;
    row = block_of(a, &s, at >= 2 * n ? next / EL_ATTN_BLOCK : base / EL_ATTN_BLOCK + first + at % n);
    for (int32_t p = 0; p < EL_ATTN_BLOCK; p++, row += s.stride)
        for (int32_t byte = 0; byte < bytes; byte += 64)
            _mm_prefetch((const char *)row + byte, _MM_HINT_T0);
}

/* ---- scores to weights ---------------------------------------------------------------- */

INLINE __m512 finished(__m512 dots, const el_attn *a)
{
    const __m512 s = _mm512_mul_ps(dots, _mm512_set1_ps(a->scale)), cap = _mm512_set1_ps(a->softcap);

    return a->softcap != 0 ? _mm512_mul_ps(cap, el_tanh_lanes(_mm512_div_ps(s, cap))) : s;
}

/* Query i's dot products to exp(score - max) over the span; 0 around it, up to whole groups of 16. */
static void weigh(float *scores, const el_attn *a, int32_t i_q, int32_t base, span in, float *max, float *sum)
{
    const __m512 slope = _mm512_set1_ps(a->slopes ? -a->slopes[i_q] : 0);
    const int32_t own = a->slopes ? a->positions[i_q] - base - in.begin : 0; /* the query's place, from the span's */
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 peak = _mm512_set1_ps(-INFINITY), p = _mm512_setzero_ps(), top;

    for (int32_t i = in.begin & ~15; i < in.end; i += 16) {
        const __m512i place = _mm512_add_epi32(_mm512_set1_epi32(i - in.begin), lanes); /* negative: before it */
        const __mmask16 seen = _mm512_cmplt_epu32_mask(place, _mm512_set1_epi32(in.end - in.begin));
        const __m512i away = _mm512_abs_epi32(_mm512_sub_epi32(_mm512_set1_epi32(own), place));
        const __m512 plain = finished(_mm512_loadu_ps(scores + i), a);
        const __m512 s = a->slopes ? _mm512_fmadd_ps(slope, _mm512_cvtepi32_ps(away), plain) : plain;
        const __m512 visible = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), seen, s);
        _mm512_storeu_ps(scores + i, visible);
        peak = _mm512_max_ps(visible, peak);
    }
    *max = el_largest_lane(peak);
    top = _mm512_set1_ps(*max);
    for (int32_t i = in.begin & ~15; i < in.end; i += 16) {
        const __m512 e = el_exp_lanes(_mm512_sub_ps(_mm512_loadu_ps(scores + i), top));
        _mm512_storeu_ps(scores + i, e);
        p = _mm512_add_ps(p, e);
    }
    *sum = el_fold_lanes(p);
}

/* ---- weighted sums of V --------------------------------------------------------------- */

/* 16 * n_lanes floats of each acc, kept in registers over the positions. */
INLINE void gather_lanes(bool f16, int n_q, int n_lanes, float *acc, size_t one, const float *weights, view v,
                         int64_t d, span in)
{
    __m512 sum[4 * TILE], row[4];

    for (int t = 0; t < n_q * n_lanes; t++)
        sum[t] = _mm512_loadu_ps(acc + (size_t)(t / n_lanes) * one + d + t % n_lanes * 16);
    for (int32_t p = in.begin; p < in.end; p++) {
        for (int l = 0; l < n_lanes; l++)
            row[l] = load_16(f16, v.data + (size_t)p * v.stride, d + 16 * l);
        for (int t = 0; t < n_q * n_lanes; t++)
            sum[t] =
                _mm512_fmadd_ps(_mm512_set1_ps(weights[t / n_lanes * EL_ATTN_SEGMENT + p]), row[t % n_lanes], sum[t]);
    }
    for (int t = 0; t < n_q * n_lanes; t++)
        _mm512_storeu_ps(acc + (size_t)(t / n_lanes) * one + d + t % n_lanes * 16, sum[t]);
}

INLINE void gather_rows(bool f16, int n_q, float *acc, size_t one, const float *weights, view v, int64_t n, span in)
{
    int64_t d = 0;

    for (; d + 64 <= n; d += 64)
        gather_lanes(f16, n_q, 4, acc, one, weights, v, d, in);
    for (; d < n; d += 16)
        gather_lanes(f16, n_q, 1, acc, one, weights, v, d, in);
}

/* ---- tiles of one to four queries ------------------------------------------------------ */

#define FOR_N_Q(N, CALL)                                                                                               \
    switch (N) {                                                                                                       \
    case 1:                                                                                                            \
        CALL(1);                                                                                                       \
        break;                                                                                                         \
    case 2:                                                                                                            \
        CALL(2);                                                                                                       \
        break;                                                                                                         \
    case 3:                                                                                                            \
        CALL(3);                                                                                                       \
        break;                                                                                                         \
    default:                                                                                                           \
        CALL(4);                                                                                                       \
    }

static void score_tile(int32_t n_q, float *scores, const float *q, int64_t width, view k, const float *columns,
                       int64_t n, span in)
{
#define FROM_COLUMNS(N) score_columns(N, scores, q, width, columns, n)
#define FROM_F16(N) score_rows(true, N, scores, q, width, k, n, in)
#define FROM_F32(N) score_rows(false, N, scores, q, width, k, n, in)
    if (columns)
        FOR_N_Q(n_q, FROM_COLUMNS)
    else if (k.f16)
        FOR_N_Q(n_q, FROM_F16)
    else
        FOR_N_Q(n_q, FROM_F32)
}

static void gather_some(int32_t n_q, float *acc, size_t one, const float *weights, view v, int64_t n, span in)
{
#define GATHER_F16(N) gather_rows(true, N, acc, one, weights, v, n, in)
#define GATHER_F32(N) gather_rows(false, N, acc, one, weights, v, n, in)
    if (in.begin >= in.end)
        return;
    if (v.f16)
        FOR_N_Q(n_q, GATHER_F16)
    else
        FOR_N_Q(n_q, GATHER_F32)
}

/* Positions that only some see are done for each query alone, before and after those that all see. */
static void gather_tile(int32_t n_q, const span *spans, float *acc, size_t one, const float *weights, view v, int64_t n)
{
    span shared = {0, EL_ATTN_BLOCK};

    for (int32_t i = 0; i < n_q; i++)
        shared = (span){EL_MAX(shared.begin, spans[i].begin), EL_MIN(shared.end, spans[i].end)};
    if (shared.begin >= shared.end)
        shared = (span){EL_ATTN_BLOCK, EL_ATTN_BLOCK};
    for (int32_t i = 0; i < n_q; i++)
        gather_some(1, acc + (size_t)i * one, one, weights + i * EL_ATTN_SEGMENT, v, n,
                    (span){spans[i].begin, EL_MIN(spans[i].end, shared.begin)});
    gather_some(n_q, acc, one, weights, v, n, shared);
    for (int32_t i = 0; i < n_q; i++)
        gather_some(1, acc + (size_t)i * one, one, weights + i * EL_ATTN_SEGMENT, v, n,
                    (span){EL_MAX(spans[i].begin, shared.end), spans[i].end});
}

/* ---- the segment ---------------------------------------------------------------------- */

/* What the queries i .. i + n_q - 1 see of a block; false: nothing. */
static bool spans_of(span spans[TILE], const el_attn *a, int32_t i, int32_t n_q, int32_t base, int32_t block)
{
    bool any = false;

    for (int32_t j = 0; j < n_q; j++) {
        spans[j] = within(span_of(a, i + j, base), block);
        any |= spans[j].begin < spans[j].end;
    }
    return any;
}

INLINE bool covers(span s, int32_t block) { return s.begin <= block && block + EL_ATTN_BLOCK <= s.end; }

static void score_all(const el_attn *a, const work *w, int32_t base, span all, span shared)
{
    const side k = side_k(a);
    const int64_t n = round16(a->head_k);
    const float *columns = wants_columns(a) ? w->columns : NULL;
    int32_t done = 0;

    for (int32_t b = all.begin & ~(EL_ATTN_BLOCK - 1); b < all.end; b += EL_ATTN_BLOCK) {
        const span in = within(all, b);
        const view rows = block_rows(a, &k, w, (base + b) / EL_ATTN_BLOCK, in);
        prefetch_ahead(a, base, all, done++);
        if (columns)
            turn_rows(w->columns, rows, n);
        for (int32_t i = 0; i < a->n_q; i += TILE) {
            span spans[TILE];
            const int32_t n_q = EL_MIN(a->n_q - i, TILE);
            if (covers(shared, b) || spans_of(spans, a, i, n_q, base, b))
                score_tile(n_q, w->scores + (size_t)i * EL_ATTN_SEGMENT + b, w->queries + i * w->width, w->width, rows,
                           columns, n, in);
        }
    }
}

static void gather_all(const el_attn *a, const work *w, int32_t base, span all, span shared, float *partials)
{
    const side v = side_v(a);
    const size_t one = el_attn_partial_floats(a->head_v);
    const int64_t n = round16(a->head_v);
    int32_t done = (all.end - 1) / EL_ATTN_BLOCK - all.begin / EL_ATTN_BLOCK + 1;

    for (int32_t b = all.begin & ~(EL_ATTN_BLOCK - 1); b < all.end; b += EL_ATTN_BLOCK) {
        const view rows = block_rows(a, &v, w, (base + b) / EL_ATTN_BLOCK, within(all, b));
        prefetch_ahead(a, base, all, done++);
        for (int32_t i = 0; i < a->n_q; i += TILE) {
            const int32_t n_q = EL_MIN(a->n_q - i, TILE);
            const float *weights = w->scores + (size_t)i * EL_ATTN_SEGMENT + b;
            span spans[TILE];
            if (covers(shared, b))
                gather_some(n_q, partials + (size_t)i * one, one, weights, rows, n, (span){0, EL_ATTN_BLOCK});
            else if (spans_of(spans, a, i, n_q, base, b))
                gather_tile(n_q, spans, partials + (size_t)i * one, one, weights, rows, n);
        }
    }
}

INLINE work work_of(const el_attn *a, void *scratch)
{
    work w = {.width = round16(EL_MAX(a->head_k, a->head_v))};

    w.scores = scratch;
    w.queries = w.scores + (size_t)a->n_q * EL_ATTN_SEGMENT;
    w.rows = w.queries + a->n_q * w.width;
    w.columns = w.rows + EL_ATTN_BLOCK * w.width;
    for (int32_t i = 0; i < a->n_q; i++) {
        float *q = w.queries + i * w.width;
        memcpy(q, a->q + (size_t)i * a->q_stride, (size_t)a->head_k * sizeof *q);
        memset(q + a->head_k, 0, (size_t)(w.width - a->head_k) * sizeof *q);
    }
    return w;
}

static void attn_segment(const el_attn *a, int32_t segment, float *partials, void *scratch)
{
    const int32_t base = segment * EL_ATTN_SEGMENT;
    const size_t one = el_attn_partial_floats(a->head_v);
    const span all = span_of_all(a, base), shared = span_of_each(a, base);
    const work w = work_of(a, scratch);

    memset(partials, 0, (size_t)a->n_q * one * sizeof *partials);
    score_all(a, &w, base, all, shared);
    for (int32_t i = 0; i < a->n_q; i++) {
        const span in = span_of(a, i, base);
        float *max = partials + (size_t)(i + 1) * one - 16;
        if (in.begin < in.end)
            weigh(w.scores + (size_t)i * EL_ATTN_SEGMENT, a, i, base, in, max, max + 1);
        else
            *max = -INFINITY;
    }
    gather_all(a, &w, base, all, shared, partials);
}

void el_attention_use_avx512(el_kernels *t) { t->attn_segment = attn_segment; }
