/* rows_neon.c - operations on rows of floats, four at a time; the same bits as rows_ref.c. */
#include "lanes_neon.h"

#include "blocks.h"
#include "top_k.h"

/* Every element on its own: `i` is the place, `left` how many remain, LOAD takes as many as there are. */
#define LOAD(x) el_load_lanes((x) + i, left)
#define EACH(Y, VALUE)                                                                                                 \
    for (int64_t i = 0, left = n; left > 0; i += 4, left -= 4)                                                         \
    el_store_lanes((Y) + i, VALUE, left)

INLINE float dot_of(const float *a, const float *b, int64_t n)
{
    float32x4_t p[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    int64_t i = 0;

    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 4; l++)
            p[l] = vfmaq_f32(p[l], vld1q_f32(a + i + 4 * l), vld1q_f32(b + i + 4 * l));
    for (int l = 0; i < n; l++, i += 4)
        p[l] = vfmaq_f32(p[l], el_load_lanes(a + i, n - i), el_load_lanes(b + i, n - i));
    return el_fold_lanes(p);
}

static float dot(const float *a, const float *b, int64_t n) { return dot_of(a, b, n); }

INLINE float sum(const float *x, int64_t n)
{
    float32x4_t p[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    int64_t i = 0;

    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 4; l++)
            p[l] = vaddq_f32(p[l], vld1q_f32(x + i + 4 * l));
    for (int l = 0; i < n; l++, i += 4)
        p[l] = vaddq_f32(p[l], el_load_lanes(x + i, n - i));
    return el_fold_lanes(p);
}

static void rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    const float factor = 1.0f / sqrtf(dot_of(x, x, n) / (float)n + eps);

    if (w)
        EACH(y, vmulq_f32(vmulq_n_f32(LOAD(x), factor), LOAD(w)));
    else
        EACH(y, vmulq_n_f32(LOAD(x), factor));
}

/* Sum of (x - mean)^2; lanes past the end must not count, so they are cleared after the subtraction. */
INLINE float squares_about(const float *x, float mean, int64_t n)
{
    static const uint32_t ramp[8] = {~0u, ~0u, ~0u, ~0u};
    float32x4_t p[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};

    for (int64_t i = 0; i < n; i += 16)
        for (int l = 0; l < 4 && i + 4 * l < n; l++) {
            const int64_t left = n - i - 4 * l;
            float32x4_t v = vsubq_f32(el_load_lanes(x + i + 4 * l, left), vdupq_n_f32(mean));
            if (left < 4)
                v = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), vld1q_u32(ramp + 4 - left)));
            p[l] = vfmaq_f32(p[l], v, v);
        }
    return el_fold_lanes(p);
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, int64_t n, float eps)
{
    const float mean = sum(x, n) / (float)n;
    const float factor = 1.0f / sqrtf(squares_about(x, mean, n) / (float)n + eps);
    const float32x4_t m = vdupq_n_f32(mean), one = vdupq_n_f32(1.0f), zero = vdupq_n_f32(0);

    EACH(y, vfmaq_f32(b ? LOAD(b) : zero, vmulq_n_f32(vsubq_f32(LOAD(x), m), factor), w ? LOAD(w) : one));
}

static void add(float *y, const float *a, const float *b, int64_t n) { EACH(y, vaddq_f32(LOAD(a), LOAD(b))); }

static void mul(float *y, const float *a, const float *b, int64_t n) { EACH(y, vmulq_f32(LOAD(a), LOAD(b))); }

static void scale(float *y, const float *x, float factor, int64_t n) { EACH(y, vmulq_n_f32(LOAD(x), factor)); }

static void axpy(float *y, float factor, const float *x, int64_t n) { EACH(y, vfmaq_n_f32(LOAD(y), LOAD(x), factor)); }

static void silu_mul(float *y, const float *gate, const float *up, int64_t n)
{
    if (up)
        EACH(y, vmulq_f32(el_silu_lanes(LOAD(gate)), LOAD(up)));
    else
        EACH(y, el_silu_lanes(LOAD(gate)));
}

static void gelu_mul(float *y, const float *gate, const float *up, int64_t n)
{
    if (up)
        EACH(y, vmulq_f32(el_gelu_lanes(LOAD(gate)), LOAD(up)));
    else
        EACH(y, el_gelu_lanes(LOAD(gate)));
}

static void softcap(float *y, const float *x, float cap, int64_t n)
{
    const float32x4_t c = vdupq_n_f32(cap);

    EACH(y, vmulq_f32(c, el_tanh_lanes(vdivq_f32(LOAD(x), c))));
}

