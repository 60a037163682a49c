/* matmul_few_neon.h - blocks of 32 times two to eight activation rows, with sdot; part of matmul_neon.h. Four weight
 * rows at a time, so that sums stay in registers from the first block to the last. 8 rows of Q8_0 took 0.18
 * instructions a product where gemm() keeps them in memory. */

#define GEMM_FEW
enum { FEW = 8 };

typedef struct few {
    const int8_t *q[FEW];
    const float *d[FEW];
} few;

/* A block times activation rows j .. j + X_STEP - 1, whose pointers move to the next one. s_at: from d to s. */
INLINE void add_few(int type, float32x4_t acc[FEW], int j, few *x, size_t s_at, const int8x16_t w[8], row_scales scales)
{
    const acts v = load_acts(x->q[j], x->q[j + X_STEP - 1]);
    int32x4_t sum[X_STEP];

    sums_32(most_of(type), sum, w, &v);
    EL_UNROLLED
    for (int i = 0; i < X_STEP; i++) {
        const float s = has_min(type) ? float_at((const uint8_t *)x->d[j + i] + s_at) : 0;
        acc[j + i] = step(type, acc[j + i], packed_sum(type, sum[i]), scales, *x->d[j + i], s);
        x->q[j + i] += 32;
        x->d[j + i]++;
        KEEP_ADDRESS(x->q[j + i]);
        KEEP_ADDRESS(x->d[j + i]);
    }
}

/* Activation rows j and j + 1 are not loaded before the vector is there: all of them at once are too many for the
 * registers (clang 21, Q8_0 on dotprod: 0.17 instructions a product instead of 0.15). */
#define UNTIL(V, J) __asm__("" : "+w"(V), "+r"(at.q[J]), "+r"(at.d[J]), "+r"(at.q[(J) + 1]), "+r"(at.d[(J) + 1]))

/* sums[j]: those of four rows for activation row j; n of them count. FEW has code of its own: choosing by n costs two
 * instructions a product of four rows. */
INLINE void gemm_few(int type, float32x4_t sums[FEW], const uint8_t *const rows[LANES], const uint8_t *x,
                     size_t x_stride, ptrdiff_t n, bool full, int64_t k)
{
    const size_t s_at = el_act32_s(k) - el_act32_d(k);
    const size_t quants = quants_at(type) - (has_fifth(type) ? 4 : 0);
    const uint8_t *p[LANES] = {rows[0], rows[1], rows[2], rows[3]};
    float32x4_t acc[FEW];
    few at;

    EL_UNROLLED
    for (int j = 0; j < FEW; j++) {
        const uint8_t *row = x + (size_t)EL_MIN(j, n - 1) * x_stride;
        at.q[j] = (const int8_t *)row;
        at.d[j] = (const float *)(row + el_act32_d(k));
        acc[j] = vdupq_n_f32(0);
    }
    for (ptrdiff_t b = (ptrdiff_t)(k / 32); b != 0; b--) {
        const row_scales scales = scales_at(type, p, 0);
        int8x16_t w[8];
        advance(p, quants);
        pack_block(type, w, (const uint8_t *const *)p, -(ptrdiff_t)quants);
        advance(p, block_bytes(type) - quants);
        if (full) {
            UNTIL(w[7], 0);
            EL_UNROLLED
            for (int j = 0; j < FEW; j += X_STEP) {
                add_few(type, acc, j, &at, s_at, w, scales);
                if (j % 2 || X_STEP > 1)
                    UNTIL(acc[j], (j + X_STEP) % FEW);
            }
            continue;
        }
#define FROM(J)                                                                                                        \
    case (J) + 1:                                                                                                      \
        if ((J) % X_STEP == 0)                                                                                         \
            add_few(type, acc, (J) / X_STEP * X_STEP, &at, s_at, w, scales);                                           \
        __attribute__((fallthrough))
        switch (n) {
            FROM(6);
            FROM(5);
            FROM(4);
            FROM(3);
            FROM(2);
            FROM(1);
            FROM(0);
        default:;
        }
#undef FROM
    }
    EL_UNROLLED
    for (int j = 0; j < FEW; j++)
        sums[j] = acc[j];
}
