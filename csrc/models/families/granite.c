/* granite.c - IBM's Granite: LLaMA with four scales; with experts; with Mamba 2 in most layers.
 * Sources: Granite Team, IBM 2024 (Granite 3.0), 2025 (Granite 4.0); the published model code. */
#include "arch.h"
#include "layer_blocks.h"

/* A factor of the logits that divides. */
static edgellm_status granite_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    bool rotates = true;
    edgellm_status status = EDGELLM_OK;

    hp->logit_scale = 1.0f / hp->logit_scale;
    EL_TRY(el_key_f32(file, arch, "attention.scale", 1e-6f, 1e6f, &hp->attn_scale));
    EL_TRY(el_key_bool(file, arch, "rope.scaling.finetuned", &rotates));
    for (int32_t i = 0; !rotates && i < hp->n_layer; i++)
        hp->layers[i].n_rot = 0;
done:
    return status;
}

EL_ARCH(granite) = {
    .name = "granite",
    .traits = {.scale_keys = true, .may_have_experts = true, .experts_normalise = true, .shared_experts = true},
    .hparams = granite_hparams,
};

EL_ARCH(granitemoe) = {
    .name = "granitemoe",
    .traits = {.scale_keys = true, .may_have_experts = true, .experts_normalise = true, .shared_experts = true},
    .hparams = granite_hparams,
};

static edgellm_status hybrid_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(granite_hparams(hp, file, arch));
    EL_TRY(el_key_ssm(hp, file, arch));
    EL_TRY(el_key_mixers(hp, file, arch, &el_mixer_mamba2));
done:
    return status;
}

EL_ARCH(granitehybrid) = {
    .name = "granitehybrid",
    .traits = {.scale_keys = true, .may_have_experts = true, .experts_normalise = true, .shared_experts = true},
    .hparams = hybrid_hparams,
};
