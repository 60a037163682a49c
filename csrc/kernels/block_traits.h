/* block_traits.h - what the weight types differ in, for kernels that know the type while compiling: every branch on it
 * disappears. Layouts: blocks.h. */
#ifndef EL_BLOCK_TRAITS_H
#define EL_BLOCK_TRAITS_H

#include "blocks.h"

#ifndef INLINE
#define INLINE static inline __attribute__((always_inline))
#endif

INLINE size_t block_bytes(int type)
{
    return type == EL_TYPE_Q4_0 || type == EL_TYPE_IQ4_NL ? 18
           : type == EL_TYPE_Q4_1                         ? 20
           : type == EL_TYPE_Q5_0                         ? 22
           : type == EL_TYPE_Q5_1                         ? 24
           : type == EL_TYPE_Q8_0                         ? 34
           : type == EL_TYPE_MXFP4                        ? 17
           : type == EL_TYPE_Q2_K                         ? EL_Q2_K_BYTES
           : type == EL_TYPE_Q3_K                         ? EL_Q3_K_BYTES
           : type == EL_TYPE_Q4_K                         ? EL_Q4_K_BYTES
           : type == EL_TYPE_Q5_K                         ? EL_Q5_K_BYTES
           : type == EL_TYPE_Q6_K                         ? EL_Q6_K_BYTES
                                                          : EL_IQ4_XS_BYTES;
}

INLINE bool has_min(int type)
{
    return type == EL_TYPE_Q4_1 || type == EL_TYPE_Q5_1 || type == EL_TYPE_Q2_K || type == EL_TYPE_Q4_K ||
           type == EL_TYPE_Q5_K;
}

/* ---- blocks of 32 ---------------------------------------------------------------------- */

INLINE bool has_fifth(int type) { return type == EL_TYPE_Q5_0 || type == EL_TYPE_Q5_1; }

/* Where the nibbles or bytes begin. */
INLINE size_t quants_at(int type) { return type == EL_TYPE_Q8_0 ? 2 : block_bytes(type) - 16; }

/* ---- super-blocks of 256 --------------------------------------------------------------- */

/* Bits of the weights that lie apart from the low ones. */
INLINE bool has_high(int type) { return type == EL_TYPE_Q3_K || type == EL_TYPE_Q5_K || type == EL_TYPE_Q6_K; }

/* A scale for every 16 weights; else for 32. */
INLINE bool by_16(int type) { return type == EL_TYPE_Q2_K || type == EL_TYPE_Q3_K || type == EL_TYPE_Q6_K; }

/* Where the low bits of unit e (16 weights) of sub-block s lie, 16 bytes; and the high ones. */
INLINE size_t low_at(int type, int s, int e)
{
    switch (type) {
    case EL_TYPE_Q2_K:
        return (size_t)(EL_Q2_K_QS + s / 4 * 32 + e * 16);
    case EL_TYPE_Q3_K:
        return (size_t)(EL_Q3_K_QS + s / 4 * 32 + e * 16);
    case EL_TYPE_Q4_K:
        return (size_t)(EL_Q4_K_QS + s / 2 * 32 + e * 16);
    case EL_TYPE_Q5_K:
        return (size_t)(EL_Q5_K_QS + s / 2 * 32 + e * 16);
    case EL_TYPE_Q6_K:
        return (size_t)(s / 4 * 64 + s % 2 * 32 + e * 16);
    default:
        return (size_t)(EL_IQ4_XS_QS + s * 16);
    }
}

INLINE size_t high_at(int type, int s, int e)
{
    return (size_t)((type == EL_TYPE_Q5_K ? EL_Q5_K_QH : type == EL_TYPE_Q6_K ? EL_Q6_K_QH + s / 4 * 32 : 0) + e * 16);
}

#endif
