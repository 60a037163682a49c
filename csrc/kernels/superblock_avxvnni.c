/* superblock_avxvnni.c - weights in super-blocks of 256 times activations by vpdpbusd, a whole group in int32, and
 * vpmulld by its scale. One activation row: by count of instructions, sums of int16 by vpmaddubsw are cheaper to fold,
 * and vpdpwssd applies their scales; only IQ4_XS, which does not fit in int16, takes vpdpbusd there as well. */
#include "dot_avxvnni.h"
#include "rows_in_lanes_avx2.h"

INLINE __m256i add_pairs(__m256i total, __m256i v, __m256i w) { return dpwssd(total, v, w); }
INLINE int run_of(int type) { return type == EL_TYPE_Q2_K || type == EL_TYPE_Q3_K || type == EL_TYPE_Q6_K ? 4 : 8; }
INLINE __m256i products(int type, __m256i sum, __m256i w, __m256i x) { return (void)type, dpbusd(sum, w, x); }
INLINE __m256i run_scale(__m256i pair) { return _mm256_srai_epi32(pair, 16); }

INLINE __m256i add_run(__m256i total, __m256i sum, __m256i scale)
{
    return _mm256_add_epi32(total, _mm256_mullo_epi32(sum, scale));
}

/* w[i][e]: unit e of a group of 32, row i in the low half and row 4 + i in the high one. */
INLINE void add_wide_group(__m256i total[4], __m256i w[4][2], const uint8_t *x, __m256i scale)
{
    const __m256i x0 = _mm256_broadcastsi128_si256(load16(x)), x1 = _mm256_broadcastsi128_si256(load16(x + 16));
    __m256i v[4];

    for (int i = 0; i < 4; i++)
        v[i] = dpbusd(dpbusd(_mm256_setzero_si256(), w[i][0], x0), w[i][1], x1);
    total[0] = add_run(total[0], fold_halves_32(v), run_scale(scale));
}

INLINE __m256i fold_wide(const __m256i total[4]) { return total[0]; }

/* Measured at 2048 x 2048. */
INLINE bool by_strips(int type, int64_t n_x) { return n_x > 2 || (type != EL_TYPE_Q4_K && type != EL_TYPE_IQ4_XS); }

#include "superblock_lanes_256.h"

void EL_USE(el_superblock_use)(el_kernels *t) { use_superblocks(t); }
