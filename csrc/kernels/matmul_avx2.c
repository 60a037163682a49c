/* matmul_avx2.c - weights in blocks of 32 times activations by vpmaddubsw.
 *
 * vpmaddubsw multiplies unsigned by signed bytes and adds pairs in int16: exact for weights up to 128 and |q_x| <= 127
 * (2 * 128 * 127 < 2^15). Weights of 4 bits (at most 15) leave room for all 8 pairs of a lane, those of 5 bits (31)
 * for 4, those of 8 bits for one. */
#include "rows_in_lanes_avx2.h"

enum { UNSIGNED_BYTES = 0 };

INLINE bool is_signed(int type) { return type == EL_TYPE_Q8_0 || type == EL_TYPE_IQ4_NL; }
INLINE int run_of(int type) { return is_signed(type) ? 1 : type == EL_TYPE_Q4_0 || type == EL_TYPE_Q4_1 ? 8 : 4; }

/* int16, or int32 when signed. */
INLINE __m256i products(int type, __m256i sum, __m256i w, __m256i x)
{
    if (is_signed(type))
        return _mm256_add_epi32(sum, _mm256_madd_epi16(times_signed(w, x), _mm256_set1_epi16(1)));
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
}

INLINE __m256i add_run(int type, __m256i total, __m256i sum)
{
    return _mm256_add_epi32(total, is_signed(type) ? sum : _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
}

INLINE __m256i fold_rows(int type, const __m256i v[4])
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i a, b;

    if (is_signed(type))
        return fold_halves_32(v);
    a = fold_pair_16(v[0], v[1]);
    b = fold_pair_16(v[2], v[3]);
    if (run_of(type) == 8) /* 16 products of at most 15 * 127 still fit */
        return _mm256_madd_epi16(_mm256_add_epi16(even_dwords(a, b), odd_dwords(a, b)), ones);
    a = _mm256_madd_epi16(a, ones);
    b = _mm256_madd_epi16(b, ones);
    return _mm256_add_epi32(even_dwords(a, b), odd_dwords(a, b));
}

/* Measured at 2048 x 2048 on Zen 5: at 32 activation rows and more strips lose 2 to 7 % with these types, and gain 4 to
 * 14 % with Q5_0, Q5_1 and MXFP4. */
INLINE bool by_strips(int type, int64_t n_x)
{
    return type == EL_TYPE_Q8_0 ? n_x < 8 : type != EL_TYPE_Q4_0 && type != EL_TYPE_Q4_1;
}

#include "matmul_lanes_256.h"

void el_matmul_use_avx2(el_kernels *t) { use_blocks_of_32(t); }
