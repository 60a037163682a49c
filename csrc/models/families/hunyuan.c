/* hunyuan.c - Tencent's Hunyuan: dense, with experts, the text part of the model that sees, and Hy 3.
 * Sources: Tencent 2025 (Hunyuan-A13B; Hunyuan-7B), the published model code. */
#include <math.h>

#include "arch.h"

EL_ARCH(hunyuan_dense) = {
    .name = "hunyuan-dense",
    .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM, .qk_norm_after_rope = true},
};

/* NTK-aware scaling: alpha stretches the base. */
static edgellm_status hunyuan_vl_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    const float dim = (float)hp->layers[0].head_k;
    float alpha = 0;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_f32(file, arch, "rope.scaling.alpha", 1e-3f, 1e6f, &alpha));
    if (alpha > 0 && dim > 2)
        hp->rope_base *= powf(alpha, dim / (dim - 2));
done:
    return status;
}

EL_ARCH(hunyuan_vl) = {
    .name = "hunyuan_vl",
    .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM, .qk_norm_after_rope = true},
    .hparams = hunyuan_vl_hparams,
};

EL_ARCH(hunyuan_moe) = {
    .name = "hunyuan-moe",
    .traits = {.rope = EL_ROPE_HALVES,
               .qk_norm = EL_QK_NORM,
               .qk_norm_after_rope = true,
               .may_have_experts = true,
               .experts_normalise = true,
               .shared_experts = true},
};

static edgellm_status hy_v3_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)arch;
    el_experts_where_routed(hp, file);
    return EDGELLM_OK;
}

EL_ARCH(hy_v3) = {
    .name = "hy_v3",
    .traits = {.rope = EL_ROPE_HALVES,
               .qk_norm = EL_QK_NORM,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_GATING | EL_EXPERT_SCALE | EL_EXPERT_NORMALISE,
               .gating = EL_GATING_SIGMOID,
               .shared_experts = true},
    .hparams = hy_v3_hparams,
};
