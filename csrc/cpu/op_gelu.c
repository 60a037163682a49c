/* op_gelu.c - GELU by way of f16. A chunk is a part of one row. */
#include "op_gelu.h"

#include "cpu_op.h"
#include "scalar_math.h"

enum { PART = 1024 };

static float gelu_by_f16(float x)
{
    if (x <= -10 || x == 0)
        return 0;
    if (x >= 10)
        return x;
    return el_f16_value(el_f16_round(el_gelu(el_f16_value(el_f16_round(x)))));
}

static int64_t parts(const struct ggml_tensor *node) { return (node->ne[0] + PART - 1) / PART; }

static int32_t n_chunks(const struct ggml_tensor *node) { return (int32_t)(parts(node) * ggml_nrows(node)); }

static const float *row_of(const struct ggml_tensor *t, int64_t row)
{
    const int64_t i1 = row % t->ne[1], i2 = row / t->ne[1];

    return (const float *)(const void *)((const char *)t->data + (size_t)i1 * t->nb[1] + (size_t)i2 * t->nb[2]);
}

static void run(const struct ggml_tensor *node, int32_t chunk)
{
    const int64_t row = chunk / parts(node), first = chunk % parts(node) * PART;
    const int64_t end = first + PART < node->ne[0] ? first + PART : node->ne[0];
    const float *gate = row_of(node->src[0], row), *up = row_of(node->src[1], row);
    float *out = (float *)node->data + row * node->ne[0];

    for (int64_t i = first; i < end; i++)
        out[i] = gelu_by_f16(gate[i]) * up[i];
}

static const el_op geglu = {"geglu f16", n_chunks, run};

struct ggml_tensor *el_op_geglu_f16(struct ggml_context *ctx, struct ggml_tensor *gate, struct ggml_tensor *up)
{
    struct ggml_tensor *const srcs[] = {gate, up};

    return el_op_new(ctx, &geglu, GGML_TYPE_F32, gate->ne, srcs, 2, NULL, 0);
}
