/* matmul_rows_neon.h - the loops over rows that matmul_neon.h and superblock_neon.h share, around the gemv_4 and
 * gemm that each of them defines. */

/* Rows that met subnormals on 32-bit ARM, by plain C. */
static void redo(int type, float *y, int64_t ldy, const uint8_t *const p[], int64_t n_rows, const uint8_t *x,
                 size_t x_stride, int64_t n_x, int64_t k)
{
    for (int64_t r = 0; r < n_rows; r++)
        el_kernels_named("ref")->matmul[type](y + r, ldy, p[r], 0, 1, x, x_stride, n_x, k, NULL);
    el_watch_subnormals();
}

INLINE void matmul(int type, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes, int64_t n_rows,
                   const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k)
{
    const uint8_t *p[ROWS];
    float32x4_t acc[X_CHUNK][GROUPS];

    el_watch_subnormals();
    if (n_x == 1) {
        for (int64_t row = 0; row < n_rows; row += LANES) {
            row_pointers(p, LANES, w, row_bytes, row, n_rows);
            el_store_lanes(y + row, gemv_4(type, p, x, k), n_rows - row);
            if (el_met_subnormals())
                redo(type, y + row, ldy, p, EL_MIN(n_rows - row, (int64_t)LANES), x, x_stride, 1, k);
        }
        return;
    }
#if defined(GEMM_FEW)
    if (HAS_SDOT && n_x <= FEW) {
        float32x4_t sums[FEW];
        for (int64_t row = 0; row < n_rows; row += LANES) {
            row_pointers(p, LANES, w, row_bytes, row, n_rows);
            if (n_x == FEW)
                gemm_few(type, sums, p, x, x_stride, n_x, true, k);
            else
                gemm_few(type, sums, p, x, x_stride, n_x, false, k);
            for (ptrdiff_t j = 0; j < n_x; j++)
                el_store_lanes(y + j * ldy + row, sums[j], n_rows - row);
        }
        return;
    }
#endif
    for (int64_t first = 0; first < n_x; first += X_CHUNK) {
        const ptrdiff_t n = (ptrdiff_t)EL_MIN(n_x - first, (int64_t)X_CHUNK);
        for (int64_t row = 0; row < n_rows; row += ROWS) {
            row_pointers(p, ROWS, w, row_bytes, row, n_rows);
            gemm(type, acc, p, x + (size_t)first * x_stride, x_stride, n, k);
            for (ptrdiff_t j = 0; j < n; j++)
                for (int g = 0; g < GROUPS; g++)
                    el_store_lanes(y + (first + j) * ldy + row + LANES * g, acc[j][g], n_rows - row - LANES * g);
            if (el_met_subnormals())
                redo(type, y + first * ldy + row, ldy, p, EL_MIN(n_rows - row, (int64_t)ROWS),
                     x + (size_t)first * x_stride, x_stride, n, k);
        }
    }
}

#define MATMUL(NAME, TYPE)                                                                                             \
    static void matmul_##NAME(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,   \
                              size_t x_stride, int64_t n_x, int64_t k, void *scratch)                                  \
    {                                                                                                                  \
        (void)scratch;                                                                                                 \
        matmul(TYPE, y, ldy, w, row_bytes, n_rows, x, x_stride, n_x, k);                                               \
    }
