/* softmax.h - largest value, exponentials and the log of their sum, always in one fixed order.
 * exp is our own: the same bits on every machine, where a C library's may differ with version and CPU. */
#ifndef EL_SOFTMAX_H
#define EL_SOFTMAX_H

#include <stdbool.h>
#include <stdint.h>

/* Largest of n > 0 values; *sound becomes false when one is NaN or +infinity or none is finite. */
float el_peak(const float *x, int32_t n, bool *sound);

int32_t el_argmax(const float *x, int32_t n, float peak); /* lowest index that holds peak */

/* exp(x) for x <= 0 (relative error under 1e-14), 0 below -708 and for NaN. */
double el_exp_neg(double x);

/* log of the sum of exp(x[i] - peak). */
double el_log_sum_exp(const float *x, int32_t n, float peak);

#endif
