/* ernie.c - Baidu's ERNIE 4.5, dense and with experts, and PaddleOCR-VL's text part.
 * Source: Baidu 2025 (ERNIE 4.5), the published model code. */
#include "arch.h"
#include "layer_blocks.h"

/* The output projection has no bias, whatever a file holds. */
static void ernie_load(el_loader *l)
{
    for (int32_t i = 0; i < l->model->hp.n_layer; i++)
        ((el_attention *)l->model->layers[i].mixer)->out.b = NULL;
}

EL_ARCH(ernie4_5) = {.name = "ernie4_5", .load = ernie_load};

static edgellm_status ernie_moe_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)arch;
    el_experts_where_routed(hp, file);
    return EDGELLM_OK;
}

EL_ARCH(ernie4_5_moe) = {
    .name = "ernie4_5-moe",
    .traits = {.may_have_experts = true, .experts_normalise = true, .shared_experts = true},
    .hparams = ernie_moe_hparams,
    .load = ernie_load,
};

/* Its multi-section rope is rope on halves in a text. */
EL_ARCH(paddleocr) = {.name = "paddleocr", .traits = {.rope = EL_ROPE_HALVES}};
