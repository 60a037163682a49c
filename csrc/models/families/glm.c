/* glm.c - ChatGLM and GLM-4. Sources: GLM Team 2024, the published model code. */
#include "arch.h"

EL_ARCH(chatglm) = {.name = "chatglm", .traits = {.fused_gate = true}};

EL_ARCH(glm4) = {
    .name = "glm4",
    .traits = {.fused_gate = true, .norm_place = EL_NORM_BOTH},
    .hparams = el_key_sections,
};
