/* act_ref.c - activations quantized as kernels.h defines it. */
#include "blocks.h"
#include "mem.h"
#include "scalar_math.h"

/* q and the returned d of one block of n. Bits of |x| order like the values, with infinity and NaN on top. */
static float quantize_block(int8_t *q, const float *x, int n)
{
    uint32_t peak = 0;
    float amax, inverse;

    for (int i = 0; i < n; i++)
        peak = EL_MAX(peak, el_bits_of(x[i]) & 0x7fffffff);
    amax = el_float_of(peak);
    if (peak >= 0x7f800000 || amax < 0x1p-120f) {
        memset(q, 0, (size_t)n);
        return peak >= 0x7f800000 ? el_float_of(0x7fc00000) : 0.0f;
    }
    inverse = 127.0f / amax;
    for (int i = 0; i < n; i++)
        q[i] = (int8_t)el_round_even(x[i] * inverse);
    return amax / 127.0f;
}

static int sum_of(const int8_t *q, int n)
{
    int sum = 0;

    for (int i = 0; i < n; i++)
        sum += q[i];
    return sum;
}

static void quantize_32(uint8_t *row, const float *x, int64_t k)
{
    int8_t *q = (int8_t *)row;
    float *d = (float *)(row + el_act32_d(k)), *s = (float *)(row + el_act32_s(k));
    int32_t *sum8 = (int32_t *)(row + el_act32_sum8(k));

    for (int64_t b = 0; b < k / 32; b++) {
        d[b] = quantize_block(q + 32 * b, x + 32 * b, 32);
        s[b] = d[b] * (float)sum_of(q + 32 * b, 32);
        sum8[b] = 8 * sum_of(q + 32 * b, 32);
    }
}

static void quantize_256(uint8_t *row, const float *x, int64_t k)
{
    int8_t *q = (int8_t *)row;
    int16_t *sum16 = (int16_t *)(row + el_act256_sum16(k)), *sum32 = (int16_t *)(row + el_act256_sum32(k));
    float *d = (float *)(row + el_act256_d(k));

    for (int64_t b = 0; b < k / 256; b++)
        d[b] = quantize_block(q + 256 * b, x + 256 * b, 256);
    for (int64_t g = 0; g < k / 16; g++)
        sum16[g] = (int16_t)sum_of(q + 16 * g, 16);
    for (int64_t g = 0; g < k / 32; g++)
        sum32[g] = (int16_t)sum_of(q + 32 * g, 32);
}

static void act_quantize(el_act_kind kind, void *dst, const float *x, int64_t k)
{
    if (kind == EL_ACT_Q8_32)
        quantize_32(dst, x, k);
    else if (kind == EL_ACT_Q8_256)
        quantize_256(dst, x, k);
    else if (k)
        memcpy(dst, x, (size_t)k * sizeof *x);
}

void el_act_use_ref(el_kernels *t) { t->act_quantize = act_quantize; }
