/* strips_256.h - all rows of a product, for matmul_lanes_256.h and superblock_lanes_256.h, which define gemv_8, gemm_8,
 * unpack, tile and strip_block.
 *
 * Several activation rows: a strip of eight weight rows (two strips when there are as many rows) is unpacked once into
 * scratch: four consecutive weights per lane, row r in lane r, with the scales of each block beside them. Then tiles of
 * activation rows pass over it with their sums in registers: one load of weights serves all rows of the tile, one
 * broadcast of four activations both strips. K goes by parts, so that two strips (20 to 23 KB) stay in an L1 cache.
 * Where by_strips() says that this does not pay, gemm_8 passes over all rows with each transposed block instead. */

enum { K_PART = 1024 };

/* Sums so far are in y, but for the first part of K. */
INLINE void tile_of(int type, int n, int n_strips, float *y, int64_t ldy, int64_t n_rows, const strip_block *strips,
                    int64_t first, int64_t n_blocks, const uint8_t *x, size_t x_stride, int64_t k)
{
    __m256 acc[TILE][STRIPS];

    for (int j = 0; j < n; j++)
        for (int i = 0; i < n_strips; i++)
            acc[j][i] = first ? el_load_lanes(y + j * ldy + i * ROWS, n_rows - i * ROWS) : _mm256_setzero_ps();
    tile(type, n, n_strips, acc, strips, first, n_blocks, x, x_stride, k);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < n_strips; i++)
            el_store_lanes(y + j * ldy + i * ROWS, acc[j][i], n_rows - i * ROWS);
}

INLINE void tiles(int type, int n_strips, float *y, int64_t ldy, int64_t n_rows, const strip_block *strips,
                  int64_t first, int64_t n_blocks, const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k)
{
    for (; n_x >= TILE; n_x -= TILE, y += TILE * ldy, x += TILE * x_stride)
        tile_of(type, TILE, n_strips, y, ldy, n_rows, strips, first, n_blocks, x, x_stride, k);
    for (; n_x >= 2; n_x -= 2, y += 2 * ldy, x += 2 * x_stride)
        tile_of(type, 2, n_strips, y, ldy, n_rows, strips, first, n_blocks, x, x_stride, k);
    if (n_x)
        tile_of(type, 1, n_strips, y, ldy, n_rows, strips, first, n_blocks, x, x_stride, k);
}

INLINE void matmul(int type, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes, int64_t n_rows,
                   const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k, strip_block *strips)
{
    const uint8_t *p[ROWS];

    if (n_x == 1) {
        for (int64_t row = 0; row < n_rows; row += ROWS) {
            row_pointers(p, w, row_bytes, row, n_rows);
            el_store_lanes(y + row, gemv_8(type, p, x, k, w + (size_t)(row + ROWS) * row_bytes), n_rows - row);
        }
        return;
    }
    for (int64_t first = 0; first < n_x && !by_strips(type, n_x); first += X_CHUNK) {
        const int64_t n = EL_MIN(n_x - first, (int64_t)X_CHUNK);
        for (int64_t row = 0; row < n_rows; row += ROWS) {
            __m256 acc[X_CHUNK];
            for (int64_t j = 0; j < n; j++)
                acc[j] = _mm256_setzero_ps();
            row_pointers(p, w, row_bytes, row, n_rows);
            gemm_8(type, acc, p, x + (size_t)first * x_stride, x_stride, n, k);
            for (int64_t j = 0; j < n; j++)
                el_store_lanes(y + (first + j) * ldy + row, acc[j], n_rows - row);
        }
    }
    for (int64_t row = 0; row < n_rows && by_strips(type, n_x); row += STRIPS * ROWS) {
        const int64_t n_strips = n_rows - row > ROWS ? 2 : 1;
        for (int64_t first = 0; first < k / STRIP_BLOCK; first += K_PART / STRIP_BLOCK) {
            const int64_t n_blocks = EL_MIN(k / STRIP_BLOCK - first, K_PART / STRIP_BLOCK);
            for (int64_t i = 0; i < n_strips; i++) {
                row_pointers(p, w + (size_t)first * block_bytes(type), row_bytes, row + i * ROWS, n_rows);
                unpack(type, strips + i * n_blocks, p, n_blocks);
            }
            if (n_strips == 2)
                tiles(type, 2, y + row, ldy, n_rows - row, strips, first, n_blocks, x, x_stride, n_x, k);
            else
                tiles(type, 1, y + row, ldy, n_rows - row, strips, first, n_blocks, x, x_stride, n_x, k);
        }
    }
}
