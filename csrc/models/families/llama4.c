/* llama4.c - Llama 4: chunks instead of windows, every fourth layer full and without rope, experts in some layers.
 * Source: Meta 2025, the published model code. */
#include "arch.h"

enum { FULL_PERIOD = 4, CHUNK = 8192, EXPERTS_OF_MAVERICK = 128 };

static edgellm_status llama4_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    const el_gguf_kv *window = el_gguf_find(file, "llama4.attention.sliding_window");
    int64_t told = CHUNK;
    edgellm_status status = EDGELLM_OK;

    (void)arch;
    if (window && window->type != EL_GGUF_ARR)
        EL_TRY(el_gguf_item_i64(window, 0, &told));
    el_experts_where_routed(hp, file);
    hp->expert.weigh_inputs = true;
    hp->window = told != 0 ? CHUNK : 0; /* 0: everything is seen, as in the small models for tests */
    hp->window_kind = EL_WINDOW_CHUNK;
    for (int32_t i = 0; i < hp->n_layer; i++) {
        el_layer_hparams *layer = &hp->layers[i];
        layer->sliding = layer->sliding && hp->window > 0;
        if ((i + 1) % (hp->window > 0 ? FULL_PERIOD : hp->n_layer) == 0)
            layer->n_rot = 0;
        layer->qk_norm_plain = layer->n_rot > 0 && hp->expert.n != EXPERTS_OF_MAVERICK;
    }
    if (hp->window > 0) {
        hp->attn_temp_scale = 0.1f;
        hp->attn_temp_length = CHUNK;
        hp->attn_temp_offset = 1;
        hp->attn_temp_unrotated = true;
    }
done:
    return status;
}

EL_ARCH(llama4) = {
    .name = "llama4",
    .traits = {.qk_norm_after_rope = true,
               .may_have_experts = true,
               .gating = EL_GATING_SIGMOID_CHOSEN,
               .shared_experts = true,
               .sliding_period = FULL_PERIOD,
               .window = CHUNK},
    .hparams = llama4_hparams,
};
