/* attention_avx2.c - attention over one segment: K and V are converted to float once per block of 32 positions and
 * used by all queries; scores of eight positions are folded together. The same bits as attention_ref.c. */
#include "lanes_avx2.h"

#include "attention_spans.h"
#include "blocks.h"
#include "mem.h"

INLINE int64_t round16(int64_t n) { return (n + 15) & ~(int64_t)15; }

/* ---- rows of the cache as floats ------------------------------------------------------ */

static void convert_row(float *y, el_kv_type type, const uint8_t *row, int32_t n)
{
    int32_t i = 0;

    if (type == EL_KV_F32) {
        memcpy(y, row, (size_t)n * sizeof *y);
        i = n;
    } else if (type == EL_KV_F16) {
        for (; i + 8 <= n; i += 8)
            _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(row + 2 * i))));
        for (; i < n; i++)
            y[i] = el_f16_value(el_load16(row + 2 * i));
    } else {
        for (; i < n; i += 32, row += 34) {
            const __m256 d = _mm256_set1_ps(el_f16_value(el_load16(row)));
            for (int32_t e = 0; e < 32; e += 8) {
                const __m256i q = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(row + 2 + e)));
                _mm256_storeu_ps(y + i + e, _mm256_mul_ps(d, _mm256_cvtepi32_ps(q)));
            }
        }
    }
    for (; i < round16(n); i++)
        y[i] = 0;
}

/* ---- scores --------------------------------------------------------------------------- */

INLINE __m256 dot_lanes(const float *q, const float *k, int64_t n)
{
    __m256 a = _mm256_setzero_ps(), b = a;

    for (int64_t i = 0; i < n; i += 16) {
        a = _mm256_fmadd_ps(_mm256_loadu_ps(q + i), _mm256_loadu_ps(k + i), a);
        b = _mm256_fmadd_ps(_mm256_loadu_ps(q + i + 8), _mm256_loadu_ps(k + i + 8), b);
    }
    return _mm256_add_ps(a, b);
}

INLINE __m256 join_halves(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_blend_ps(a, b, 0xf0), _mm256_permute2f128_ps(a, b, 0x21));
}

INLINE __m256 fold_pair(__m256 a, __m256 b)
{
    const __m256 crossed = _mm256_castsi256_ps(_mm256_alignr_epi8(_mm256_castps_si256(b), _mm256_castps_si256(a), 8));

    return _mm256_add_ps(_mm256_blend_ps(a, b, 0xcc), crossed);
}

/* The rest of the fold of 16 for eight positions at once: lane i is position i. */
INLINE __m256 dot_8(const float *q, const float *k, int64_t stride, int64_t n)
{
    const __m256 a = join_halves(dot_lanes(q, k, n), dot_lanes(q, k + 4 * stride, n));
    const __m256 b = join_halves(dot_lanes(q, k + stride, n), dot_lanes(q, k + 5 * stride, n));
    const __m256 ab = fold_pair(a, b);
    const __m256 c = join_halves(dot_lanes(q, k + 2 * stride, n), dot_lanes(q, k + 6 * stride, n));
    const __m256 d = join_halves(dot_lanes(q, k + 3 * stride, n), dot_lanes(q, k + 7 * stride, n));
    const __m256 cd = fold_pair(c, d);

    return _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x88), _mm256_shuffle_ps(ab, cd, 0xdd));
}

INLINE __m256 finished(__m256 dots, const el_attn *a)
{
    const __m256 s = _mm256_mul_ps(dots, _mm256_set1_ps(a->scale)), cap = _mm256_set1_ps(a->softcap);

    return a->softcap != 0 ? _mm256_mul_ps(cap, el_tanh_lanes(_mm256_div_ps(s, cap))) : s;
}

/* Whole groups of eight, so also for a few positions around the span; those are discarded by weigh(). */
INLINE void score(float *scores, const float *q, const float *rows, int64_t stride, const el_attn *a, span in)
{
    const int64_t n = round16(a->head_k);

    for (int32_t p = in.begin & ~7; p < in.end; p += 8)
        _mm256_storeu_ps(scores + p, finished(n == 64    ? dot_8(q, rows + p * stride, stride, 64)
                                              : n == 128 ? dot_8(q, rows + p * stride, stride, 128)
                                                         : dot_8(q, rows + p * stride, stride, n),
                                              a));
}

