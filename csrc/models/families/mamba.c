/* mamba.c - models of state-space layers alone.
 * Sources: Gu and Dao 2023 (Mamba); Dao and Gu 2024 (Mamba 2); Zuo et al. 2024 (Falcon Mamba), which is "mamba" too. */
#include "arch.h"
#include "layer_blocks.h"

static edgellm_status mamba_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].n_ff = 0;
    return el_key_ssm(hp, file, arch);
}

EL_ARCH(mamba) = {
    .name = "mamba",
    .traits = {.rope = EL_ROPE_OFF},
    .mixer = &el_mixer_mamba,
    .hparams = mamba_hparams,
};

EL_ARCH(mamba2) = {
    .name = "mamba2",
    .traits = {.rope = EL_ROPE_OFF},
    .mixer = &el_mixer_mamba2,
    .hparams = mamba_hparams,
};
