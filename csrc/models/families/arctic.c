/* arctic.c - Snowflake Arctic: a dense block after attention, and a mixture beside both that reads the layer's input.
 * Source: Snowflake 2024, the published model code. */
#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

static void arctic_load(el_loader *l)
{
    el_model *m = l->model;

    for (l->layer = 0; l->layer < m->hp.n_layer; l->layer++) {
        el_norm *norm = el_load_memory(l, sizeof *norm);
        if (!norm)
            return;
        *norm = el_load_norm(l, "ffn_norm_exps", EL_REQUIRED, m->hp.n_embd);
        m->layers[l->layer].own = norm;
        m->layers[l->layer].ffn = el_load_ffn(l, "", m->hp.n_embd); /* as wide as the embedding */
    }
}

static struct ggml_tensor *arctic_layer(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];
    struct ggml_tensor *y = el_mixer_attention.build(g, layer, el_build_norm(g, x, &w->attn_norm));

    if (!y)
        return NULL;
    x = el_keep_outputs(g, layer, x);
    y = ggml_add(g->ctx, el_keep_outputs(g, layer, y), x);
    y = ggml_add(g->ctx, el_build_ffn(g, &w->ffn, el_build_norm(g, y, &w->ffn_norm)), y);
    return w->experts ? ggml_add(g->ctx, el_build_experts(g, layer, el_build_norm(g, x, w->own)), y) : y;
}

EL_ARCH(arctic) = {
    .name = "arctic",
    .traits = {.may_have_experts = true, .experts_normalise = true},
    .load = arctic_load,
    .layer = arctic_layer,
};
