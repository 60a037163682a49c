/* block_experts.c - a mixture of experts: each row goes through the few that its router chooses.
 * Sources: Jiang et al. 2024 (Mixtral), section 2.1; DeepSeek-AI 2024 (DeepSeek-V3), section 2.1.2: sigmoid gating, a
 * bias for the choice alone, groups; Dai et al. 2024 (DeepSeekMoE): shared experts. */
#include <math.h>

#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

static struct ggml_tensor *probabilities(el_graph *g, struct ggml_tensor *logits)
{
    switch (g->model->hp.expert.gating) {
    case EL_GATING_SIGMOID:
        return ggml_sigmoid(g->ctx, logits);
    case EL_GATING_SQRT_SOFTPLUS:
        return ggml_sqrt(g->ctx, ggml_softplus(g->ctx, logits));
    case EL_GATING_SOFTMAX_CHOSEN:
    case EL_GATING_SIGMOID_CHOSEN:
        return logits;
    default:
        return ggml_soft_max(g->ctx, logits);
    }
}

/* Only the experts of the best groups stay; a group counts as much as its two best experts together. */
static struct ggml_tensor *best_groups(el_graph *g, struct ggml_tensor *probs)
{
    const el_expert_hparams *e = &g->model->hp.expert;
    const int64_t rows = probs->ne[1], per_group = e->n / e->n_groups;
    struct ggml_tensor *grouped = ggml_reshape_4d(g->ctx, probs, 1, per_group, e->n_groups, rows);
    struct ggml_tensor *flat = ggml_reshape_3d(g->ctx, probs, per_group, e->n_groups, rows);
    struct ggml_tensor *best = ggml_top_k(g->ctx, flat, (int)EL_MIN(per_group, 2)); /* [2, n_groups, rows] */
    struct ggml_tensor *score, *worst;

    score = ggml_get_rows(g->ctx, grouped, best); /* [1, 2, n_groups, rows] */
    score = ggml_sum_rows(g->ctx, ggml_reshape_3d(g->ctx, score, score->ne[1], e->n_groups, rows));
    score = ggml_reshape_2d(g->ctx, score, e->n_groups, rows);
    /* the groups that are left out, by rank: all but the first n_groups_used */
    worst = ggml_argsort(g->ctx, score, GGML_SORT_ORDER_DESC);
    worst = ggml_view_2d(g->ctx, worst, e->n_groups - e->n_groups_used, rows, worst->nb[1],
                         (size_t)e->n_groups_used * worst->nb[0]);
    flat = ggml_set_rows(g->ctx, flat, ggml_fill(g->ctx, ggml_get_rows(g->ctx, flat, worst), -INFINITY), worst);
    return ggml_reshape_2d(g->ctx, flat, e->n, rows);
}

/* [n_used, rows] of the chosen experts, from probs [n, rows] */
static struct ggml_tensor *expert_weights(el_graph *g, struct ggml_tensor *probs, struct ggml_tensor *chosen)
{
    const el_expert_hparams *e = &g->model->hp.expert;
    const int64_t rows = probs->ne[1];
    struct ggml_tensor *weights = ggml_get_rows(g->ctx, ggml_reshape_3d(g->ctx, probs, 1, e->n, rows), chosen);

    weights = ggml_reshape_2d(g->ctx, weights, e->n_used, rows);
    if (e->gating == EL_GATING_SOFTMAX_CHOSEN)
        weights = ggml_soft_max(g->ctx, weights);
    if (e->gating == EL_GATING_SIGMOID_CHOSEN)
        weights = ggml_sigmoid(g->ctx, weights);
    if (e->normalise) {
        struct ggml_tensor *sum = ggml_clamp(g->ctx, ggml_sum_rows(g->ctx, weights), 0x1p-14f, INFINITY);
        weights = ggml_div(g->ctx, weights, sum); /* never by 0 */
    }
    return el_build_scale(g, weights, e->scale);
}

static struct ggml_tensor *shared(el_graph *g, const el_experts *w, struct ggml_tensor *x)
{
    struct ggml_tensor *y = el_build_ffn(g, &w->shared, x);

    if (w->shared_gate)
        y = ggml_mul(g->ctx, y, ggml_sigmoid(g->ctx, ggml_mul_mat(g->ctx, w->shared_gate, x)));
    return y;
}

el_choice el_build_choice(el_graph *g, const el_experts *w, struct ggml_tensor *logits)
{
    const el_expert_hparams *e = &g->model->hp.expert;
    struct ggml_tensor *probs = probabilities(g, logits); /* [n_expert, rows] */
    struct ggml_tensor *ranked = w->choice_bias ? ggml_add(g->ctx, probs, w->choice_bias) : probs;
    el_choice choice;

    if (e->n_groups > 1 && e->n_groups_used < e->n_groups)
        ranked = best_groups(g, ranked);
    choice.ids = ggml_argsort_top_k(g->ctx, ranked, e->n_used);
    choice.weights = ggml_reshape_3d(g->ctx, expert_weights(g, probs, choice.ids), 1, e->n_used, probs->ne[1]);
    return choice;
}

struct ggml_tensor *el_build_mixture(el_graph *g, const el_experts *w, struct ggml_tensor *x, el_choice choice)
{
    const int64_t rows = x->ne[1], n_used = choice.ids->ne[0];
    struct ggml_tensor *in = w->into.w ? el_build_linear(g, &w->into, x) : x, *up, *gate = NULL, *y, *sum = NULL;
    const int64_t width = in->ne[0];

    in = ggml_reshape_3d(g->ctx, in, width, 1, rows);
    if (g->model->hp.expert.weigh_inputs)
        in = ggml_mul(g->ctx, ggml_repeat_4d(g->ctx, in, width, n_used, rows, 1), choice.weights);
    up = el_build_linear_id(g, &w->up, in, choice.ids); /* [n_ff, n_used, rows] */
    if (w->gate.w)
        gate = el_build_linear_id(g, &w->gate, in, choice.ids);
    y = el_build_linear_id(g, &w->down, el_build_gated_within(g, gate, up, w->limit), choice.ids);
    if (!g->model->hp.expert.weigh_inputs)
        y = ggml_mul(g->ctx, y, choice.weights);
    for (int64_t i = 0; i < n_used; i++) {
        struct ggml_tensor *one = ggml_view_2d(g->ctx, y, width, rows, y->nb[2], (size_t)i * y->nb[1]);
        sum = sum ? ggml_add(g->ctx, sum, one) : one;
    }
    if (n_used == 1)
        sum = ggml_cont(g->ctx, sum);
    return w->back.w ? el_build_linear(g, &w->back, sum) : sum;
}

struct ggml_tensor *el_build_experts(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_experts *w = g->model->layers[layer].experts;
    const el_choice choice = el_build_choice(g, w, el_build_linear(g, &w->router, x));
    struct ggml_tensor *y = el_build_mixture(g, w, x, choice);

    return w->shared.up.w ? ggml_add(g->ctx, y, shared(g, w, x)) : y;
}
