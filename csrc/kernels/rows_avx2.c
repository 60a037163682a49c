/* rows_avx2.c - operations on rows of floats, eight at a time; the same bits as rows_ref.c. */
#include "lanes_avx2.h"

#include "blocks.h"
#include "mem.h"
#include "top_k.h"

INLINE float dot_of(const float *a, const float *b, int64_t n)
{
    __m256 p = _mm256_setzero_ps(), q = p;
    int64_t i = 0;

    for (; i + 16 <= n; i += 16) {
        p = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), p);
        q = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 8), _mm256_loadu_ps(b + i + 8), q);
    }
    if (i < n) {
        const int64_t rest = EL_MAX(n - i - 8, 0);
        p = _mm256_fmadd_ps(el_load_lanes(a + i, n - i), el_load_lanes(b + i, n - i), p);
        q = _mm256_fmadd_ps(el_load_lanes(a + n - rest, rest), el_load_lanes(b + n - rest, rest), q);
    }
    return el_fold_lanes(p, q);
}

static float dot(const float *a, const float *b, int64_t n) { return dot_of(a, b, n); }

INLINE float sum(const float *x, int64_t n)
{
    __m256 p = _mm256_setzero_ps(), q = p;
    int64_t i = 0;

    for (; i + 16 <= n; i += 16) {
        p = _mm256_add_ps(p, _mm256_loadu_ps(x + i));
        q = _mm256_add_ps(q, _mm256_loadu_ps(x + i + 8));
    }
    if (i < n) {
        const int64_t rest = EL_MAX(n - i - 8, 0);
        p = _mm256_add_ps(p, el_load_lanes(x + i, n - i));
        q = _mm256_add_ps(q, el_load_lanes(x + n - rest, rest));
    }
    return el_fold_lanes(p, q);
}

/* Every element on its own: `i` is the place, `left` how many remain, LOAD takes as many as there are. */
#define LOAD(x) el_load_lanes((x) + i, left)
#define EACH(Y, VALUE)                                                                                                 \
    for (int64_t i = 0, left = n; left > 0; i += 8, left -= 8)                                                         \
    el_store_lanes((Y) + i, VALUE, left)

static void rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    const __m256 factor = _mm256_set1_ps(1.0f / sqrtf(dot_of(x, x, n) / (float)n + eps));

    if (w)
        EACH(y, _mm256_mul_ps(_mm256_mul_ps(LOAD(x), factor), LOAD(w)));
    else
        EACH(y, _mm256_mul_ps(LOAD(x), factor));
}

/* Sum of (x - mean)^2; lanes past the end must not count, so they are cleared after the subtraction. */
INLINE float squares_about(const float *x, float mean, int64_t n)
{
    const __m256 m = _mm256_set1_ps(mean);
    __m256 p[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};

    for (int64_t i = 0, left = n; left > 0; i += 8, left -= 8) {
        __m256 v = _mm256_sub_ps(LOAD(x), m);
        if (left < 8)
            v = _mm256_and_ps(v, _mm256_castsi256_ps(el_first_lanes(left)));
        p[i / 8 % 2] = _mm256_fmadd_ps(v, v, p[i / 8 % 2]);
    }
    return el_fold_lanes(p[0], p[1]);
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, int64_t n, float eps)
{
    const float mean = sum(x, n) / (float)n;
    const __m256 factor = _mm256_set1_ps(1.0f / sqrtf(squares_about(x, mean, n) / (float)n + eps));
    const __m256 m = _mm256_set1_ps(mean), one = _mm256_set1_ps(1.0f), zero = _mm256_setzero_ps();

    EACH(y, _mm256_fmadd_ps(_mm256_mul_ps(_mm256_sub_ps(LOAD(x), m), factor), w ? LOAD(w) : one, b ? LOAD(b) : zero));
}

static void add(float *y, const float *a, const float *b, int64_t n) { EACH(y, _mm256_add_ps(LOAD(a), LOAD(b))); }

static void mul(float *y, const float *a, const float *b, int64_t n) { EACH(y, _mm256_mul_ps(LOAD(a), LOAD(b))); }

