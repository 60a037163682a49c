/* qwen.c - Qwen 1, 2, 2.5 and 3, dense and with experts, and the text part of their models that see.
 * In a text all sections of a multi-section rope have the same position, so it is rope on halves.
 * Sources: Qwen Team 2024, 2025 (technical reports), the published model code. */
#include "arch.h"
#include "layer_blocks.h"

/* feed_forward_length counts gate and up together. */
static edgellm_status qwen_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].n_ff /= 2;
    return EDGELLM_OK;
}

EL_ARCH(qwen) = {.name = "qwen", .traits = {.rope = EL_ROPE_HALVES}, .hparams = qwen_hparams};

EL_ARCH(qwen2) = {.name = "qwen2", .traits = {.rope = EL_ROPE_HALVES}};

/* The output has no bias, whatever a file holds. */
static void qwen2vl_load(el_loader *l) { l->model->output.b = NULL; }

EL_ARCH(qwen2vl) = {
    .name = "qwen2vl",
    .traits = {.rope = EL_ROPE_HALVES, .norm_eps = 1e-6f},
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

/* The talker of a model that speaks: its vocabulary is of sounds. */
EL_ARCH(qwen3tts) = {.name = "qwen3tts", .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM}};

EL_ARCH(qwen3vlmoe) = {
    .name = "qwen3vlmoe",
    .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM, .may_have_experts = true, .experts_normalise = true},
};
