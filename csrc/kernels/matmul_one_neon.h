/* matmul_one_neon.h - blocks of 32 times one activation row; part of matmul_neon.h. Four weight rows, as they lie in
 * the file, times the row; their sums are folded into four lanes. Instructions besides the products are what counts
 * here, so every row has a pointer of its own that moves with the load. */

/* All rows n bytes on. The compiler must not see that this is a sum, or it makes one address of several steps and adds
 * to it before each load (clang 21: 12 additions for two blocks of Q4_0). */
INLINE void advance(const uint8_t *p[LANES], size_t n)
{
    EL_UNROLLED
    for (int r = 0; r < LANES; r++) {
        p[r] += n;
        KEEP_ADDRESS(p[r]);
    }
}

/* What moves along the activation row: its values, and per block d, s and sum8. */
typedef struct place {
    const int8_t *q;
    const float *d, *s;
    const int32_t *sum8;
} place;

/* acc and the next block, the i-th of those whose d and s were loaded. */
INLINE float32x4_t gemv_block(int type, float32x4_t acc, int32x4_t kept[LANES + 1], const uint8_t *p[LANES], place *x,
                              float d, float s)
{
    const size_t quants = quants_at(type) - (has_fifth(type) ? 4 : 0);
    const int8x16_t v[2] = {vld1q_s8(x->q), vld1q_s8(x->q + 16)};
    const row_scales scales = scales_at(type, p, 0);
    int8x16_t w[2 * LANES];
    int32x4_t sum;

    advance(p, quants);
    EL_UNROLLED
    for (int r = 0; r < LANES; r++)
        unpack_row(type, &w[r], &w[LANES + r], p[r] - quants);
    advance(p, block_bytes(type) - quants);
    sum = next_dots_32(most_of(type), kept, w, v);
    if (type == EL_TYPE_Q4_0) {
        int32x4_t sum8 = vld1q_dup_s32(x->sum8++);
        KEEP_VECTOR(sum8);
        KEEP_ADDRESS(x->sum8);
        sum = vsubq_s32(sum, sum8);
    }
    x->q += 32;
    KEEP_ADDRESS(x->q);
    return step(type, acc, vcvtq_f32_s32(sum), scales, d, s);
}

/* With fifth bits, or on 32-bit ARM, more than one are too many for the registers. */
INLINE int at_once(int type) { return has_fifth(type) || EL_AARCH32 ? 1 : HAS_SDOT && type != EL_TYPE_Q8_0 ? 4 : 2; }

INLINE float32x4_t load_floats(int n, const float *f) /* 2 or 4 */
{
    return n == 4 ? vld1q_f32(f) : vcombine_f32(vld1_f32(f), vdup_n_f32(0));
}

INLINE float32x4_t gemv_4(int type, const uint8_t *const rows[LANES], const uint8_t *x, int64_t k)
{
    const uint8_t *p[LANES] = {rows[0], rows[1], rows[2], rows[3]};
    place at = {(const int8_t *)x, (const float *)(x + el_act32_d(k)), (const float *)(x + el_act32_s(k)),
                (const int32_t *)(x + el_act32_sum8(k))};
    int32x4_t kept[LANES + 1];
    float32x4_t acc = vdupq_n_f32(0);
    ptrdiff_t n = (ptrdiff_t)(k / 32);

    EL_UNROLLED
    for (int i = 0; i <= LANES; i++)
        kept[i] = vdupq_n_s32(0);
    if (at_once(type) > 1) {
        for (ptrdiff_t i = n / at_once(type); i != 0; i--) {
            const float32x4_t d = load_floats(at_once(type), at.d),
                              s = has_min(type) ? load_floats(at_once(type), at.s) : d;
            at.d += at_once(type), at.s += has_min(type) ? at_once(type) : 0;
            KEEP_ADDRESS(at.d);
            KEEP_ADDRESS(at.s);
            EL_UNROLLED
            for (int j = 0; j < 4; j++)
                if (j < at_once(type))
                    acc = gemv_block(type, acc, kept, p, &at, d[j], s[j]);
        }
        n %= at_once(type);
    }
    for (; n != 0; n--, at.d++, at.s++)
        acc = gemv_block(type, acc, kept, p, &at, *at.d, has_min(type) ? *at.s : 0);
    return acc;
}
