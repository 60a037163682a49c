/* cohere.c - Command R and its successors: LayerNorm without bias, attention and feed-forward in parallel.
 * Source: the published model code of Cohere and Cohere 2. */
#include "arch.h"

EL_ARCH(command_r) = {
    .name = "command-r",
    .traits = {.layer_norm = true, .parallel = true, .qk_norm = EL_QK_NORM_OPTIONAL, .logit_scale_key = true},
};

/* Full layers do not rotate. */
static edgellm_status cohere2_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    for (int32_t i = 0; i < hp->n_layer; i++)
        if (hp->window > 0 && !hp->layers[i].sliding)
            hp->layers[i].n_rot = 0;
    return EDGELLM_OK;
}

EL_ARCH(cohere2) = {
    .name = "cohere2",
    .traits = {.layer_norm = true, .parallel = true, .logit_scale_key = true, .sliding_period = 4},
    .hparams = cohere2_hparams,
};
