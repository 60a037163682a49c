/* graph.c - inputs of a step and the building blocks. Which of them a family uses stands in its traits. */
#include "graph.h"

#include <math.h>

#include "cpu_plan.h"
#include "ggml.h"

enum { NODES_PER_LAYER = 64, NODES_BESIDES = 64 };

static size_t max_nodes(const el_model *model)
{
    const size_t per_layer = NODES_PER_LAYER + 2 * (size_t)model->hp.n_expert_used;

    return (size_t)model->hp.n_layer * per_layer + NODES_BESIDES;
}

size_t el_graph_memory(const el_model *model)
{
    const size_t n = max_nodes(model);

    return n * ggml_tensor_overhead() + ggml_graph_overhead_custom(n, false);
}

static struct ggml_tensor *input(el_graph *g, enum ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2,
                                 const char *name)
{
    const int64_t ne[3] = {ne0, ne1, ne2};
    struct ggml_tensor *t = ggml_new_tensor(g->ctx, type, ne2 > 1 ? 3 : ne1 > 1 ? 2 : 1, ne);

    ggml_set_input(t);
    ggml_set_name(t, name);
    /* Graphs read inputs at any node, and the allocator frees what it thinks no one reads: keep them to the end. */
    ggml_set_output(t);
    return t;
}

static void make_inputs(el_graph *g)
{
    const el_hparams *hp = &g->model->hp;
    const el_graph_shape *s = &g->shape;

    g->in.tokens = input(g, GGML_TYPE_I32, s->n_rows, 1, 1, "tokens");
    g->in.positions = input(g, GGML_TYPE_I32, s->n_rows, 1, 1, "positions");
    g->in.slots = input(g, GGML_TYPE_I64, s->n_rows, 1, 1, "slots");
    g->in.outputs = s->n_out ? input(g, GGML_TYPE_I32, s->n_out, 1, 1, "outputs") : NULL;
    g->in.mask = input(g, GGML_TYPE_F16, s->n_kv, s->n_rows, 1, "mask");
    g->in.mask_sliding = hp->window ? input(g, GGML_TYPE_F16, s->n_kv, s->n_rows, 1, "mask_sliding") : NULL;
    g->in.ranges = input(g, GGML_TYPE_I32, 4, s->n_rows, 1, "ranges");
    g->in.ranges_sliding = hp->window ? input(g, GGML_TYPE_I32, 4, s->n_rows, 1, "ranges_sliding") : NULL;
    g->in.tables = input(g, GGML_TYPE_I32, (s->n_kv + 31) / 32, s->n_seqs, 1, "tables");
    g->in.attn_temp = hp->attn_temp_scale != 0 ? input(g, GGML_TYPE_F32, 1, 1, s->n_rows, "attn_temp") : NULL;
}

edgellm_status el_graph_build(el_graph *g, const el_model *model, const el_kv_tensors *kv, el_graph_shape shape,
                              void *memory)
{
    const struct ggml_init_params params = {.mem_size = el_graph_memory(model), .mem_buffer = memory, .no_alloc = true};

    *g = (el_graph){.model = model, .kv = kv, .shape = shape};
    g->ctx = ggml_init(params);
    if (!g->ctx)
        return el_no_memory(params.mem_size);
    g->nodes = ggml_new_graph_custom(g->ctx, max_nodes(model), false);
    make_inputs(g);
    model->arch->build(g);
    return EDGELLM_OK;
}

void el_graph_clear(el_graph *g)
{
    if (g->ctx)
        ggml_free(g->ctx);
    g->ctx = NULL;
}

float el_graph_attn_temperature(const el_hparams *hp, int32_t position)
{
    return 1.0f + hp->attn_temp_scale * logf(1.0f + floorf((float)position / (float)hp->attn_temp_length));
}

struct ggml_tensor *el_build_norm(el_graph *g, struct ggml_tensor *x, struct ggml_tensor *weight)
{
    return ggml_mul(g->ctx, ggml_rms_norm(g->ctx, x, g->model->hp.norm_eps), weight);
}

struct ggml_tensor *el_build_linear(el_graph *g, struct ggml_tensor *w, struct ggml_tensor *bias, struct ggml_tensor *x)
{
    struct ggml_tensor *y = ggml_mul_mat(g->ctx, w, x);

    return bias ? ggml_add(g->ctx, y, bias) : y;
}

/* x: [head, n_head, rows] */
static struct ggml_tensor *rope(el_graph *g, const el_layer_hparams *lh, struct ggml_tensor *x)
{
    const el_hparams *hp = &g->model->hp;
    const int mode = g->model->arch->traits.rope == EL_ROPE_HALVES ? GGML_ROPE_TYPE_NEOX : GGML_ROPE_TYPE_NORMAL;
    const bool yarn = hp->rope_scaling == EL_ROPE_YARN;
    float base = lh->sliding ? hp->rope_base_sliding : hp->rope_base;
    float factor = lh->sliding ? 1.0f : hp->rope_factor;

    return ggml_rope_ext(g->ctx, x, g->in.positions, g->model->rope_freqs, hp->n_rot, mode, hp->rope_ctx_orig, base,
                         1.0f / factor, yarn ? 1.0f : 0.0f, hp->rope_attn_factor, hp->yarn_beta_fast,
                         hp->yarn_beta_slow);
}

/* The layer's part of the pool as attention wants it: [head, n_kv, n_head_kv], without copying. */
static struct ggml_tensor *pool_view(el_graph *g, struct ggml_tensor *pool, int32_t head, int32_t n_head_kv)
{
    return ggml_view_3d(g->ctx, pool, head, g->shape.n_kv, n_head_kv, pool->nb[1], ggml_row_size(pool->type, head), 0);
}

