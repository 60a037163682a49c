/* matmul_avxvnni.c - weights in blocks of 32 times activations by vpdpbusd, which adds four products to an int32 lane:
 * no sum can overflow, so a lane adds up a whole block. Source of the instruction's meaning: Intel SDM vol. 2. */
#include "dot_avxvnni.h"
#include "rows_in_lanes_avx2.h"

INLINE int run_of(int type) { return (void)type, 8; }
INLINE __m256i products(int type, __m256i sum, __m256i w, __m256i x) { return (void)type, dpbusd(sum, w, x); }
INLINE __m256i add_run(int type, __m256i total, __m256i sum) { return (void)type, _mm256_add_epi32(total, sum); }
INLINE __m256i fold_rows(int type, const __m256i v[4]) { return (void)type, fold_halves_32(v); }

INLINE bool by_strips(int type, int64_t n_x) { return (void)type, (void)n_x, true; }

#include "matmul_lanes_256.h"

void EL_USE(el_matmul_use)(el_kernels *t) { use_blocks_of_32(t); }
