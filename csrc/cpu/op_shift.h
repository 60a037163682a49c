/* op_shift.h - token shift: each position mixed with the one before it in its sequence.
 * Source: Peng et al. 2023 (RWKV), section 3.1. */
#ifndef EL_OP_SHIFT_H
#define EL_OP_SHIFT_H

#include "ggml.h"

enum { EL_SHIFT_MAX_MIXES = 6 };

/* With d[t] = x[t - 1] - x[t]: without mixes d, [n, rows]; else x + d * mix for each of them, [n, rows, n_mixes].
 *   x       F32 [n, rows]
 *   memory  F32 [n, n_states], may be a view: the last x of each sequence; before its first there are zeros
 *   runs    see el_graph_inputs
 *   mixes   n_mixes times F32 [n] */
struct ggml_tensor *el_op_shift(struct ggml_context *ctx, struct ggml_tensor *x, struct ggml_tensor *memory,
                                struct ggml_tensor *runs, struct ggml_tensor *const *mixes, int n_mixes);

#endif
