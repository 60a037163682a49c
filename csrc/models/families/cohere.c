/* cohere.c - Command R and its successors: LayerNorm without bias, attention and feed-forward in parallel.
 * Source: the published model code of Cohere, Cohere 2 and Cohere 2 MoE. */
#include "arch.h"
#include "graph.h"
#include "layer_blocks.h"

static edgellm_status scale_of_logits(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    return el_key_f32(file, arch, "logit_scale", 1e-6f, 1e6f, &hp->logit_scale);
}

EL_ARCH(command_r) = {
    .name = "command-r",
    .traits = {.layer_norm = true, .parallel = true, .qk_norm = EL_QK_NORM_OPTIONAL},
    .hparams = scale_of_logits,
};

/* Full layers do not rotate, but for dense ones before the mixtures. */
static edgellm_status cohere2_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    for (int32_t i = 0; i < hp->n_layer; i++)
        if (hp->window > 0 && !hp->layers[i].sliding && i >= hp->expert.n_leading_dense)
            hp->layers[i].n_rot = 0;
    return scale_of_logits(hp, file, arch);
}

EL_ARCH(cohere2) = {
    .name = "cohere2",
    .traits = {.layer_norm = true, .parallel = true, .sliding_period = 4},
    .hparams = cohere2_hparams,
};

/* RMSNorm in files that hold its epsilon. All layers rotate with the same base. */
static edgellm_status cohere2moe_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    float eps = 0;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(cohere2_hparams(hp, file, arch));
    EL_TRY(el_key_f32(file, arch, "attention.layer_norm_rms_epsilon", 1e-12f, 1.0f, &eps));
    if (eps != 0) {
        hp->layer_norm = false;
        hp->norm_eps = eps;
    }
    hp->rope_base_sliding = hp->rope_base;
done:
    return status;
}

/* Chosen and shared experts count half each. */
static struct ggml_tensor *cohere2moe_feed_forward(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];

    if (!w->experts)
        return el_build_ffn(g, &w->ffn, x);
    return el_build_scale(g, el_build_experts(g, layer, x), w->experts->shared.up.w ? 0.5f : 1.0f);
}

EL_ARCH(cohere2moe) = {
    .name = "cohere2moe",
    .traits = {.layer_norm = true,
               .parallel = true,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_KEYS,
               .gating = EL_GATING_SIGMOID,
               .shared_experts = true,
               .sliding_period = 4,
               .full_first = true},
    .hparams = cohere2moe_hparams,
    .feed_forward = cohere2moe_feed_forward,
};
