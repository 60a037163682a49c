/* latent_dense.c - dense models with latent attention: MiniCPM3, PLM.
 * Sources: Hu et al. 2024 (MiniCPM) and Deng et al. 2025 (PLM), the published model code. */
#include <math.h>

#include "arch.h"
#include "layer_blocks.h"

/* MiniCPM's scales, which files of this family do not hold. */
static edgellm_status minicpm3_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    hp->embedding_scale = 12;
    hp->residual_scale = 1.4f / sqrtf((float)hp->n_layer);
    hp->logit_scale = 256.0f / (float)hp->n_embd;
    return el_mla_keys(hp, file, arch);
}

EL_ARCH(minicpm3) = {
    .name = "minicpm3",
    .traits = {.rope = EL_ROPE_HALVES},
    .mixer = &el_mixer_mla,
    .hparams = minicpm3_hparams,
};

EL_ARCH(plm) = {
    .name = "plm",
    .traits = {.activation = EL_ACT_RELU_SQUARED, .ungated = true},
    .mixer = &el_mixer_mla,
    .hparams = el_mla_keys,
};
