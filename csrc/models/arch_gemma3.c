/* arch_gemma3.c - Gemma 3 (text).
 * Source: Gemma Team 2025, "Gemma 3 Technical Report", section 2; the published model code. The weights of its norms
 * are stored with the 1 already added. */
#include <math.h>

#include "arch.h"
#include "graph.h"

enum { LAYERS_OF_27B = 62 };

static edgellm_status gemma3_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    /* The 27B model alone divides by the width a head would have if the embedding were split evenly. */
    if (hp->n_layer == LAYERS_OF_27B)
        hp->attn_scale = 1.0f / sqrtf((float)(hp->n_embd / hp->layers[0].n_head));
    return el_hparams_f32(file, arch, "final_logit_softcapping", 1e-3f, 1e6f, &hp->logit_softcap);
}

const el_arch el_arch_gemma3 = {
    .name = "gemma3",
    .traits = {.rope = EL_ROPE_HALVES,
               .activation = EL_ACT_GELU,
               .scale_embeddings = true,
               .qk_norm = true,
               .post_norms = true,
               .sliding_period = 6},
    .hparams = gemma3_hparams,
    .build = el_build_decoder,
};
