/* olmo.c - OLMo 2 and 3, OLMoE, OpenELM. Sources: OLMo Team 2024; Muennighoff et al. 2024; Mehta et al. 2024. */
#include "arch.h"

/* OLMo 3: sliding layers rotate as before the context was stretched. */
static edgellm_status olmo2_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].rope_unstretched = hp->layers[i].sliding;
    return EDGELLM_OK;
}

EL_ARCH(olmo2) = {
    .name = "olmo2",
    .traits = {.rope = EL_ROPE_HALVES, .norm_place = EL_NORM_AFTER, .qk_norm = EL_QK_NORM, .sliding_period = 4},
    .hparams = olmo2_hparams,
};

EL_ARCH(olmoe) = {
    .name = "olmoe",
    .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM, .may_have_experts = true},
};

EL_ARCH(openelm) = {.name = "openelm", .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM}};