/* Scores to exp(score - max) over the span; 0 around it, up to whole groups of 16. */
INLINE void weigh(float *scores, span in, float *max, float *sum)
{
    const int32_t begin = in.begin & ~15, end = (in.end + 15) & ~15;
    __m256 peak = _mm256_set1_ps(-INFINITY), top, p = _mm256_setzero_ps(), q = p;

    for (int32_t i = begin; i < in.begin; i++)
        scores[i] = -INFINITY;
    for (int32_t i = in.end; i < end; i++)
        scores[i] = -INFINITY;
    for (int32_t i = begin; i < end; i += 8)
        peak = _mm256_max_ps(_mm256_loadu_ps(scores + i), peak);
    *max = el_largest_lane(peak);
    top = _mm256_set1_ps(*max);
    for (int32_t i = begin; i < end; i += 16) {
        const __m256 a = el_exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(scores + i), top));
        const __m256 b = el_exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(scores + i + 8), top));
        _mm256_storeu_ps(scores + i, a);
        _mm256_storeu_ps(scores + i + 8, b);
        p = _mm256_add_ps(p, a);
        q = _mm256_add_ps(q, b);
    }
    *sum = el_fold_lanes(p, q);
}

/* ---- weighted sums of V --------------------------------------------------------------- */

/* 8 * n_lanes floats of acc, kept in registers over the positions. */
INLINE void gather_lanes(int n_lanes, float *acc, const float *weights, const float *rows, int64_t stride, span in)
{
    __m256 sum[8];

    for (int i = 0; i < n_lanes; i++)
        sum[i] = _mm256_loadu_ps(acc + 8 * i);
    for (int32_t p = in.begin; p < in.end; p++) {
        const __m256 weight = _mm256_set1_ps(weights[p]);
        for (int i = 0; i < n_lanes; i++)
            sum[i] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(rows + p * stride + 8 * i), sum[i]);
    }
    for (int i = 0; i < n_lanes; i++)
        _mm256_storeu_ps(acc + 8 * i, sum[i]);
}

INLINE void gather(float *acc, const float *weights, const float *rows, int64_t stride, int64_t n, span in)
{
    int64_t d = 0;

    for (; d + 64 <= n; d += 64)
        gather_lanes(8, acc + d, weights, rows + d, stride, in);
    for (; d < n; d += 16)
        gather_lanes(2, acc + d, weights, rows + d, stride, in);
}

#include "attention_blocks.h"

/* ---- segments joined ------------------------------------------------------------------- */

static void attn_combine(float *y, const float *partials, size_t stride, int64_t n, float sink, int32_t head_v)
{
    const size_t at = el_attn_partial_floats(head_v) - 16;
    float max = sink, total = 0;

    for (int64_t s = 0; s < n; s++)
        max = partials[(size_t)s * stride + at] > max ? partials[(size_t)s * stride + at] : max;
    if (sink > -INFINITY)
        total = el_expf(sink - max);
    memset(y, 0, (size_t)head_v * sizeof *y);
    for (int64_t s = 0; s < n; s++) {
        const float *partial = partials + (size_t)s * stride;
        const float f = partial[at] > -INFINITY ? el_expf(partial[at] - max) : 0;
        if (partial[at + 1] == 0)
            continue;
        total = fmaf(partial[at + 1], f, total);
        for (int64_t d = 0, left = head_v; left > 0; d += 8, left -= 8)
            el_store_lanes(
                y + d, _mm256_fmadd_ps(el_load_lanes(partial + d, left), _mm256_set1_ps(f), el_load_lanes(y + d, left)),
                left);
    }
    for (int64_t d = 0, left = head_v; left > 0; d += 8, left -= 8)
        el_store_lanes(y + d, _mm256_mul_ps(el_load_lanes(y + d, left), _mm256_set1_ps(1.0f / total)), left);
}

void el_attention_use_avx2(el_kernels *t)
{
    t->attn_segment = attn_segment;
    t->attn_combine = attn_combine;
}
