/* granite.c - IBM's Granite: LLaMA with four scales; with experts; with Mamba 2 in most layers; with
 * sliding windows and sinks.
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

/* Which layers rotate is one flag a layer. */
static edgellm_status swa_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    const el_gguf_kv *pattern = el_gguf_find(file, "granite_swa.attention.rope_pattern");
    edgellm_status status = EDGELLM_OK;

    hp->logit_scale = 1.0f / hp->logit_scale;
    hp->rope_base_sliding = hp->rope_base;
    EL_TRY(el_key_f32(file, arch, "attention.scale", 1e-6f, 1e6f, &hp->attn_scale));
    for (int32_t i = 0; pattern && pattern->type == EL_GGUF_ARR && i < hp->n_layer && (uint64_t)i < pattern->n; i++) {
        int64_t rotates = 1;
        EL_TRY(el_gguf_item_i64(pattern, (uint64_t)i, &rotates));
        if (!rotates)
            hp->layers[i].n_rot = 0;
    }
done:
    return status;
}

EL_ARCH(granite_swa) = {
    .name = "granite_swa",
    .traits = {.any_gate = true, /* shared experts hold gate and up in one */
               .sinks = true,
               .scale_keys = true,
               .may_have_experts = true,
               .experts_normalise = true,
               .shared_experts = true,
               .sliding_period = 4},
    .hparams = swa_hparams,
};
