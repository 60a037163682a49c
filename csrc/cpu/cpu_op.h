/* cpu_op.h - operations of our own as nodes of a ggml graph: what ggml lacks, or what has to work on steps that hold
 * pieces of several sequences (scans over a recurrent state, short convolutions). A node is a GGML_OP_CUSTOM, so ggml's
 * backend computes it with the same function as ours. */
#ifndef EL_CPU_OP_H
#define EL_CPU_OP_H

#include <stdint.h>

#include "ggml.h"

enum { EL_OP_PARAM_BYTES = 40, EL_OP_MAX_SRCS = 9 };

/* What makes an operation; lives as long as the graphs that use it. Work falls into n_chunks parts (at least 1; asked
 * while the graph is planned, so a function of shapes and parameters alone), which may be computed in any order, by any
 * thread, each exactly once: a part may change a leaf's memory in place, a recurrent state, say, that no other part of
 * the node reads or writes. Sources may be views and permutations: their nb[] hold. A result's bits must not depend on
 * how the work is cut. */
typedef struct el_op {
    const char *name;
    int32_t (*n_chunks)(const struct ggml_tensor *node);
    void (*run)(const struct ggml_tensor *node, int32_t chunk); /* node->src[i]->data to node->data */
} el_op;

/* A node of that type and shape. 1 to EL_OP_MAX_SRCS sources; n_params bytes, at most EL_OP_PARAM_BYTES, are copied
 * into the node. Everything that earlier nodes wrote to the sources' memory is there when it runs, and what later nodes
 * read of it is what it left. */
struct ggml_tensor *el_op_new(struct ggml_context *ctx, const el_op *op, enum ggml_type type, const int64_t ne[4],
                              struct ggml_tensor *const *srcs, int n_srcs, const void *params, size_t n_params);

/* EL_OP_PARAM_BYTES, zeros after what was given; aligned to 4. */
const void *el_op_params(const struct ggml_tensor *node);

/* The node's operation; NULL: it is not one of ours. */
const el_op *el_op_of(const struct ggml_tensor *node);

#endif
