/* talkie.c - Talkie: norms without weights, a scale of each head's queries, and in every layer the embeddings again.
 * Source: the published model code. */
#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

static edgellm_status talkie_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].qk_norm_plain = true;
    return el_key_f32(file, arch, "logit_scale", 1e-6f, 1e6f, &hp->logit_scale);
}

static void talkie_load(el_loader *l)
{
    el_model *m = l->model;

    for (l->layer = 0; l->layer < m->hp.n_layer; l->layer++) {
        el_attention *attention = m->layers[l->layer].mixer;
        m->layers[l->layer].own = el_load_vector(l, "layer_output_scale.weight", EL_REQUIRED, 1);
        if (attention)
            attention->q_norm.w =
                el_load(l, "attn_q_norm.weight", EL_REQUIRED, EL_FLOATS, 1, m->hp.layers[l->layer].n_head, 1);
    }
}

static void talkie_build(el_graph *g)
{
    const el_model *m = g->model;
    struct ggml_tensor *x = el_build_embeddings(g), *first = x;

    for (int32_t layer = 0; layer < m->hp.n_layer && x; layer++) {
        x = el_build_layer(g, layer, x);
        if (!x)
            return;
        x = ggml_add(g->ctx, x, ggml_mul(g->ctx, el_keep_outputs(g, layer, first), m->layers[layer].own));
        el_build_now(g, x);
    }
    el_build_head(g, x);
}

EL_ARCH(talkie) = {
    .name = "talkie",
    .traits = {.rope = EL_ROPE_HALVES, .no_norms = true, .embd_norm_plain = true, .qk_norm_after_rope = true},
    .hparams = talkie_hparams,
    .load = talkie_load,
    .build = talkie_build,
};
