/* qwen.c - Qwen 2, 2.5 and 3, dense and with experts, and the text part of their models that see.
 * In a text all sections of a multi-section rope have the same position, so it is rope on halves.
 * Sources: Qwen Team 2024, 2025 (technical reports), the published model code. */
#include "arch.h"
#include "model.h"

EL_ARCH(qwen2) = {.name = "qwen2", .traits = {.rope = EL_ROPE_HALVES}};

/* The output has no bias, whatever a file holds. */
static void qwen2vl_load(el_loader *l) { l->model->output.b = NULL; }

EL_ARCH(qwen2vl) = {
    .name = "qwen2vl",
    .traits = {.rope = EL_ROPE_HALVES, .norm_eps = 1e-6f}, /* that of every published one */
    .load = qwen2vl_load,
};

EL_ARCH(qwen2moe) = {
    .name = "qwen2moe",
    .traits = {.rope = EL_ROPE_HALVES, .may_have_experts = true, .shared_experts = true},
};

EL_ARCH(qwen3) = {
    .name = "qwen3",
    .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM, .softmax_classifier = true},
};

EL_ARCH(qwen3moe) = {
    .name = "qwen3moe",
    .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM, .may_have_experts = true, .experts_normalise = true},
};

EL_ARCH(qwen3vl) = {
    .name = "qwen3vl",
    .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM, .softmax_classifier = true},
};

EL_ARCH(qwen3vlmoe) = {
    .name = "qwen3vlmoe",
    .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM, .may_have_experts = true, .experts_normalise = true},
};
