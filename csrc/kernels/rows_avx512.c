/* rows_avx512.c - operations on rows of floats, sixteen at a time; the same bits as rows_ref.c. What is not here gains
 * nothing from wider registers (memory sets its pace), and stays that of rows_avx2.c. */
#include "lanes_avx512.h"

#include "blocks.h"
#include "mem.h"
#include "top_k.h"

/* `i` is the place, `left` how many remain, LOAD takes as many as there are. */
#define FOR_LANES for (int64_t i = 0, left = n; left > 0; i += 16, left -= 16)
#define LOAD(x) el_load_lanes((x) + i, left)
#define EACH(Y, VALUE) FOR_LANES el_store_lanes((Y) + i, VALUE, left)

static float dot(const float *a, const float *b, int64_t n)
{
    __m512 p = _mm512_setzero_ps();

    FOR_LANES p = _mm512_fmadd_ps(LOAD(a), LOAD(b), p);
    return el_fold_lanes(p);
}

static void rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    const __m512 factor = _mm512_set1_ps(1.0f / sqrtf(dot(x, x, n) / (float)n + eps));

    if (w)
        EACH(y, _mm512_mul_ps(_mm512_mul_ps(LOAD(x), factor), LOAD(w)));
    else
        EACH(y, _mm512_mul_ps(LOAD(x), factor));
}

static void add(float *y, const float *a, const float *b, int64_t n) { EACH(y, _mm512_add_ps(LOAD(a), LOAD(b))); }

static void mul(float *y, const float *a, const float *b, int64_t n) { EACH(y, _mm512_mul_ps(LOAD(a), LOAD(b))); }

static void scale(float *y, const float *x, float factor, int64_t n)
{
    EACH(y, _mm512_mul_ps(LOAD(x), _mm512_set1_ps(factor)));
}

static void silu_mul(float *y, const float *gate, const float *up, int64_t n)
{
    if (up)
        EACH(y, _mm512_mul_ps(el_silu_lanes(LOAD(gate)), LOAD(up)));
    else
        EACH(y, el_silu_lanes(LOAD(gate)));
}

static void gelu_mul(float *y, const float *gate, const float *up, int64_t n)
{
    if (up)
        EACH(y, _mm512_mul_ps(el_gelu_lanes(LOAD(gate)), LOAD(up)));
    else
        EACH(y, el_gelu_lanes(LOAD(gate)));
}

static void softcap(float *y, const float *x, float cap, int64_t n)
{
    const __m512 c = _mm512_set1_ps(cap);

    EACH(y, _mm512_mul_ps(c, el_tanh_lanes(_mm512_div_ps(LOAD(x), c))));
}

/* max_ps returns its second operand when one is NaN, so a NaN in x never becomes the peak. */
INLINE float peak_of(const float *x, int64_t n)
{
    __m512 peak[2] = {_mm512_set1_ps(-INFINITY), _mm512_set1_ps(-INFINITY)};
    int64_t i = 0;

    for (; i + 32 <= n; i += 32) {
        peak[0] = _mm512_max_ps(_mm512_loadu_ps(x + i), peak[0]);
        peak[1] = _mm512_max_ps(_mm512_loadu_ps(x + i + 16), peak[1]);
    }
    for (; i < n; i += 16) {
        const __mmask16 some = el_first_lanes(n - i);
        peak[0] = _mm512_mask_max_ps(peak[0], some, _mm512_maskz_loadu_ps(some, x + i), peak[0]);
    }
    return el_largest_lane(_mm512_max_ps(peak[0], peak[1]));
}

static void softmax(float *y, const float *x, int64_t n)
{
    const __m512 peak = _mm512_set1_ps(peak_of(x, n));
    __m512 p = _mm512_setzero_ps();

    FOR_LANES
    {
        const __m512 e = _mm512_maskz_mov_ps(el_first_lanes(left), el_exp_lanes(_mm512_sub_ps(LOAD(x), peak)));
        el_store_lanes(y + i, e, left);
        p = _mm512_add_ps(p, e);
    }
    scale(y, y, 1.0f / el_fold_lanes(p), n);
}

static void rope_halves(float *y, const float *x, const float *cosines, const float *sines, int64_t n_rot, int64_t n)
{
    const int64_t half = n_rot / 2;

    for (int64_t i = 0, left = half; left > 0; i += 16, left -= 16) {
        const __m512 a = LOAD(x), b = LOAD(x + half), c = LOAD(cosines), s = LOAD(sines);
        el_store_lanes(y + i, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)), left);
        el_store_lanes(y + half + i, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)), left);
    }
    if (n > 2 * half)
        memmove(y + 2 * half, x + 2 * half, (size_t)(n - 2 * half) * sizeof *y);
}

static void f32_to_f16(uint16_t *y, const float *x, int64_t n)
{
    FOR_LANES _mm256_mask_storeu_epi16(y + i, el_first_lanes(left),
                                       _mm512_cvtps_ph(LOAD(x), _MM_FROUND_TO_NEAREST_INT));
}

static void f16_to_f32(float *y, const uint16_t *x, int64_t n)
{
    EACH(y, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(el_first_lanes(left), x + i)));
}

static int64_t argmax(const float *x, int64_t n)
{
    const float peak = peak_of(x, n);

    if (peak == -INFINITY)
        return 0;
    FOR_LANES
    {
        const __mmask16 hit = _mm512_mask_cmp_ps_mask(el_first_lanes(left), LOAD(x), _mm512_set1_ps(peak), _CMP_EQ_OQ);
        if (hit)
            return i + __builtin_ctz(hit);
    }
    return 0;
}

static int64_t top_k(int32_t *ids, float *values, int64_t k, const float *x, int64_t n)
{
    el_top top = {values, ids, 0, k};
    int64_t i = 0;

    for (; i < n && i < k; i++)
        el_top_push(&top, x[i], (int32_t)i);
    for (; k > 0 && i < n; i += 16) {
        const __mmask16 some = el_first_lanes(n - i);
        unsigned hits = _mm512_mask_cmp_ps_mask(some, _mm512_maskz_loadu_ps(some, x + i),
                                                _mm512_set1_ps(el_top_bar(&top)), _CMP_GT_OQ);
        for (; hits; hits &= hits - 1) {
            const int64_t e = i + __builtin_ctz(hits);
            el_top_push(&top, x[e], (int32_t)e);
        }
    }
    return el_top_finish(&top);
}

#include "states.h"

void el_rows_use_avx512(el_kernels *t)
{
    t->rms_norm = rms_norm;
    t->add = add;
    t->mul = mul;
    t->scale = scale;
    t->silu_mul = silu_mul;
    t->gelu_mul = gelu_mul;
    t->softcap = softcap;
    t->softmax = softmax;
    t->dot = dot;
    t->state_step = state_step;
    t->rope_halves = rope_halves;
    t->f32_to_f16 = f32_to_f16;
    t->f16_to_f32 = f16_to_f32;
    t->argmax = argmax;
    t->top_k = top_k;
}
