/* rows_ref.c - operations on rows of floats as plain loops; the definition of the vector files' bits. */
#include "blocks.h"
#include "mem.h"
#include "scalar_math.h"
#include "top_k.h"

/* Elements past n count as zeros, which turns a partial sum of -0 into +0. */
static void pad_sums(float p[16], int64_t n)
{
    for (int64_t i = n; i % 16; i++)
        p[i % 16] += 0.0f;
}

static float dot(const float *a, const float *b, int64_t n)
{
    float p[16] = {0};

    for (int64_t i = 0; i < n; i++)
        p[i % 16] = fmaf(a[i], b[i], p[i % 16]);
    pad_sums(p, n);
    return el_fold16(p);
}

static float sum(const float *x, int64_t n)
{
    float p[16] = {0};

    for (int64_t i = 0; i < n; i++)
        p[i % 16] += x[i];
    pad_sums(p, n);
    return el_fold16(p);
}

static void rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    const float factor = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);

    for (int64_t i = 0; i < n; i++)
        y[i] = w ? x[i] * factor * w[i] : x[i] * factor;
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, int64_t n, float eps)
{
    const float mean = sum(x, n) / (float)n;
    float p[16] = {0}, factor;

    for (int64_t i = 0; i < n; i++)
        p[i % 16] = fmaf(x[i] - mean, x[i] - mean, p[i % 16]);
    pad_sums(p, n);
    factor = 1.0f / sqrtf(el_fold16(p) / (float)n + eps);
    for (int64_t i = 0; i < n; i++)
        y[i] = fmaf((x[i] - mean) * factor, w ? w[i] : 1.0f, b ? b[i] : 0.0f);
}

static void add(float *y, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

static void mul(float *y, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] * b[i];
}

static void scale(float *y, const float *x, float factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * factor;
}

static void axpy(float *y, float factor, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = fmaf(factor, x[i], y[i]);
}

static void silu_mul(float *y, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = up ? el_silu(gate[i]) * up[i] : el_silu(gate[i]);
}

static void gelu_mul(float *y, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = up ? el_gelu(gate[i]) * up[i] : el_gelu(gate[i]);
}

static void softcap(float *y, const float *x, float cap, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = cap * el_tanhf(x[i] / cap);
}

static void softmax(float *y, const float *x, int64_t n)
{
    float peak = -INFINITY, factor;

    for (int64_t i = 0; i < n; i++)
        peak = x[i] > peak ? x[i] : peak;
    for (int64_t i = 0; i < n; i++)
        y[i] = el_expf(x[i] - peak);
    factor = 1.0f / sum(y, n);
    scale(y, y, factor, n);
}

static void rope_adjacent(float *y, const float *x, const float *cosines, const float *sines, int64_t n_rot, int64_t n)
{
    for (int64_t i = 0; i < n_rot / 2; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        y[2 * i] = fmaf(a, cosines[i], -(b * sines[i]));
        y[2 * i + 1] = fmaf(a, sines[i], b * cosines[i]);
    }
    for (int64_t i = n_rot; i < n; i++)
        y[i] = x[i];
}

static void rope_halves(float *y, const float *x, const float *cosines, const float *sines, int64_t n_rot, int64_t n)
{
    const int64_t half = n_rot / 2;

    for (int64_t i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        y[i] = fmaf(a, cosines[i], -(b * sines[i]));
        y[i + half] = fmaf(a, sines[i], b * cosines[i]);
    }
    for (int64_t i = n_rot; i < n; i++)
        y[i] = x[i];
}

static void f32_to_f16(uint16_t *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = el_f16_round(x[i]);
}

static void f16_to_f32(float *y, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = el_f16_value(x[i]);
}

/* As the activations of blocks of 32, with d rounded to f16 for storage only: q is made from the exact scale. */
static void f32_to_q8_0(void *y, const float *x, int64_t n)
{
    uint8_t *block = y;

    for (int64_t b = 0; b < n / 32; b++, block += 34, x += 32) {
        uint32_t peak = 0;
        uint16_t d;
        float inverse;
        for (int i = 0; i < 32; i++)
            peak = EL_MAX(peak, el_bits_of(x[i]) & 0x7fffffff);
        inverse = el_float_of(peak) < 0x1p-120f || peak >= 0x7f800000 ? 0.0f : 127.0f / el_float_of(peak);
        d = peak >= 0x7f800000 ? 0x7e00 : el_f16_round(el_float_of(peak) / 127.0f);
        memcpy(block, &d, 2);
        for (int i = 0; i < 32; i++)
            block[2 + i] = inverse == 0.0f ? 0 : (uint8_t)(int8_t)el_round_even(x[i] * inverse);
    }
}

static int64_t argmax(const float *x, int64_t n)
{
    float peak = -INFINITY;
    int64_t best = 0;

    for (int64_t i = 0; i < n; i++)
        if (x[i] > peak) {
            peak = x[i];
            best = i;
        }
    return best;
}

static int64_t top_k(int32_t *ids, float *values, int64_t k, const float *x, int64_t n)
{
    el_top top = {values, ids, 0, k};

    for (int64_t i = 0; i < n; i++)
        el_top_push(&top, x[i], (int32_t)i);
    return el_top_finish(&top);
}

#include "states.h"

void el_rows_use_ref(el_kernels *t)
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