static void scale(float *y, const float *x, float factor, int64_t n)
{
    EACH(y, _mm256_mul_ps(LOAD(x), _mm256_set1_ps(factor)));
}

static void axpy(float *y, float factor, const float *x, int64_t n)
{
    EACH(y, _mm256_fmadd_ps(_mm256_set1_ps(factor), LOAD(x), LOAD(y)));
}

static void silu_mul(float *y, const float *gate, const float *up, int64_t n)
{
    if (up)
        EACH(y, _mm256_mul_ps(el_silu_lanes(LOAD(gate)), LOAD(up)));
    else
        EACH(y, el_silu_lanes(LOAD(gate)));
}

static void gelu_mul(float *y, const float *gate, const float *up, int64_t n)
{
    if (up)
        EACH(y, _mm256_mul_ps(el_gelu_lanes(LOAD(gate)), LOAD(up)));
    else
        EACH(y, el_gelu_lanes(LOAD(gate)));
}

static void softcap(float *y, const float *x, float cap, int64_t n)
{
    const __m256 c = _mm256_set1_ps(cap);

    EACH(y, _mm256_mul_ps(c, el_tanh_lanes(_mm256_div_ps(LOAD(x), c))));
}

/* max_ps returns its second operand when one is NaN, so a NaN in x never becomes the peak. */
INLINE float peak_of(const float *x, int64_t n)
{
    __m256 peak = _mm256_set1_ps(-INFINITY);
    int64_t i = 0;
    float best;

    for (; i + 8 <= n; i += 8)
        peak = _mm256_max_ps(_mm256_loadu_ps(x + i), peak);
    best = el_largest_lane(peak);
    for (; i < n; i++)
        best = x[i] > best ? x[i] : best;
    return best;
}

static void softmax(float *y, const float *x, int64_t n)
{
    const __m256 peak = _mm256_set1_ps(peak_of(x, n));

    EACH(y, el_exp_lanes(_mm256_sub_ps(LOAD(x), peak)));
    scale(y, y, 1.0f / sum(y, n), n);
}

/* ---- rope ----------------------------------------------------------------------------- */

static void copy_rest(float *y, const float *x, int64_t from, int64_t n)
{
    if (n > from)
        memmove(y + from, x + from, (size_t)(n - from) * sizeof *y);
}

static void rope_adjacent(float *y, const float *x, const float *cosines, const float *sines, int64_t n_rot, int64_t n)
{
    const int64_t half = n_rot / 2;
    int64_t i = 0;

    for (; i + 8 <= half; i += 8) { /* even and odd apart, in an order that the same shuffles undo */
        const __m256 u = _mm256_loadu_ps(x + 2 * i), v = _mm256_loadu_ps(x + 2 * i + 8);
        const __m256 a = _mm256_shuffle_ps(u, v, 0x88), b = _mm256_shuffle_ps(u, v, 0xdd);
        const __m256 c = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_loadu_ps(cosines + i)), 0xd8));
        const __m256 s = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_loadu_ps(sines + i)), 0xd8));
        const __m256 p = _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)), q = _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c));
        _mm256_storeu_ps(y + 2 * i, _mm256_unpacklo_ps(p, q));
        _mm256_storeu_ps(y + 2 * i + 8, _mm256_unpackhi_ps(p, q));
    }
    for (; i < half; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        y[2 * i] = fmaf(a, cosines[i], -(b * sines[i]));
        y[2 * i + 1] = fmaf(a, sines[i], b * cosines[i]);
    }
    copy_rest(y, x, 2 * half, n);
}

static void rope_halves(float *y, const float *x, const float *cosines, const float *sines, int64_t n_rot, int64_t n)
{
    const int64_t half = n_rot / 2;

    for (int64_t i = 0, left = half; left > 0; i += 8, left -= 8) {
        const __m256 a = LOAD(x), b = LOAD(x + half), c = LOAD(cosines), s = LOAD(sines);
        el_store_lanes(y + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)), left);
        el_store_lanes(y + half + i, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)), left);
    }
    copy_rest(y, x, 2 * half, n);
}

/* ---- formats -------------------------------------------------------------------------- */

