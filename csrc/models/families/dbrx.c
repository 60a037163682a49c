/* dbrx.c - DBRX: LayerNorm, clamped projections, fine-grained experts. Source: Databricks 2024, the model code. */
#include "arch.h"

static edgellm_status dbrx_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    return el_key_f32(file, arch, "attention.clamp_kqv", 1e-6f, 1e6f, &hp->attn_clamp);
}

EL_ARCH(dbrx) = {
    .name = "dbrx",
    .traits = {.rope = EL_ROPE_HALVES,
               .layer_norm = true,
               .ffn_norm = "attn_output_norm",
               .may_have_experts = true,
               .experts_normalise = true},
    .hparams = dbrx_hparams,
};
