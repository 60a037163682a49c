/* phi.c - Phi-2, Phi-3 to 4, Phi-3.5-MoE. Sources: Abdin et al. 2024, the published model code. */
#include "arch.h"

EL_ARCH(phi2) = {
    .name = "phi2",
    .traits =
        {.rope = EL_ROPE_HALVES, .activation = EL_ACT_GELU, .ungated = true, .layer_norm = true, .parallel = true},
};

/* Files may name a window of 2047 or 262144, which in effect no one uses: the models were trained on full attention in
 * their last stage, and other runtimes leave it out. */
EL_ARCH(phi3) = {.name = "phi3", .traits = {.rope = EL_ROPE_HALVES, .fused_gate = true}};

EL_ARCH(phimoe) = {
    .name = "phimoe",
    .traits = {.rope = EL_ROPE_HALVES, .may_have_experts = true, .experts_normalise = true},
};
