/* kimi.c - Kimi Linear: three layers of four are delta attention, the fourth is latent attention without positions.
 * Source: Kimi Team 2025 (Kimi Linear), the published model code. */
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
