/* diffusion.c - models that fill in masked tokens, each row seeing all others: LLaDA, LLaDA-MoE, Dream, RND1.
 * Sources: Nie et al. 2025 (LLaDA), Ye et al. 2025 (Dream), Radical Numerics 2025 (RND1); the published model code. */
#include "arch.h"
#include "layer_blocks.h"

static edgellm_status not_causal(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    hp->causal = false; /* whatever a file says */
    return EDGELLM_OK;
}

/* Biases are those of queries, keys and values alone, whatever a file holds. */
static void llada_load(el_loader *l)
{
    for (int32_t i = 0; i < l->model->hp.n_layer; i++) {
        el_ffn *ffn = &l->model->layers[i].ffn;
        ((el_attention *)l->model->layers[i].mixer)->out.b = NULL;
        ffn->gate.b = ffn->up.b = ffn->down.b = NULL;
    }
}

EL_ARCH(llada) = {
    .name = "llada",
    .traits = {.no_rope_factors = true},
    .hparams = not_causal,
    .load = llada_load,
};

/* Its output has no bias, whatever a file holds. */
static void dream_load(el_loader *l) { l->model->output.b = NULL; }

EL_ARCH(dream) = {
    .name = "dream",
    .traits = {.rope = EL_ROPE_HALVES},
    .hparams = not_causal,
    .load = dream_load,
};

EL_ARCH(llada_moe) = {
    .name = "llada-moe",
    .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM, .may_have_experts = true},
    .hparams = not_causal,
};

EL_ARCH(rnd1) = {
    .name = "rnd1",
    .traits = {.rope = EL_ROPE_HALVES, .qk_norm = EL_QK_NORM, .may_have_experts = true, .experts_normalise = true},
    .hparams = not_causal,
};
