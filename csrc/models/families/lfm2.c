/* lfm2.c - LFM2: short convolutions, and attention in every few layers.
 * Source: Liquid AI 2025 (LFM2), section 2; the published model code. */
#include "arch.h"
#include "layer_blocks.h"
#include "op_conv.h"

static edgellm_status lfm2_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_i32(file, arch, "shortconv.l_cache", 2, EL_CONV_MAX_TAPS, &hp->ssm.d_conv));
    EL_TRY(el_key_mixers(hp, file, arch, &el_mixer_shortconv));
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].sliding = hp->window > 0; /* all attention or none */
done:
    return status;
}

EL_ARCH(lfm2) = {
    .name = "lfm2",
    .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM, .output_norm = "token_embd_norm", .sliding_period = 1},
    .hparams = lfm2_hparams,
};

static edgellm_status lfm2moe_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    hp->expert.normalise = true;
    hp->expert.scale = 1;
    hp->expert.n_groups = 0;
    return lfm2_hparams(hp, file, arch);
}

EL_ARCH(lfm2moe) = {
    .name = "lfm2moe",
    .traits = {.rope = EL_ROPE_HALVES,
               .qk_norm = EL_QK_NORM,
               .output_norm = "token_embd_norm",
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_KEYS},
    .hparams = lfm2moe_hparams,
};
