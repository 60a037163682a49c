/* op_half_gelu.c - row by row, in strips that stay in the first-level cache. */
#include "op_half_gelu.h"

#include "cpu_op.h"
#include "ggml.h"
#include "kernels.h"
#include "mem.h"

enum { STRIP = 256, EDGE = 10 };

static int32_t n_chunks(const struct ggml_tensor *node) { return (int32_t)node->ne[1]; }

static void run(const struct ggml_tensor *node, int32_t row)
{
    const el_kernels *kernels = el_kernels_get();
    const struct ggml_tensor *src = node->src[0];
    const float *x = (const float *)(const void *)((const char *)src->data + (size_t)row * src->nb[1]);
    float *y = (float *)(void *)((char *)node->data + (size_t)row * node->nb[1]);
    uint16_t half[STRIP];
    float full[STRIP];

    for (int64_t at = 0; at < node->ne[0]; at += STRIP) {
        const int64_t n = EL_MIN(node->ne[0] - at, STRIP);
        kernels->f32_to_f16(half, x + at, n);
        kernels->f16_to_f32(full, half, n);
        kernels->map(EL_MAP_GELU, full, full, NULL, n, NULL);
        kernels->f32_to_f16(half, full, n);
        kernels->f16_to_f32(full, half, n);
        for (int64_t i = 0; i < n; i++)
            y[at + i] = x[at + i] <= -EDGE ? 0 : x[at + i] >= EDGE ? x[at + i] : full[i];
    }
}

struct ggml_tensor *el_op_half_gelu(struct ggml_context *ctx, struct ggml_tensor *x)
{
    static const el_op op = {"GELU in half precision", n_chunks, run};

    return el_op_new(ctx, &op, GGML_TYPE_F32, x->ne, &x, 1, NULL, 0);
}