struct ggml_tensor *el_build_attention(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_hparams *hp = &g->model->hp;
    const el_layer_hparams *lh = &hp->layers[layer];
    const el_layer *w = &g->model->layers[layer];
    const el_kv_tensors *kv = &g->kv[layer];
    const int64_t rows = g->shape.n_rows;
    struct ggml_tensor *q = el_build_linear(g, w->wq, w->bq, x);
    struct ggml_tensor *k = el_build_linear(g, w->wk, w->bk, x);
    struct ggml_tensor *v = el_build_linear(g, w->wv, w->bv, x);
    struct ggml_tensor *mask = lh->sliding ? g->in.mask_sliding : g->in.mask;
    struct ggml_tensor *y;

    q = ggml_reshape_3d(g->ctx, q, hp->head_k, lh->n_head, rows);
    k = ggml_reshape_3d(g->ctx, k, hp->head_k, lh->n_head_kv, rows);
    if (w->q_norm)
        q = el_build_norm(g, q, w->q_norm);
    if (w->k_norm)
        k = el_build_norm(g, k, w->k_norm);
    q = rope(g, lh, q);
    k = rope(g, lh, k);
    if (g->in.attn_temp)
        q = ggml_mul(g->ctx, q, g->in.attn_temp);

    /* A row reads its own step's K and V back from the cache, after rounding to the cache's type. */
    k = ggml_reshape_2d(g->ctx, k, (int64_t)hp->head_k * lh->n_head_kv, rows);
    ggml_build_forward_expand(g->nodes, ggml_set_rows(g->ctx, kv->k, k, g->in.slots));
    ggml_build_forward_expand(g->nodes, ggml_set_rows(g->ctx, kv->v, v, g->in.slots));
    if (layer == hp->n_layer - 1 && g->shape.n_out == 0)
        return NULL; /* no one will read this layer's result */

    y = ggml_flash_attn_ext(g->ctx, ggml_permute(g->ctx, q, 0, 2, 1, 3), pool_view(g, kv->k, hp->head_k, lh->n_head_kv),
                            pool_view(g, kv->v, hp->head_v, lh->n_head_kv), mask, hp->attn_scale, 0.0f, 0.0f);
    y->src[EL_ATTN_RANGES] = lh->sliding ? g->in.ranges_sliding : g->in.ranges;
    y->src[EL_ATTN_TABLES] = g->in.tables;
    y = ggml_reshape_2d(g->ctx, y, (int64_t)hp->head_v * lh->n_head, rows);
    return el_build_linear(g, w->wo, w->bo, y);
}

static struct ggml_tensor *gated(el_graph *g, struct ggml_tensor *gate, struct ggml_tensor *up)
{
    if (g->model->arch->traits.activation == EL_ACT_GELU)
        return ggml_geglu_split(g->ctx, gate, up);
    return ggml_swiglu_split(g->ctx, gate, up);
}

struct ggml_tensor *el_build_ffn(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];
    struct ggml_tensor *gate = el_build_linear(g, w->gate, w->gate_b, x);
    struct ggml_tensor *up = el_build_linear(g, w->up, w->up_b, x);

    return el_build_linear(g, w->down, w->down_b, gated(g, gate, up));
}

/* Routing as in Mixtral (Jiang et al. 2024, section 2.1): softmax over all experts, the best n_expert_used, their
 * weights scaled to sum to 1. */
struct ggml_tensor *el_build_experts(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_hparams *hp = &g->model->hp;
    const el_layer *w = &g->model->layers[layer];
    const int64_t rows = x->ne[1];
    struct ggml_tensor *probs = ggml_soft_max(g->ctx, ggml_mul_mat(g->ctx, w->router, x)); /* [n_expert, rows] */
    struct ggml_tensor *chosen = ggml_argsort_top_k(g->ctx, probs, hp->n_expert_used);     /* [n_expert_used, rows] */
    struct ggml_tensor *weights = ggml_get_rows(g->ctx, ggml_reshape_3d(g->ctx, probs, 1, hp->n_expert, rows), chosen);
    struct ggml_tensor *gate, *up, *y, *sum;

    weights = ggml_reshape_2d(g->ctx, weights, hp->n_expert_used, rows);
    sum = ggml_clamp(g->ctx, ggml_sum_rows(g->ctx, weights), 0x1p-14f, INFINITY); /* never divide by 0 */
    weights = ggml_div(g->ctx, weights, sum);
    if (hp->expert_scale != 1.0f)
        weights = ggml_scale(g->ctx, weights, hp->expert_scale);
    weights = ggml_reshape_3d(g->ctx, weights, 1, hp->n_expert_used, rows);

    x = ggml_reshape_3d(g->ctx, x, hp->n_embd, 1, rows);
    up = ggml_mul_mat_id(g->ctx, w->up_exps, x, chosen); /* [n_ff, n_expert_used, rows] */
    gate = ggml_mul_mat_id(g->ctx, w->gate_exps, x, chosen);
    y = ggml_mul_mat_id(g->ctx, w->down_exps, gated(g, gate, up), chosen);
    y = ggml_mul(g->ctx, y, weights);
    sum = NULL;
    for (int32_t i = 0; i < hp->n_expert_used; i++) {
        struct ggml_tensor *one = ggml_view_2d(g->ctx, y, hp->n_embd, rows, y->nb[2], (size_t)i * y->nb[1]);
        sum = sum ? ggml_add(g->ctx, sum, one) : one;
    }
    return hp->n_expert_used == 1 ? ggml_cont(g->ctx, sum) : sum;
}
