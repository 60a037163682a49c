/* exaone.c - LG's EXAONE 3 and 4, and K-EXAONE with experts.
 * Sources: LG AI Research 2024 (EXAONE 3.0), 2025 (EXAONE 4.0), the published model code. */
#include "arch.h"

EL_ARCH(exaone) = {.name = "exaone", .traits = {.rope = EL_ROPE_HALVES}};

/* The 32B model alone slides, and its full layers do not rotate. */
static edgellm_status exaone4_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    enum { LAYERS_OF_32B = 64 };

    (void)file;
    (void)arch;
    if (hp->n_layer != LAYERS_OF_32B)
        hp->window = 0;
    for (int32_t i = 0; i < hp->n_layer; i++) {
        if (hp->window == 0)
            hp->layers[i].sliding = false;
        else if (!hp->layers[i].sliding)
            hp->layers[i].n_rot = 0;
    }
    return EDGELLM_OK;
}

EL_ARCH(exaone4) = {
    .name = "exaone4",
    .traits = {.rope = EL_ROPE_HALVES,
               .norm_place = EL_NORM_AFTER,
               .qk_norm = EL_QK_NORM,
               .sliding_period = 4,
               .window = 4096},
    .hparams = exaone4_hparams,
};

/* Sliding layers alone rotate, with the base of the others. */
static edgellm_status exaone_moe_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    hp->rope_base_sliding = hp->rope_base;
    for (int32_t i = 0; i < hp->n_layer; i++)
        if (!hp->layers[i].sliding)
            hp->layers[i].n_rot = 0;
    return EDGELLM_OK;
}

EL_ARCH(exaone_moe) = {
    .name = "exaone-moe",
    .traits = {.rope = EL_ROPE_HALVES,
               .qk_norm = EL_QK_NORM,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_KEYS,
               .shared_experts = true,
               .sliding_period = 4,
               .window = 128},
    .hparams = exaone_moe_hparams,
};
