/* softmax.c - passes over all logits. Lanes are independent sums, so that the CPU can overlap them; they are folded
 * in a fixed order at the end. */
#include "softmax.h"

#include <float.h>
#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF /* gcc has it off under -std=c11 */
#endif

enum { LANES = 8 };

float el_peak(const float *x, int32_t n, bool *sound)
{
    float peak[LANES];
    int bad[LANES] = {0};
    int any_bad = 0;
    int32_t i = 0;

    for (int lane = 0; lane < LANES; lane++)
        peak[lane] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            const float value = x[i + lane];
            peak[lane] = value > peak[lane] ? value : peak[lane];
            bad[lane] |= !(value <= FLT_MAX); /* true for NaN */
        }
    for (; i < n; i++) {
        peak[0] = x[i] > peak[0] ? x[i] : peak[0];
        bad[0] |= !(x[i] <= FLT_MAX);
    }
    for (int lane = 0; lane < LANES; lane++) {
        peak[0] = peak[lane] > peak[0] ? peak[lane] : peak[0];
        any_bad |= bad[lane];
    }
    *sound = !any_bad && peak[0] >= -FLT_MAX;
    return peak[0];
}

int32_t el_argmax(const float *x, int32_t n, float peak)
{
    int32_t i = 0;

    while (i < n - 1 && x[i] != peak)
        i++;
    return i;
}

/* 2^k exp(r) with |r| <= ln(2) / 2, and Taylor's polynomial of degree 12 for exp(r): the first term left out is
 * below 2e-16 of the result. ln 2 in two parts (the first has 21 zero bits at its end, so k times it is exact):
 * Cody and Waite, "Software manual for the elementary functions", 1980, chapter 6. */
double el_exp_neg(double x)
{
    static const double inverse_factorial[] = {
        1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
        1.0 / 120,       1.0 / 24,       1.0 / 6,       1.0 / 2,      1.0,         1.0};
    double k, r, sum = 0;
    uint64_t bits;

    if (!(x >= -708.0))
        return 0;
    k = (double)(int32_t)(x * 1.4426950408889634 - 0.5); /* x <= 0: truncation rounds to the nearest */
    r = (x - k * 0x1.62e42feep-1) - k * 0x1.a39ef35793c76p-33;
    for (int i = 0; i < 13; i++)
        sum = sum * r + inverse_factorial[i];
    bits = (uint64_t)(1023 + (int64_t)k) << 52;
    memcpy(&k, &bits, sizeof k);
    return sum * k;
}

double el_log_sum_exp(const float *x, int32_t n, float peak)
{
    double sum[LANES] = {0};
    int32_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sum[lane] += el_exp_neg((double)x[i + lane] - peak);
    for (; i < n; i++)
        sum[0] += el_exp_neg((double)x[i] - peak);
    for (int lane = 1; lane < LANES; lane++)
        sum[0] += sum[lane];
    return log(sum[0]);
}
