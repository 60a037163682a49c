/* jais.c - Jais and Jais 2. Sources: Sengupta et al. 2023 (Jais), section 3; the published model code of Jais 2. */
#include "arch.h"

/* Scores are divided by the head's width, not by its root. */
static edgellm_status jais_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    hp->attn_scale *= hp->attn_scale;
    return EDGELLM_OK;
}

EL_ARCH(jais) = {
    .name = "jais",
    .traits = {.rope = EL_ROPE_OFF, .layer_norm = true, .alibi = true},
    .hparams = jais_hparams,
};

EL_ARCH(jais2) = {
    .name = "jais2",
    .traits = {.rope = EL_ROPE_HALVES, .activation = EL_ACT_RELU_SQUARED, .ungated = true, .layer_norm = true},
};
