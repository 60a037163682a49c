/* act_neon.c - activations quantized; the same bits as act_ref.c. */
#include "lanes_neon.h"

#include "blocks.h"

typedef struct scales {
    float d, inverse; /* inverse 0: all q are 0 */
} scales;

INLINE scales scales_of(uint32_t peak)
{
    const float amax = el_float_of(peak);

    if (peak >= 0x7f800000)
        return (scales){el_float_of(0x7fc00000), 0};
    if (amax < 0x1p-120f)
        return (scales){0, 0};
    return (scales){amax / 127.0f, 127.0f / amax};
}

/* 16 values to q; their sum. */
INLINE int32_t quantize_16(int8_t *q, const float *x, float inverse)
{
    const int8x16_t v = inverse != 0 ? el_rounded_16(x, vdupq_n_f32(inverse)) : vdupq_n_s8(0);

    vst1q_s8(q, v);
    return vaddlvq_s8(v);
}

static void quantize_32(uint8_t *row, const float *x, int64_t k)
{
    int8_t *q = (int8_t *)row;
    float *d = (float *)(row + el_act32_d(k)), *s = (float *)(row + el_act32_s(k));
    int32_t *sum8 = (int32_t *)(row + el_act32_sum8(k));

    for (int64_t b = 0; b < k / 32; b++, x += 32, q += 32) {
        const scales sc = scales_of(el_peak_bits(x, 32));
        const int32_t sum = quantize_16(q, x, sc.inverse) + quantize_16(q + 16, x + 16, sc.inverse);
        d[b] = sc.d;
        s[b] = sc.d * (float)sum;
        sum8[b] = 8 * sum;
    }
}

static void quantize_256(uint8_t *row, const float *x, int64_t k)
{
    int8_t *q = (int8_t *)row;
    int16_t *sum16 = (int16_t *)(row + el_act256_sum16(k)), *sum32 = (int16_t *)(row + el_act256_sum32(k));
    float *d = (float *)(row + el_act256_d(k));

    for (int64_t b = 0; b < k / 256; b++) {
        const scales sc = scales_of(el_peak_bits(x + 256 * b, 256));
        d[b] = sc.d;
        for (int64_t g = 16 * b; g < 16 * b + 16; g++)
            sum16[g] = (int16_t)quantize_16(q + 16 * g, x + 16 * g, sc.inverse);
        for (int64_t g = 8 * b; g < 8 * b + 8; g++)
            sum32[g] = (int16_t)(sum16[2 * g] + sum16[2 * g + 1]);
    }
}

static void act_quantize(el_act_kind kind, void *dst, const float *x, int64_t k)
{
    el_watch_subnormals();
    if (kind == EL_ACT_Q8_32)
        quantize_32(dst, x, k);
    else if (kind == EL_ACT_Q8_256)
        quantize_256(dst, x, k);
    else if (k)
        memcpy(dst, x, (size_t)k * sizeof *x);
    if (el_met_subnormals())
        el_kernels_named("ref")->act_quantize(kind, dst, x, k);
}

void el_act_use_neon(el_kernels *t) { t->act_quantize = act_quantize; }
