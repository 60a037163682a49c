/* grok.c - Grok 1 and 2: capped scores, a dense block beside the mixture. Source: xAI 2024, the published model code.
 */
#include <math.h>

#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

static edgellm_status grok_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    hp->embedding_scale = 78.38367176906169f;
    hp->logit_scale = 0.5773502691896257f;
    hp->attn_scale = 0.08838834764831845f;
    hp->attn_softcap = 30;
    EL_TRY(el_key_f32(file, arch, "embedding_scale", 1e-6f, 1e6f, &hp->embedding_scale));
    EL_TRY(el_key_f32(file, arch, "logit_scale", 1e-6f, 1e6f, &hp->logit_scale));
    EL_TRY(el_key_f32(file, arch, "attention.output_scale", 1e-6f, 1e6f, &hp->attn_scale));
    EL_TRY(el_key_f32(file, arch, "attn_logit_softcapping", 1e-3f, 1e6f, &hp->attn_softcap));
    EL_TRY(el_key_f32(file, arch, "final_logit_softcapping", 1e-3f, 1e6f, &hp->logit_softcap));
    hp->yarn_beta_fast = 8;
    EL_TRY(el_key_f32(file, arch, "rope.scaling.yarn_ext_factor", 1e-6f, 1e6f, &hp->yarn_ext_factor));
    EL_TRY(el_key_f32(file, arch, "rope.scaling.yarn_beta_fast", 1e-6f, 1e6f, &hp->yarn_beta_fast));
    EL_TRY(el_key_f32(file, arch, "rope.scaling.yarn_beta_slow", 1e-6f, 1e6f, &hp->yarn_beta_slow));
done:
    return status;
}

/* Grok 2 has the dense block. */
static void grok_load(el_loader *l)
{
    el_model *m = l->model;

    for (l->layer = 0; l->layer < m->hp.n_layer; l->layer++)
        if (el_has(l, "ffn_up.weight"))
            m->layers[l->layer].ffn = el_load_ffn(l, "", m->hp.layers[l->layer].n_ff);
}

static struct ggml_tensor *grok_feed_forward(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];
    struct ggml_tensor *y = w->experts ? el_build_experts(g, layer, x) : NULL;

    if (!w->ffn.up.w)
        return y;
    x = el_build_ffn(g, &w->ffn, x);
    return y ? ggml_scale(g->ctx, ggml_add(g->ctx, x, y), sqrtf(0.5f)) : x;
}

EL_ARCH(grok) = {
    .name = "grok",
    .traits = {.rope = EL_ROPE_HALVES,
               .activation = EL_ACT_GELU,
               .norm_place = EL_NORM_BOTH,
               .attn_post_norm = "attn_output_norm",
               .ffn_post_norm = "layer_output_norm",
               .may_have_experts = true,
               .experts_normalise = true},
    .hparams = grok_hparams,
    .load = grok_load,
    .feed_forward = grok_feed_forward,
};
