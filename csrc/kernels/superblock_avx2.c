/* superblock_avx2.c - weights in super-blocks of 256 times activations by vpmaddubsw and vpmaddwd, which multiplies by
 * the sub-scale while it widens int16 sums to int32. */
#include "rows_in_lanes_avx2.h"

enum { UNSIGNED_BYTES = 0 };

INLINE __m256i add_pairs(__m256i total, __m256i v, __m256i w)
{
    return _mm256_add_epi32(total, _mm256_madd_epi16(v, w));
}

INLINE void add_wide_pair(__m256i *total, const __m256i w[2], const uint8_t *x, __m256i scale)
{
    for (int e = 0; e < 2; e++)
        *total = add_pairs(*total, times_signed(w[e], _mm256_broadcastsi128_si256(load16(x + 16 * e))), scale);
}

/* w[i][e]: unit e of a group of 32, row i in the low half and row 4 + i in the high one. total[i]: the same rows. */
INLINE void add_wide_group(__m256i total[4], __m256i w[4][2], const uint8_t *x, __m256i scale)
{
    add_wide_pair(&total[0], w[0], x, _mm256_shuffle_epi32(scale, 0x00));
    add_wide_pair(&total[1], w[1], x, _mm256_shuffle_epi32(scale, 0x55));
    add_wide_pair(&total[2], w[2], x, _mm256_shuffle_epi32(scale, 0xaa));
    add_wide_pair(&total[3], w[3], x, _mm256_shuffle_epi32(scale, 0xff));
}

INLINE __m256i fold_wide(const __m256i total[4]) { return fold_halves_32(total); }

/* In int16, two products of each pair of bytes of a lane. */
INLINE int run_of(int type)
{
    return type == EL_TYPE_IQ4_XS ? 1 : type == EL_TYPE_Q6_K ? 2 : type == EL_TYPE_Q4_K ? 8 : 4;
}

INLINE __m256i products(int type, __m256i sum, __m256i w, __m256i x)
{
    return _mm256_add_epi16(sum, type == EL_TYPE_IQ4_XS ? times_signed(w, x) : _mm256_maddubs_epi16(w, x));
}

INLINE __m256i run_scale(__m256i pair) { return pair; }
INLINE __m256i add_run(__m256i total, __m256i sum, __m256i scale) { return add_pairs(total, sum, scale); }

/* Measured at 2048 x 2048 on Zen 5: strips lose 5 % or more with Q4_K and IQ4_XS at 512 activation rows. Against gemm_8
 * as it was before them Q3_K, Q5_K and Q6_K gain 4 to 5 % and Q2_K 2 % there, but Q2_K loses 8 to 12 % and Q3_K 4 to
 * 8 % at 2 to 8 rows: not yet understood. */
INLINE bool by_strips(int type, int64_t n_x) { return (void)n_x, type != EL_TYPE_Q4_K && type != EL_TYPE_IQ4_XS; }

#include "superblock_lanes_256.h"

void el_superblock_use_avx2(el_kernels *t) { use_superblocks(t); }
