/* gemma4.c - Gemma 4 (text): an embedding of each token for each layer, the last layers reading earlier ones' keys and
 * values, heads of two widths, in one model experts beside the dense block.
 * Source: Gemma Team 2026, the published model code. */
#include <math.h>

#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"
#include "per_layer.h"

typedef struct gemma4_own { /* of a layer */
    el_per_layer_gate gate;
    struct ggml_tensor *out_scale; /* [1] or NULL */
    el_norm dense_post, experts_pre, experts_post;
} gemma4_own;

static edgellm_status gemma4_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    int32_t n_shared = 0;
    edgellm_status status = EDGELLM_OK;

    hp->attn_scale = 1;
    hp->logit_softcap = 30;
    EL_TRY(el_key_f32(file, arch, "final_logit_softcapping", 1e-3f, 1e6f, &hp->logit_softcap));
    EL_TRY(el_key_i32(file, arch, "attention.shared_kv_layers", 1, EL_MAX_LAYERS, &n_shared));
    for (int32_t i = 0; i < hp->n_layer; i++) {
        EL_TRY(el_key_require(hp->layers[i].n_ff, arch, "feed_forward_length"));
        hp->layers[i].rope_unstretched = hp->layers[i].sliding;
    }
    el_experts_where_routed(hp, file);
    EL_TRY(el_per_layer_share(hp, arch, hp->n_layer - n_shared));
done:
    return status;
}

static void gemma4_load(el_loader *l)
{
    el_model *m = l->model;
    el_per_layer *p = el_load_memory(l, sizeof *p);
    int32_t width = 0;

    if (!p)
        return;
    if (l->status == EDGELLM_OK)
        l->status = el_key_i32(m->file, m->arch, "embedding_length_per_layer_input", 1, EL_MAX_WIDTH, &width);
    if (width > 0)
        *p = el_per_layer_load(l, width);
    m->own = p;
    for (l->layer = 0; l->layer < m->hp.n_layer; l->layer++) {
        el_layer *layer = &m->layers[l->layer];
        gemma4_own *w = el_load_memory(l, sizeof *w);
        if (!w)
            return;
        layer->own = w;
        el_per_layer_drop_biases(layer->mixer, true);
        w->out_scale = el_load_vector(l, "layer_output_scale.weight", EL_OPTIONAL, 1);
        if (width > 0)
            w->gate = el_per_layer_load_gate(l, width);
        if (!layer->experts)
            continue;
        layer->ffn = el_load_ffn(l, "", m->hp.layers[l->layer].n_ff);
        w->dense_post = el_load_norm(l, "post_ffw_norm_1", EL_REQUIRED, m->hp.n_embd);
        w->experts_pre = el_load_norm(l, "pre_ffw_norm_2", EL_REQUIRED, m->hp.n_embd);
        w->experts_post = el_load_norm(l, "post_ffw_norm_2", EL_REQUIRED, m->hp.n_embd);
    }
}

/* The dense block and the mixture side by side, each with norms of its own; the router has one without weights. */
static struct ggml_tensor *side_by_side(el_graph *g, const el_layer *w, struct ggml_tensor *x)
{
    const gemma4_own *own = w->own;
    struct ggml_tensor *dense = el_build_ffn(g, &w->ffn, el_build_norm(g, x, &w->ffn_norm)), *logits, *y;

    logits = ggml_scale(g->ctx, el_build_rms_norm(g, x, NULL), 1.0f / sqrtf((float)x->ne[0]));
    logits = el_build_linear(g, &w->experts->router, ggml_mul(g->ctx, logits, w->experts->router_scale));
    y = el_build_mixture(g, w->experts, el_build_norm(g, x, &own->experts_pre), el_build_choice(g, w->experts, logits));
    return ggml_add(g->ctx, el_build_norm(g, dense, &own->dense_post), el_build_norm(g, y, &own->experts_post));
}

static struct ggml_tensor *gemma4_layer(el_graph *g, int32_t layer, struct ggml_tensor *x, struct ggml_tensor *inputs)
{
    const el_layer *w = &g->model->layers[layer];
    const gemma4_own *own = w->own;
    struct ggml_tensor *y = el_mixer_attention.build(g, layer, el_build_norm(g, x, &w->attn_norm));

    if (!y)
        return NULL;
    x = ggml_add(g->ctx, el_build_norm(g, el_keep_outputs(g, layer, y), &w->attn_post_norm),
                 el_keep_outputs(g, layer, x));
    y = w->experts ? side_by_side(g, w, x) : el_build_ffn(g, &w->ffn, el_build_norm(g, x, &w->ffn_norm));
    x = ggml_add(g->ctx, el_build_norm(g, y, &w->ffn_post_norm), x);
    if (inputs)
        x = ggml_add(
            g->ctx, x,
            el_build_per_layer_gate(g, &own->gate, x, el_keep_outputs(g, layer, el_per_layer_of(g, inputs, layer))));
    return own->out_scale ? ggml_mul(g->ctx, x, own->out_scale) : x;
}

static void gemma4_build(el_graph *g)
{
    const el_per_layer *p = g->model->own;
    struct ggml_tensor *x = el_build_embeddings(g), *inputs = p->width ? el_build_per_layer(g, p, x) : NULL;

    for (int32_t layer = 0; layer < g->model->hp.n_layer && x; layer++) {
        x = gemma4_layer(g, layer, x, inputs);
        if (x)
            el_build_now(g, x);
    }
    if (x)
        el_build_head(g, x);
}

EL_ARCH(gemma4) = {
    .name = "gemma4",
    .traits = {.rope = EL_ROPE_HALVES,
               .activation = EL_ACT_GELU,
               .norm_place = EL_NORM_BOTH,
               .qk_norm = EL_QK_NORM,
               .v_norm = true,
               .scale_embeddings = true,
               .may_have_experts = true,
               .experts_normalise = true,
               .router_scale = true,
               .sliding_period = 6,
               .rope_base_sliding = 10000},
    .hparams = gemma4_hparams,
    .load = gemma4_load,
    .build = gemma4_build,
};
