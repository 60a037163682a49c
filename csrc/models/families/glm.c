/* glm.c - ChatGLM, GLM-4, GLM-4.5. Sources: GLM Team 2024, the published model code. */
#include "arch.h"

EL_ARCH(chatglm) = {.name = "chatglm", .traits = {.fused_gate = true}};

EL_ARCH(glm4) = {
    .name = "glm4",
    .traits = {.fused_gate = true, .norm_place = EL_NORM_BOTH},
    .hparams = el_key_sections,
};

EL_ARCH(glm4moe) = {
    .name = "glm4moe", /* its multi-section rope is rope on halves in a text */
    .traits = {.rope = EL_ROPE_HALVES,
               .ffn_norm = "post_attention_norm",
               .qk_norm = EL_QK_NORM_OPTIONAL,
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_KEYS,
               .gating = EL_GATING_SIGMOID,
               .shared_experts = true},
};