/* A NaN in x never becomes the peak. */
INLINE float peak_of(const float *x, int64_t n)
{
    float32x4_t peak = vdupq_n_f32(-INFINITY);
    int64_t i = 0;
    float best;

    for (; i + 4 <= n; i += 4)
        peak = el_larger(vld1q_f32(x + i), peak);
    best = el_largest_lane(peak);
    for (; i < n; i++)
        best = x[i] > best ? x[i] : best;
    return best;
}

static void softmax(float *y, const float *x, int64_t n)
{
    const float32x4_t peak = vdupq_n_f32(peak_of(x, n));

    EACH(y, el_exp_lanes(vsubq_f32(LOAD(x), peak)));
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

    for (; i + 4 <= half; i += 4) {
        const float32x4x2_t v = vld2q_f32(x + 2 * i); /* even and odd apart */
        const float32x4_t a = v.val[0], b = v.val[1], c = vld1q_f32(cosines + i), s = vld1q_f32(sines + i);
        const float32x4x2_t turned = {{vfmaq_f32(vnegq_f32(vmulq_f32(b, s)), a, c), vfmaq_f32(vmulq_f32(b, c), a, s)}};
        vst2q_f32(y + 2 * i, turned);
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

    for (int64_t i = 0, left = half; left > 0; i += 4, left -= 4) {
        const float32x4_t a = LOAD(x), b = LOAD(x + half), c = LOAD(cosines), s = LOAD(sines);
        el_store_lanes(y + i, vfmaq_f32(vnegq_f32(vmulq_f32(b, s)), a, c), left);
        el_store_lanes(y + half + i, vfmaq_f32(vmulq_f32(b, c), a, s), left);
    }
    copy_rest(y, x, 2 * half, n);
}

/* ---- formats -------------------------------------------------------------------------- */

static void f32_to_f16(uint16_t *y, const float *x, int64_t n)
{
    int64_t i = 0;

    for (; i + 4 <= n; i += 4)
        vst1_u16(y + i, el_halves_of(vld1q_f32(x + i)));
    for (; i < n; i++)
        y[i] = el_f16_round(x[i]);
}

static void f16_to_f32(float *y, const uint16_t *x, int64_t n)
{
    int64_t i = 0;

    for (; i + 4 <= n; i += 4)
        vst1q_f32(y + i, el_floats_of(vld1_u16(x + i)));
    for (; i < n; i++)
        y[i] = el_f16_value(x[i]);
}

static void f32_to_q8_0(void *y, const float *x, int64_t n)
{
    uint8_t *block = y;

    for (int64_t b = 0; b < n / 32; b++, block += 34, x += 32) {
        const uint32_t peak = el_peak_bits(x, 32);
        const uint16_t d = peak >= 0x7f800000 ? 0x7e00 : el_f16_round(el_float_of(peak) / 127.0f);
        memcpy(block, &d, 2);
        if (el_float_of(peak) < 0x1p-120f || peak >= 0x7f800000) {
            memset(block + 2, 0, 32);
            continue;
        }
        for (int i = 0; i < 32; i += 16)
            vst1q_s8((int8_t *)block + 2 + i, el_rounded_16(x + i, vdupq_n_f32(127.0f / el_float_of(peak))));
    }
}

/* ---- choosing ------------------------------------------------------------------------- */

static int64_t argmax(const float *x, int64_t n)
{
    const float peak = peak_of(x, n);
    int64_t i = 0;

    if (peak == -INFINITY)
        return 0;
    while (i + 4 <= n && vmaxvq_u32(vceqq_f32(vld1q_f32(x + i), vdupq_n_f32(peak))) == 0)
        i += 4;
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
        const float32x4_t bar = vdupq_n_f32(el_top_bar(&top));
        const uint32x4_t a = vorrq_u32(vcgtq_f32(vld1q_f32(x + i), bar), vcgtq_f32(vld1q_f32(x + i + 4), bar));
        const uint32x4_t b = vorrq_u32(vcgtq_f32(vld1q_f32(x + i + 8), bar), vcgtq_f32(vld1q_f32(x + i + 12), bar));
        if (vmaxvq_u32(vorrq_u32(a, b)) != 0)
            for (int64_t e = i; e < i + 16; e++)
                el_top_push(&top, x[e], (int32_t)e);
        i += 16;
    }
    for (; i < n; i++)
        el_top_push(&top, x[i], (int32_t)i);
    return el_top_finish(&top);
}

#include "states.h"

void el_rows_use_neon(el_kernels *t)
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
