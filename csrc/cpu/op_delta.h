/* op_delta.h - the gated delta rule: linear attention that takes out of its memory what it held for a key before it
 * writes the key's new value.
 * Sources: Yang, Kautz and Hatamizadeh 2024 (Gated Delta Networks), equation 10; Kimi Team 2025 (Kimi Linear), section
 * 3: a decay for each channel; the published model code for norms and gates. */
#ifndef EL_OP_DELTA_H
#define EL_OP_DELTA_H

#include <stdbool.h>

#include "ggml.h"

enum { EL_DELTA_MAX_HEAD = 1024 };

typedef struct el_delta {
    /* F32 [head, n_key_heads or n_value_heads, rows], the floats of a head adjacent; before their norms. Value head h
     * uses key head h % n_key_heads or, where neighbouring value heads share one, h / (n_value_heads / n_key_heads). */
    struct ggml_tensor *q, *k, *v;
    bool neighbours;
    /* F32 [1 or head, n, n_value_heads / n, rows] and [1, n, n_value_heads / n, rows]: what the decay (of a head, or of
     * each of its channels) and the step come from */
    struct ggml_tensor *alpha, *beta;
    struct ggml_tensor *bias;   /* F32, added to alpha: one for each of its numbers in a row */
    struct ggml_tensor *a;      /* F32 [n_value_heads], negative */
    float bound;                /* not 0: a lower bound of the decay's logarithm, see below */
    struct ggml_tensor *memory; /* F32 [head * head * n_value_heads, n_states]: per value head, a row for each of its
                                   channels over the key's channels */
    struct ggml_tensor *runs;   /* see el_graph_inputs */
    float eps;                  /* of the norms of q and k: x / sqrt(sum(x^2) + eps) */
} el_delta;

/* Per value head and token, with decay = exp(a * softplus(alpha + bias)) and step = sigmoid(beta):
 *     state = state decay;  state += step * (v - state k) k';  y = state q / sqrt(head)
 * With a bound decay = exp(bound * sigmoid(a * (alpha + bias))).
 * Result [head, n_value_heads, rows]. */
struct ggml_tensor *el_op_delta(struct ggml_context *ctx, const el_delta *d);

#endif
