/* gated.c - families whose attention has a gate on its result: Trinity (AFMoE), Laguna, Step 3.5, Spark 2.5,
 * Muse Glimmer.
 * Sources: Qiu et al. 2025 (gated attention); Arcee AI, Poolside, StepFun, iFlytek, Meta: the published model code. */
#include "arch.h"
#include "graph.h"
#include "layer_blocks.h"

EL_ARCH(afmoe) = {
    .name = "afmoe",
    .traits = {.rope = EL_ROPE_HALVES,
               .norm_place = EL_NORM_BOTH,
               .qk_norm = EL_QK_NORM,
               .attn_gate = EL_ATTN_GATE_SIGMOID,
               .scale_embeddings = true,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_KEYS,
               .gating = EL_GATING_SIGMOID,
               .shared_experts = true,
               .sliding_period = 4,
               .no_rope_period = 4},
};

/* Sliding layers rotate as before the context was stretched. */
static edgellm_status laguna_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].rope_unstretched = hp->layers[i].sliding;
    return EDGELLM_OK;
}

EL_ARCH(laguna) = {
    .name = "laguna",
    .traits = {.rope = EL_ROPE_HALVES,
               .qk_norm = EL_QK_NORM,
               .attn_gate = EL_ATTN_GATE_SOFTPLUS,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_KEYS,
               .gating = EL_GATING_SIGMOID,
               .shared_experts = true,
               .sliding_period = 4,
               .full_first = true},
    .hparams = laguna_hparams,
};

/* Full layers rotate half of each head; frequency factors are theirs alone. */
static edgellm_status step35_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    el_experts_where_routed(hp, file);
    for (int32_t i = 0; i < hp->n_layer; i++) {
        hp->layers[i].rope_unstretched = hp->layers[i].sliding;
        if (!hp->layers[i].sliding)
            hp->layers[i].n_rot /= 2;
    }
    EL_TRY(el_key_layers_f32(hp, file, arch, "swiglu_clamp_exp", 1e-3f, 1e6f,
                             offsetof(el_layer_hparams, swiglu_limit_experts)));
    EL_TRY(
        el_key_layers_f32(hp, file, arch, "swiglu_clamp_shexp", 1e-3f, 1e6f, offsetof(el_layer_hparams, swiglu_limit)));
done:
    return status;
}

EL_ARCH(step35) = {
    .name = "step35",
    .traits = {.rope = EL_ROPE_HALVES,
               .qk_norm = EL_QK_NORM_OPTIONAL,
               .attn_gate = EL_ATTN_GATE_SIGMOID,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_GATING | EL_EXPERT_SCALE | EL_EXPERT_NORMALISE,
               .gating = EL_GATING_SIGMOID,
               .shared_experts = true,
               .sliding_period = 4,
               .rope_base_sliding = 10000,
               .sliding_unscaled = true},
    .hparams = step35_hparams,
};

EL_ARCH(spark2_5) = {
    .name = "spark2_5",
    .traits = {.rope = EL_ROPE_HALVES,
               .activation = EL_ACT_GELU,
               .attn_gate = EL_ATTN_GATE_SIGMOID,
               .sliding_period = 4},
};

/* Sliding layers alone rotate. */
static edgellm_status muse_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    for (int32_t i = 0; i < hp->n_layer; i++)
        if (!hp->layers[i].sliding)
            hp->layers[i].n_rot = 0;
    hp->logit_softcap = 30;
    EL_TRY(el_key_f32(file, arch, "logit_scale", 1e-6f, 1e6f, &hp->logit_scale));
    EL_TRY(el_key_f32(file, arch, "final_logit_softcapping", 1e-3f, 1e6f, &hp->logit_softcap));
done:
    return status;
}

EL_ARCH(muse_glimmer) = {
    .name = "muse-glimmer",
    .traits = {.norm_place = EL_NORM_BOTH,
               .post_norm_eps = 1e-8f,
               .embd_norm_plain = true,
               .qk_norm = EL_QK_NORM,
               .attn_gate = EL_ATTN_GATE_SIGMOID,
               .sliding_period = 4,
               .sliding_unscaled = true},
    .hparams = muse_hparams,
};
