/* smallthinker.c - SmallThinker: the router reads the layer's input, so that experts can be fetched during attention.
 * Source: Song et al. 2025 (SmallThinker), section 2; the published model code. */
#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

enum { FULL_PERIOD = 4, WINDOW = 4096 };

static edgellm_status smallthinker_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    if (hp->window > 0) {
        hp->window = WINDOW;
        for (int32_t i = 0; hp->n_layer != FULL_PERIOD && i < hp->n_layer; i += FULL_PERIOD)
            hp->layers[i].n_rot = 0; /* but for models of just one period, in the runtimes that files are made for */
    }
    return el_key_require(hp->expert.n, arch, "expert_count");
}

static struct ggml_tensor *smallthinker_layer(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];
    struct ggml_tensor *y = el_mixer_attention.build(g, layer, el_build_norm(g, x, &w->attn_norm));
    el_choice choice;

    if (!y)
        return NULL;
    x = el_keep_outputs(g, layer, x);
    choice = el_build_choice(g, w->experts, el_build_linear(g, &w->experts->router, x));
    x = ggml_add(g->ctx, el_keep_outputs(g, layer, y), x);
    return ggml_add(g->ctx, el_build_mixture(g, w->experts, el_build_norm(g, x, &w->ffn_norm), choice), x);
}

EL_ARCH(smallthinker) = {
    .name = "smallthinker",
    .traits = {.rope = EL_ROPE_HALVES,
               .activation = EL_ACT_RELU,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_GATING,
               .experts_normalise = true,
               .sliding_period = FULL_PERIOD,
               .full_first = true},
    .hparams = smallthinker_hparams,
    .layer = smallthinker_layer,
};
