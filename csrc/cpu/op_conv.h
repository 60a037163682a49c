/* op_conv.h - short causal convolution of each channel over the positions of its sequence: what Mamba, LFM2 and linear
 * attention put before the part that remembers. The last inputs of a sequence are kept for its next step.
 * Source: Gu and Dao 2023 (Mamba), section 3.4. */
#ifndef EL_OP_CONV_H
#define EL_OP_CONV_H

#include <stdbool.h>

#include "ggml.h"

enum { EL_CONV_MAX_TAPS = 32 };

/* y[c, t] = bias[c] + sum over k of weight[k, c] * x[c, t - (taps - 1) + k], then SiLU where asked: [channels, rows].
 *   x       F32 [channels, rows], may be a view whose rows stand apart
 *   weight  F32 [taps, channels], 2 to EL_CONV_MAX_TAPS taps
 *   bias    F32 [channels] or NULL
 *   memory  F32 [(taps - 1) * channels, n_states], may be a view: the last inputs, oldest first, all channels of one
 *           position together
 *   runs    see el_graph_inputs */
struct ggml_tensor *el_op_conv(struct ggml_context *ctx, struct ggml_tensor *x, struct ggml_tensor *weight,
                               struct ggml_tensor *bias, struct ggml_tensor *memory, struct ggml_tensor *runs,
                               bool silu);

#endif
