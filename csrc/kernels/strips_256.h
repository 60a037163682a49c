/* strips_256.h - all rows of a product, for matmul_lanes_256.h and superblock_lanes_256.h, which define gemv_8, unpack,
 * tile and strip_block.
 *
 * Several activation rows: a strip of eight weight rows (two strips when there are as many rows) is unpacked once into
 * scratch: four consecutive weights per lane, row r in lane r, with the scales of each block beside them. Then tiles of
 * activation rows pass over it with their sums in registers: one load of weights serves all rows of the tile, one
 * broadcast of four activations both strips. */

INLINE void tile_of(int type, int n, int n_strips, float *y, int64_t ldy, int64_t n_rows, const strip_block *strips,
                    const uint8_t *x, size_t x_stride, int64_t k)
{
    __m256 acc[TILE][STRIPS];

    tile(type, n, n_strips, acc, strips, k / STRIP_BLOCK, x, x_stride, k);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < n_strips; i++)
            store_lanes(y + j * ldy + i * ROWS, acc[j][i], n_rows - i * ROWS);
}

INLINE void tiles(int type, int n_strips, float *y, int64_t ldy, int64_t n_rows, const strip_block *strips,
                  const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k)
{
    for (; n_x >= TILE; n_x -= TILE, y += TILE * ldy, x += TILE * x_stride)
        tile_of(type, TILE, n_strips, y, ldy, n_rows, strips, x, x_stride, k);
    for (; n_x >= 2; n_x -= 2, y += 2 * ldy, x += 2 * x_stride)
        tile_of(type, 2, n_strips, y, ldy, n_rows, strips, x, x_stride, k);
    if (n_x)
        tile_of(type, 1, n_strips, y, ldy, n_rows, strips, x, x_stride, k);
}

INLINE void matmul(int type, float *y, int64_t ldy, const uint8_t *w, size_t row_bytes, int64_t n_rows,
                   const uint8_t *x, size_t x_stride, int64_t n_x, int64_t k, strip_block *strips)
{
    const uint8_t *p[ROWS];

    if (n_x == 1) {
        for (int64_t row = 0; row < n_rows; row += ROWS) {
            row_pointers(p, w, row_bytes, row, n_rows);
            store_lanes(y + row, gemv_8(type, p, x, k, w + (size_t)(row + ROWS) * row_bytes), n_rows - row);
        }
        return;
    }
    for (int64_t row = 0; row < n_rows; row += STRIPS * ROWS) {
        const int64_t n_strips = n_rows - row > ROWS ? 2 : 1;
        for (int64_t i = 0; i < n_strips; i++) {
            row_pointers(p, w, row_bytes, row + i * ROWS, n_rows);
            unpack(type, strips + i * (k / STRIP_BLOCK), p, k / STRIP_BLOCK);
        }
        if (n_strips == 2)
            tiles(type, 2, y + row, ldy, n_rows - row, strips, x, x_stride, n_x, k);
        else
            tiles(type, 1, y + row, ldy, n_rows - row, strips, x, x_stride, n_x, k);
    }
}
