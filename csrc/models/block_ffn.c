/* block_ffn.c - the feed-forward block of one row: gated or not, with the family's activation.
 * Source: Shazeer 2020, "GLU Variants Improve Transformer". */
#include <math.h>

#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

/* gpt-oss: x * sigmoid(1.702 x) with x at most 7, times up within -7 .. 7 plus 1 (the published model code). */
#define OAI_ALPHA 1.702f
#define OAI_LIMIT 7.0f

static struct ggml_tensor *activated(el_graph *g, struct ggml_tensor *x)
{
    switch (g->model->hp.activation) {
    case EL_ACT_GELU:
        return ggml_gelu(g->ctx, x);
    case EL_ACT_GELU_ERF:
        return ggml_gelu_erf(g->ctx, x);
    case EL_ACT_RELU:
        return ggml_relu(g->ctx, x);
    case EL_ACT_RELU_SQUARED:
        return ggml_sqr(g->ctx, ggml_relu(g->ctx, x));
    default:
        return ggml_silu(g->ctx, x);
    }
}

struct ggml_tensor *el_build_gated(el_graph *g, struct ggml_tensor *gate, struct ggml_tensor *up)
{
    if (!gate)
        return activated(g, up);
    switch (g->model->hp.activation) {
    case EL_ACT_SILU:
        return ggml_swiglu_split(g->ctx, gate, up);
    case EL_ACT_GELU:
        return ggml_geglu_split(g->ctx, gate, up);
    case EL_ACT_GELU_ERF:
        return ggml_geglu_erf_split(g->ctx, gate, up);
    case EL_ACT_RELU:
        return ggml_reglu_split(g->ctx, gate, up);
    case EL_ACT_SWIGLU_OAI:
        return ggml_swiglu_oai(g->ctx, gate, up, OAI_ALPHA, OAI_LIMIT);
    default:
        return ggml_mul(g->ctx, activated(g, gate), up);
    }
}

struct ggml_tensor *el_build_gated_within(el_graph *g, struct ggml_tensor *gate, struct ggml_tensor *up, float limit)
{
    if (!gate || limit == 0)
        return el_build_gated(g, gate, up);
    if (g->model->arch->traits.limit_before)
        gate = activated(g, ggml_clamp(g->ctx, gate, -INFINITY, limit));
    else
        gate = ggml_clamp(g->ctx, activated(g, gate), -INFINITY, limit);
    return ggml_mul(g->ctx, gate, ggml_clamp(g->ctx, up, -limit, limit));
}

struct ggml_tensor *el_build_ffn(el_graph *g, const el_ffn *w, struct ggml_tensor *x)
{
    struct ggml_tensor *gate = w->gate.w ? el_build_linear(g, &w->gate, x) : NULL;
    struct ggml_tensor *y = el_build_gated_within(g, gate, el_build_linear(g, &w->up, x), w->limit);

    if (w->act_scale)
        y = ggml_div(g->ctx, y, w->act_scale);
    if (w->sub_norm.w)
        y = el_build_norm(g, y, &w->sub_norm);
    return el_build_linear(g, &w->down, y);
}

struct ggml_tensor *el_build_feed_forward(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];

    if (g->model->arch->feed_forward)
        return g->model->arch->feed_forward(g, layer, x);
    return w->experts ? el_build_experts(g, layer, x) : el_build_ffn(g, &w->ffn, x);
}
