/* gemma.c - Gemma 1 to 3 (text). The weights of their norms are stored with the 1 already added.
 * Sources: Gemma Team 2024 (Gemma; Gemma 2, section 2), 2025 (Gemma 3, section 2); the published model code. */
#include <math.h>

#include "arch.h"

EL_ARCH(gemma) = {
    .name = "gemma",
    .traits = {.rope = EL_ROPE_HALVES, .activation = EL_ACT_GELU, .scale_embeddings = true},
};

/* The 27B models alone divide by the width a head would have if the embedding were split evenly. */
static void scale_of_27b(el_hparams *hp, int32_t layers_of_27b)
{
    if (hp->n_layer == layers_of_27b && hp->layers[0].n_head > 0)
        hp->attn_scale = 1.0f / sqrtf((float)(hp->n_embd / hp->layers[0].n_head));
}

static edgellm_status gemma2_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    hp->attn_softcap = 50;
    hp->logit_softcap = 30;
    EL_TRY(el_key_f32(file, arch, "attn_logit_softcapping", 1e-3f, 1e6f, &hp->attn_softcap));
    EL_TRY(el_key_f32(file, arch, "final_logit_softcapping", 1e-3f, 1e6f, &hp->logit_softcap));
    scale_of_27b(hp, 46);
done:
    return status;
}

EL_ARCH(gemma2) = {
    .name = "gemma2",
    .traits = {.rope = EL_ROPE_HALVES,
               .activation = EL_ACT_GELU,
               .norm_place = EL_NORM_BOTH,
               .scale_embeddings = true,
               .sliding_period = 2,
               .window = 4096},
    .hparams = gemma2_hparams,
};

/* Sliding layers keep the rope they were first trained with, by their traits. */
static edgellm_status gemma3_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    scale_of_27b(hp, 62);
    return el_key_f32(file, arch, "final_logit_softcapping", 1e-3f, 1e6f, &hp->logit_softcap);
}

EL_ARCH(gemma3) = {
    .name = "gemma3",
    .traits = {.rope = EL_ROPE_HALVES,
               .activation = EL_ACT_GELU,
               .norm_place = EL_NORM_BOTH,
               .qk_norm = EL_QK_NORM,
               .scale_embeddings = true,
               .sliding_period = 6,
               .rope_base_sliding = 10000,
               .sliding_unscaled = true},
    .hparams = gemma3_hparams,
};
