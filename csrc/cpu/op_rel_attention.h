/* op_rel_attention.h - attention over the paged cache with T5's bias: a number for each head and distance, distances
 * in buckets that grow. Without a bias it is plain attention without rope: what a decoder asks of the source text.
 * Source: Raffel et al. 2020 (T5), section 2.1 and the published model code for the buckets. */
#ifndef EL_OP_REL_ATTENTION_H
#define EL_OP_REL_ATTENTION_H

#include <stdbool.h>

#include "ggml.h"

typedef struct el_rel_attention {
    int32_t head_k, head_v, n_head, n_head_kv;
    int32_t n_buckets;
    bool both_ways; /* half of the buckets are for later positions */
} el_rel_attention;

/* [head_v * n_head, rows]
 *   q       F32 [head_k, n_head, rows]
 *   k, v    a layer's part of the pool, [head * n_head_kv, n_slots], F32, F16 or Q8_0
 *   ranges, tables  see el_graph_inputs
 *   bias    F32 [n_head, n_buckets] or NULL */
struct ggml_tensor *el_op_rel_attention(struct ggml_context *ctx, const el_rel_attention *shape, struct ggml_tensor *q,
                                        struct ggml_tensor *k, struct ggml_tensor *v, struct ggml_tensor *ranges,
                                        struct ggml_tensor *tables, struct ggml_tensor *bias);

#endif
