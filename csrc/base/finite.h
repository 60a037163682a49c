/* finite.h - whether an array of floats holds a NaN or an infinity. */
#ifndef EL_FINITE_H
#define EL_FINITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Sixteen lanes, so that this costs less than reading the numbers: a float is not finite when its exponent is all ones.
 */
static inline bool el_all_finite(const float *x, size_t n)
{
    uint32_t bad[16] = {0};
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        uint32_t bits[16];
        memcpy(bits, x + i, sizeof bits);
        for (int k = 0; k < 16; k++)
            bad[k] |= (bits[k] & 0x7F800000u) == 0x7F800000u;
    }
    for (; i < n; i++)
        bad[0] |= !(x[i] - x[i] == 0);
    for (int k = 1; k < 16; k++)
        bad[0] |= bad[k];
    return bad[0] == 0;
}

#endif
