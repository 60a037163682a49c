/* gpt_oss.c - gpt-oss: experts with biases, attention sinks, sliding windows. Source: OpenAI 2025 (model card), the
 * published model code. */
#include "arch.h"

EL_ARCH(gpt_oss) = {
    .name = "gpt-oss",
    .traits = {.rope = EL_ROPE_HALVES,
               .activation = EL_ACT_SWIGLU_OAI,
               .ffn_norm = "post_attention_norm",
               .sinks = true,
               .may_have_experts = true,
               .gating = EL_GATING_SOFTMAX_CHOSEN,
               .sliding_period = 2},
};
