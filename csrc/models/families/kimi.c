/* kimi.c - Kimi Linear: three layers of four are delta attention, the fourth is latent attention without positions; and
 * Ling 3, whose latent attention rotates and is gated, and whose decays have a lower bound.
 * Sources: Kimi Team 2025 (Kimi Linear); Ling Team 2026; the published model code. */
#include <stddef.h>

#include "arch.h"
#include "layer_blocks.h"

static edgellm_status kimi_linear_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_mla_keys(hp, file, arch));
    EL_TRY(el_kda_keys(hp, file, arch));
done:
    return status;
}

EL_ARCH(kimi_linear) = {
    .name = "kimi-linear",
    .traits = {.rope = EL_ROPE_OFF,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_GATING | EL_EXPERT_SCALE | EL_EXPERT_LEADING,
               .experts_normalise = true,
               .shared_experts = true},
    .mixer = &el_mixer_mla,
    .hparams = kimi_linear_hparams,
};

static edgellm_status ling3_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    bool bounded = true;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_bool(file, arch, "kda.safe_gate", &bounded));
    EL_TRY(el_key_f32(file, arch, "kda.gate_lower_bound", -1e3f, -1e-6f, &hp->kda_bound));
    if (!bounded || hp->kda_bound == 0)
        return el_fail(EDGELLM_EUNSUPPORTED, "%s.kda.gate_lower_bound is missing or unused; the decays need it",
                       arch->name);
    EL_TRY(el_mla_keys(hp, file, arch));
    EL_TRY(el_kda_keys(hp, file, arch));
    EL_TRY(el_key_sections(hp, file, arch));
    EL_TRY(el_key_layers_f32(hp, file, arch, "swiglu_clamp_exp", 1e-5f, 1e6f,
                             offsetof(el_layer_hparams, swiglu_limit_experts)));
    EL_TRY(
        el_key_layers_f32(hp, file, arch, "swiglu_clamp_shexp", 1e-5f, 1e6f, offsetof(el_layer_hparams, swiglu_limit)));
done:
    return status;
}

EL_ARCH(bailingmoe3) = {
    .name = "bailingmoe3",
    .traits = {.attn_gate = EL_ATTN_GATE_SIGMOID,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_GATING | EL_EXPERT_NORMALISE | EL_EXPERT_SCALE | EL_EXPERT_LEADING,
               .shared_experts = true},
    .mixer = &el_mixer_mla,
    .hparams = ling3_hparams,
};
