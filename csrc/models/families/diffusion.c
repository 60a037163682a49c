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

EL_ARCH(llada) = {.name = "llada", .hparams = not_causal};

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
