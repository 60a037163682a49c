/* bailing.c - Ling and Ling 2. Source: Ling Team 2025 (Ling; Ling 2.0), the published model code. */
#include <math.h>

#include "arch.h"

static edgellm_status bailing_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    (void)file;
    EL_TRY(el_key_require(hp->layers[0].n_rot, arch, "rope.dimension_count"));
    hp->attn_scale = 1.0f / sqrtf((float)hp->layers[0].n_rot);
done:
    return status;
}

EL_ARCH(bailingmoe) = {
    .name = "bailingmoe",
    .traits = {.may_have_experts = true, .expert_keys = EL_EXPERT_SCALE | EL_EXPERT_NORMALISE, .shared_experts = true},
    .hparams = bailing_hparams,
};

EL_ARCH(bailingmoe2) = {
    .name = "bailingmoe2",
    .traits = {.rope = EL_ROPE_HALVES,
               .qk_norm = EL_QK_NORM,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_KEYS,
               .shared_experts = true},
};
