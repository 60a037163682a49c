/* plamo.c - PLaMo 1 and 3 (2 is among the hybrids). Source: Preferred Networks 2023, 2025, the published model code. */
#include "arch.h"

/* Whole heads rotate, whatever a file says. */
static edgellm_status plamo_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].n_rot = hp->layers[i].head_k;
    return EDGELLM_OK;
}

EL_ARCH(plamo) = {
    .name = "plamo",
    .traits = {.rope = EL_ROPE_HALVES, .parallel = true},
    .hparams = plamo_hparams,
};

EL_ARCH(plamo3) = {
    .name = "plamo3",
    .traits = {.rope = EL_ROPE_HALVES,
               .fused_gate = true,
               .norm_place = EL_NORM_BOTH,
               .qk_norm = EL_QK_NORM,
               .sliding_period = 8,
               .rope_base_sliding = 10000,
               .sliding_unscaled = true},
};