static void f32_to_f16(uint16_t *y, const float *x, int64_t n)
{
    int64_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++)
        y[i] = el_f16_round(x[i]);
}

static void f16_to_f32(float *y, const uint16_t *x, int64_t n)
{
    int64_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
    for (; i < n; i++)
        y[i] = el_f16_value(x[i]);
}

INLINE uint32_t magnitude_of_32(const float *x)
{
    const __m256i mask = _mm256_set1_epi32(0x7fffffff);
    __m256i peak = _mm256_setzero_si256();
    __m128i m;

    for (int i = 0; i < 32; i += 8)
        peak = _mm256_max_epi32(peak, _mm256_and_si256(mask, _mm256_loadu_si256((const __m256i *)(x + i))));
    m = _mm_max_epi32(_mm256_castsi256_si128(peak), _mm256_extracti128_si256(peak, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}

static void f32_to_q8_0(void *y, const float *x, int64_t n)
{
    uint8_t *block = y;

    for (int64_t b = 0; b < n / 32; b++, block += 34, x += 32) {
        const uint32_t peak = magnitude_of_32(x);
        const uint16_t d = peak >= 0x7f800000 ? 0x7e00 : el_f16_round(el_float_of(peak) / 127.0f);
        memcpy(block, &d, 2);
        if (el_float_of(peak) < 0x1p-120f || peak >= 0x7f800000) {
            memset(block + 2, 0, 32);
            continue;
        }
        for (int i = 0; i < 32; i += 8) {
            const __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(127.0f / el_float_of(peak)));
            const __m256i q = _mm256_cvtps_epi32(v);
            const __m128i q16 = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
            _mm_storel_epi64((__m128i *)(block + 2 + i), _mm_packs_epi16(q16, q16));
        }
    }
}

/* ---- choosing ------------------------------------------------------------------------- */

static int64_t argmax(const float *x, int64_t n)
{
    const float peak = peak_of(x, n);
    int64_t i = 0;

    if (peak == -INFINITY)
        return 0;
    for (; i + 8 <= n; i += 8) {
        const int hit = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(peak), _CMP_EQ_OQ));
        if (hit)
            return i + __builtin_ctz((unsigned)hit);
    }
    while (x[i] != peak)
        i++;
    return i;
}

static int64_t top_k(int32_t *ids, float *values, int64_t k, const float *x, int64_t n)
{
    el_top top = {values, ids, 0, k};
    int64_t i = 0;

    for (; i < n && i < k; i++)
        el_top_push(&top, x[i], (int32_t)i);
    while (k > 0 && i + 16 <= n) {
        const __m256 bar = _mm256_set1_ps(el_top_bar(&top));
        const __m256 a = _mm256_cmp_ps(_mm256_loadu_ps(x + i), bar, _CMP_GT_OQ);
        const __m256 b = _mm256_cmp_ps(_mm256_loadu_ps(x + i + 8), bar, _CMP_GT_OQ);
        if (!_mm256_testz_ps(_mm256_or_ps(a, b), _mm256_or_ps(a, b)))
            for (int64_t e = i; e < i + 16; e++)
                el_top_push(&top, x[e], (int32_t)e);
        i += 16;
    }
    for (; i < n; i++)
        el_top_push(&top, x[i], (int32_t)i);
    return el_top_finish(&top);
}

#include "states.h"

void el_rows_use_avx2(el_kernels *t)
{
    t->rms_norm = rms_norm;
    t->layer_norm = layer_norm;
    t->add = add;
    t->mul = mul;
    t->scale = scale;
    t->axpy = axpy;
    t->silu_mul = silu_mul;
    t->gelu_mul = gelu_mul;
    t->softcap = softcap;
    t->softmax = softmax;
    t->dot = dot;
    t->state_step = state_step;
    t->rope_adjacent = rope_adjacent;
    t->rope_halves = rope_halves;
    t->f32_to_f16 = f32_to_f16;
    t->f16_to_f32 = f16_to_f32;
    t->f32_to_q8_0 = f32_to_q8_0;
    t->argmax = argmax;
    t->top_k = top_k;
}
