/* grovemoe.c - GroveMoE: experts in groups, each with a small adjugate expert that all of its group share.
 * Source: Wu et al. 2025 (GroveMoE), the published model code. */
#include <math.h>

#include "arch.h"
#include "cpu_op.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

typedef struct grove {
    int32_t per_group;
    float scale; /* of what the adjugate experts say */
} grove;

static edgellm_status read_grove(grove *v, const el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    *v = (grove){.per_group = 1, .scale = 1};
    EL_TRY(el_key_i32(file, arch, "experts_per_group", 1, EL_MAX_HEADS, &v->per_group));
    EL_TRY(el_key_f32(file, arch, "expert_group_scale", 1e-6f, 1e6f, &v->scale));
    if (hp->expert.n < 1 || hp->expert.n % v->per_group != 0)
        return el_fail(EDGELLM_EFORMAT, "%s has %d experts in groups of %d; that cannot be", arch->name, hp->expert.n,
                       v->per_group);
done:
    return status;
}

static edgellm_status grovemoe_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    grove v;

    return read_grove(&v, hp, file, arch);
}

static void grovemoe_load(el_loader *l)
{
    el_model *m = l->model;
    const int64_t n_embd = m->hp.n_embd;
    grove *v = el_load_memory(l, sizeof *v);

    if (!v || read_grove(v, &m->hp, m->file, m->arch) != EDGELLM_OK)
        return;
    m->own = v;
    for (l->layer = 0; l->layer < m->hp.n_layer; l->layer++) {
        const el_gguf_tensor *down = el_find(l, "ffn_down_chexps", "weight");
        const int64_t n = m->hp.expert.n / v->per_group, n_ff = down ? down->ne[0] : 0;
        el_experts *x = el_load_memory(l, sizeof *x);
        if (!x)
            return;
        x->up.w = el_load(l, "ffn_up_chexps.weight", EL_REQUIRED, EL_MATRIX, n_embd, n_ff, n);
        x->gate.w = el_load(l, "ffn_gate_chexps.weight", EL_REQUIRED, EL_MATRIX, n_embd, n_ff, n);
        x->down.w = el_load(l, "ffn_down_chexps.weight", EL_REQUIRED, EL_MATRIX, n_ff, n_embd, n);
        m->layers[l->layer].own = x;
    }
}

/* ---- the group of an expert --------------------------------------------------------------- */

static int32_t one_chunk(const struct ggml_tensor *node)
{
    (void)node;
    return 1;
}

static void divide_ids(const struct ggml_tensor *node, int32_t chunk)
{
    const struct ggml_tensor *ids = node->src[0];
    const int32_t by = *(const int32_t *)el_op_params(node);
    int32_t *out = node->data;

    (void)chunk;
    for (int64_t row = 0; row < ids->ne[1]; row++) {
        const int32_t *from = (const int32_t *)(const void *)((const char *)ids->data + (size_t)row * ids->nb[1]);
        for (int64_t i = 0; i < ids->ne[0]; i++)
            out[row * node->ne[0] + i] = from[i] / by;
    }
}

static const el_op group_of = {"group of expert", one_chunk, divide_ids};

/* The adjugate experts of the best experts' groups, on what the experts have made of x. What weighs them is the
 * probability of the expert with the group's number, as in the runtimes that files are made for. */
static struct ggml_tensor *adjugate(el_graph *g, const el_experts *w, struct ggml_tensor *x, struct ggml_tensor *logits)
{
    const el_expert_hparams *e = &g->model->hp.expert;
    const grove *v = g->model->own;
    const int64_t rows = x->ne[1], n = EL_MIN(e->n_used, e->n / v->per_group);
    const int64_t ne[4] = {n, rows, 1, 1};
    struct ggml_tensor *ids = ggml_argsort_top_k(g->ctx, logits, (int)n), *weights, *sum;

    ids = el_op_new(g->ctx, &group_of, GGML_TYPE_I32, ne, &ids, 1, &v->per_group, sizeof v->per_group);
    weights = ggml_reshape_3d(g->ctx, ggml_soft_max(g->ctx, logits), 1, e->n, rows);
    weights = ggml_reshape_2d(g->ctx, ggml_get_rows(g->ctx, weights, ids), n, rows);
    sum = ggml_clamp(g->ctx, ggml_sum_rows(g->ctx, weights), 0x1p-14f, INFINITY);
    weights = ggml_reshape_3d(g->ctx, ggml_div(g->ctx, weights, sum), 1, n, rows);
    return ggml_scale(g->ctx, el_build_mixture(g, w, x, (el_choice){ids, weights}), v->scale);
}

static struct ggml_tensor *grovemoe_feed_forward(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];
    struct ggml_tensor *logits = el_build_linear(g, &w->experts->router, x);
    struct ggml_tensor *y = el_build_mixture(g, w->experts, x, el_build_choice(g, w->experts, logits));

    return ggml_add(g->ctx, y, adjugate(g, w->own, y, logits));
}

EL_ARCH(grovemoe) = {
    .name = "grovemoe",
    .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM, .may_have_experts = true, .experts_normalise = true},
    .hparams = grovemoe_hparams,
    .load = grovemoe_load,
    .feed_forward = grovemoe_feed_forward,
};
