/* glm.c - ChatGLM, GLM-4, GLM-4.5. Sources: GLM Team 2024, the published model code. */
#include "arch.h"

EL_ARCH(chatglm) = {.name = "chatglm", .traits = {.fused_gate = true}};

/* Models that see have a multi-section rope, which in a text is rope on halves. */
static edgellm_status glm4_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    const el_gguf_kv *sections = el_gguf_find(file, "glm4.rope.dimension_sections");
    int64_t first = 0, second = 0;
    edgellm_status status = EDGELLM_OK;

    (void)arch;
    if (!sections || sections->type != EL_GGUF_ARR || sections->n < 2)
        return EDGELLM_OK;
    EL_TRY(el_gguf_item_i64(sections, 0, &first));
    EL_TRY(el_gguf_item_i64(sections, 1, &second));
    if (first > 0 && second > 0)
        hp->rope_layout = EL_ROPE_HALVES;
done:
    return status;
}

EL_ARCH(glm4) = {
    .name = "glm4",
    .traits = {.fused_gate = true, .norm_place = EL_NORM_BOTH},
    .hparams = glm4_hparams,
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
