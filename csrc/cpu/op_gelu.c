/* op_gelu.c - GELU by way of f16, row by row, in strips that stay in the first-level cache. */
#include "op_gelu.h"

#include "cpu_op.h"
#include "kernels.h"
#include "mem.h"

enum { STRIP = 256, EDGE = 10 };

static int32_t n_chunks(const struct ggml_tensor *node) { return (int32_t)ggml_nrows(node); }

static const float *row_of(const struct ggml_tensor *t, int64_t row)
{
    const int64_t i1 = row % t->ne[1], i2 = row / t->ne[1];

    return (const float *)(const void *)((const char *)t->data + (size_t)i1 * t->nb[1] + (size_t)i2 * t->nb[2]);
}

static void run(const struct ggml_tensor *node, int32_t row)
{
    const el_kernels *kernels = el_kernels_get();
    const float *gate = row_of(node->src[0], row), *up = row_of(node->src[1], row);
    float *y = (float *)node->data + row * node->ne[0];
    uint16_t half[STRIP];
    float full[STRIP];

    for (int64_t at = 0; at < node->ne[0]; at += STRIP) {
        const int64_t n = EL_MIN(node->ne[0] - at, STRIP);
        kernels->f32_to_f16(half, gate + at, n);
        kernels->f16_to_f32(full, half, n);
        kernels->map(EL_MAP_GELU, full, full, NULL, n, NULL);
        kernels->f32_to_f16(half, full, n);
        kernels->f16_to_f32(full, half, n);
        for (int64_t i = 0; i < n; i++) /* beyond the edges GELU is 0 or x, which no half may hold */
            full[i] = gate[at + i] <= -EDGE ? 0 : gate[at + i] >= EDGE ? gate[at + i] : full[i];
        kernels->mul(y + at, full, up + at, n);
    }
}

struct ggml_tensor *el_op_geglu_f16(struct ggml_context *ctx, struct ggml_tensor *gate, struct ggml_tensor *up)
{
    static const el_op op = {"geglu f16", n_chunks, run};
    struct ggml_tensor *const srcs[] = {gate, up};

    return el_op_new(ctx, &op, GGML_TYPE_F32, gate->ne, srcs, 2, NULL, 0);
}
