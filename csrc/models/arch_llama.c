/* arch_llama.c - LLaMA and what shares its blocks: Mistral, SmolLM2, Mixtral (experts), Mistral 3.
 * Source: Touvron et al. 2023, section 2.2; Jiang et al. 2024 (experts); the published model code of Mistral 3. */
#include "arch.h"
#include "graph.h"

const el_arch el_arch_llama = {
    .name = "llama",
    .traits = {.rope = EL_ROPE_ADJACENT, .activation = EL_ACT_SILU, .may_have_experts = true},
    .build = el_build_decoder,
};

/* Mistral 3 scales queries by 1 + s * ln(1 + floor(position / original length)). */
static edgellm_status mistral3_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    hp->attn_temp_length = hp->rope_ctx_orig;
    return el_hparams_f32(file, arch, "attention.temperature_scale", 1e-6f, 1e3f, &hp->attn_temp_scale);
}

const el_arch el_arch_mistral3 = {
    .name = "mistral3",
    .traits = {.rope = EL_ROPE_ADJACENT, .activation = EL_ACT_SILU, .may_have_experts = true, .yarn_keys = true},
    .hparams = mistral3_hparams,
    .build = el_build_decoder,
};
