/* stablelm.c - StableLM 2: LayerNorm, rope on a part of each head; the 12B model is parallel and norms its heads.
 * Source: Bellagente et al. 2024, the published model code. */
#include "arch.h"

static edgellm_status stablelm_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)arch;
    hp->parallel = el_gguf_find_tensor(file, "blk.0.ffn_norm.weight") == NULL;
    return EDGELLM_OK;
}

EL_ARCH(stablelm) = {
    .name = "stablelm",
    .traits = {.rope = EL_ROPE_HALVES, .layer_norm = true, .qk_norm = EL_QK_NORM_OPTIONAL},
    .hparams = stablelm_hparams,
};
