/* deepseek.c - DeepSeek 1 to 3.2 and the families with the same layers: many small experts beside shared ones, from
 * version 2 on with latent attention.
 * Sources: Dai et al. 2024 (DeepSeekMoE); DeepSeek-AI 2024 (V2, V3), 2025 (V3.2, DeepSeek-OCR); GLM Team 2025 (GLM-4.7,
 * GLM-5); Mistral AI 2025; the published model code of each. */
#include <math.h>

#include "arch.h"
#include "layer_blocks.h"

EL_ARCH(deepseek) = {
    .name = "deepseek",
    .traits = {.may_have_experts = true, .expert_keys = EL_EXPERT_SCALE | EL_EXPERT_LEADING, .shared_experts = true},
};

EL_ARCH(deepseek2_ocr) = {
    .name = "deepseek2-ocr",
    .traits = {.rope = EL_ROPE_HALVES, .may_have_experts = true, .expert_keys = EL_EXPERT_KEYS, .shared_experts = true},
};

/* YaRN with a length scale of its own on the scores: m(L) = 1 + 0.1 L ln(factor) stretches q and k and divides what is
 * rotated; files hold 0.1 L. DeepSeek's own models have the same L in both places, so that rotation alone does not
 * stretch; ggml_rope_ext multiplies m(1) in by itself. Source: yarn_get_mscale in the published model code. */
static edgellm_status latent_yarn(el_hparams *hp, const el_gguf *file, const el_arch *arch, bool same)
{
    const float log_factor = logf(EL_MAX(hp->rope_factor, 1.0f)), m1 = 1.0f + 0.1f * log_factor;
    float tenth = 0, stretch;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_f32(file, arch, "rope.scaling.yarn_log_multiplier", 1e-6f, 1e6f, &tenth));
    if (hp->rope_scaling == EL_ROPE_YARN && tenth != 0)
        hp->rope_attn_factor /= same ? m1 : 1.0f + tenth * log_factor;
    stretch = hp->rope_attn_factor * m1 * (1.0f + tenth * log_factor);
    hp->attn_scale *= stretch * stretch;
done:
    return status;
}

static edgellm_status latent_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch, bool same)
{
    int32_t length = 0;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_mla_keys(hp, file, arch));
    EL_TRY(latent_yarn(hp, file, arch, same));
    EL_TRY(el_key_f32(file, arch, "attention.temperature_scale", 1e-6f, 1e3f, &hp->attn_temp_scale));
    if (hp->attn_temp_scale != 0) {
        EL_TRY(el_key_i32(file, arch, "attention.temperature_length", 1, INT32_MAX, &length));
        EL_TRY(el_key_require(length, arch, "attention.temperature_length"));
        hp->attn_temp_length = length;
    }
done:
    return status;
}

static edgellm_status deepseek2_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    enum { VOCAB_OF_GLM_47_FLASH = 154880 };
    int32_t gating = 0;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(latent_hparams(hp, file, arch, true));
    EL_TRY(el_key_i32(file, arch, "expert_gating_func", EL_GATING_SOFTMAX, EL_GATING_SQRT_SOFTPLUS, &gating));
    if (gating == 0 && hp->n_vocab == VOCAB_OF_GLM_47_FLASH) /* its first files lack the key */
        hp->expert.gating = EL_GATING_SIGMOID;
done:
    return status;
}

EL_ARCH(deepseek2) = {
    .name = "deepseek2",
    .traits = {.may_have_experts = true, .expert_keys = EL_EXPERT_KEYS, .shared_experts = true},
    .mixer = &el_mixer_mla,
    .hparams = deepseek2_hparams,
};

static edgellm_status mistral4_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    return latent_hparams(hp, file, arch, false);
}

EL_ARCH(mistral4) = {
    .name = "mistral4",
    .traits = {.may_have_experts = true, .expert_keys = EL_EXPERT_KEYS, .shared_experts = true},
    .mixer = &el_mixer_mla,
    .hparams = mistral4_hparams,
};

/* An indexer picks top_k positions for each row to see. Up to that many it picks all of them, so the layers are those
 * of DeepSeek 3; a longer context would need the indexer, which this version does not have. */
static edgellm_status sparse_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(latent_hparams(hp, file, arch, false));
    EL_TRY(el_key_i32(file, arch, "attention.indexer.top_k", 1, INT32_MAX, &hp->n_positions));
done:
    return status;
}

EL_ARCH(deepseek32) = {
    .name = "deepseek32",
    .traits = {.may_have_experts = true, .expert_keys = EL_EXPERT_KEYS, .shared_experts = true},
    .mixer = &el_mixer_mla,
    .hparams = sparse_hparams,
};

EL_ARCH(glm_dsa) = {
    .name = "glm-dsa",
    .traits = {.may_have_experts = true,
               .expert_keys = EL_EXPERT_KEYS,
               .shared_experts = true,
               .gating = EL_GATING_SIGMOID},
    .mixer = &el_mixer_mla,
    .hparams = sparse_hparams,
};
