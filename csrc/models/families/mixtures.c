/* mixtures.c - families that are a usual decoder with experts but for a trait or two: dots.llm1, MiniMax M2, MiMo V2,
 * Mellum 2, Maple.
 * Sources: rednote-hilab, MiniMax, Xiaomi, JetBrains 2025 and later: the published model code of each. */
#include "arch.h"
#include "layer_blocks.h"

EL_ARCH(dots1) = {
    .name = "dots1",
    .traits = {.rope = EL_ROPE_HALVES,
               .qk_norm = EL_QK_NORM,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_KEYS,
               .shared_experts = true},
};

EL_ARCH(minimax_m2) = {
    .name = "minimax-m2", /* norms all heads together */
    .traits = {.rope = EL_ROPE_HALVES,
               .qk_norm = EL_QK_NORM,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_GATING,
               .experts_normalise = true,
               .gating = EL_GATING_SIGMOID},
};

static edgellm_status mimo2_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    el_experts_where_routed(hp, file);
    return el_key_f32(file, arch, "attention.value_scale", 1e-6f, 1e6f, &hp->attn_value_scale);
}

/* The projections have no biases, whatever a file holds. */
static void mimo2_load(el_loader *l)
{
    for (int32_t i = 0; i < l->model->hp.n_layer; i++) {
        el_attention *w = l->model->layers[i].mixer;
        w->q.b = w->k.b = w->v.b = w->out.b = NULL;
    }
}

EL_ARCH(mimo2) = {
    .name = "mimo2",
    .traits = {.rope = EL_ROPE_HALVES,
               .some_sinks = true,
               .may_have_experts = true,
               .experts_normalise = true,
               .gating = EL_GATING_SIGMOID,
               .sliding_period = 6,
               .rope_base_sliding = 10000,
               .sliding_unscaled = true},
    .hparams = mimo2_hparams,
    .load = mimo2_load,
};

/* Sliding layers rotate as before the context was stretched. */
static edgellm_status mellum_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    hp->rope_base_sliding = hp->rope_base;
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].rope_unstretched = hp->layers[i].sliding;
    return EDGELLM_OK;
}

EL_ARCH(mellum) = {
    .name = "mellum",
    .traits = {.rope = EL_ROPE_HALVES,
               .qk_norm = EL_QK_NORM,
               .may_have_experts = true,
               .experts_normalise = true,
               .sliding_period = 4},
    .hparams = mellum_hparams,
};

/* Sliding layers alone rotate. */
static edgellm_status maple_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    for (int32_t i = 0; i < hp->n_layer; i++)
        if (!hp->layers[i].sliding)
            hp->layers[i].n_rot = 0;
    return el_key_layers_f32(hp, file, arch, "swiglu_clamp_exp", 1e-3f, 1e6f,
                             offsetof(el_layer_hparams, swiglu_limit_experts));
}

EL_ARCH(maple) = {
    .name = "maple",
    .traits = {.rope = EL_ROPE_HALVES,
               .limit_before = true,
               .qk_norm = EL_QK_NORM,
               .may_have_experts = true,
               .experts_normalise = true,
               .sliding_period = 4},
    .hparams = maple_hparams,
};
