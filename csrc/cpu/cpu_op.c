/* cpu_op.c - our own operations behind ggml's hook for custom ones. */
#include "cpu_op.h"

#include <string.h>

#include "ggml-impl.h" /* ggml_custom_op_params */

enum { OURS = sizeof(struct ggml_custom_op_params) }; /* where our parameters begin */

_Static_assert(OURS % 4 == 0 && OURS + EL_OP_PARAM_BYTES <= GGML_MAX_OP_PARAMS, "parameters do not fit behind ggml's");
_Static_assert(EL_OP_MAX_SRCS < GGML_MAX_SRC, "ggml_custom_4d refuses as many sources as there are places");

/* Called by ggml's backend on each of its n threads. */
static void run_share(struct ggml_tensor *node, int ith, int n, void *op_)
{
    const el_op *op = op_;
    const int32_t n_chunks = op->n_chunks(node);

    for (int32_t chunk = ith; chunk < n_chunks; chunk += n)
        op->run(node, chunk);
}

struct ggml_tensor *el_op_new(struct ggml_context *ctx, const el_op *op, enum ggml_type type, const int64_t ne[4],
                              struct ggml_tensor *const *srcs, int n_srcs, const void *params, size_t n_params)
{
    struct ggml_tensor *args[EL_OP_MAX_SRCS], *node;

    GGML_ASSERT(n_srcs >= 1 && n_srcs <= EL_OP_MAX_SRCS && n_params <= EL_OP_PARAM_BYTES);
    memcpy(args, srcs, (size_t)n_srcs * sizeof *args);
    node = ggml_custom_4d(ctx, type, ne[0], ne[1], ne[2], ne[3], args, n_srcs, run_share, GGML_N_TASKS_MAX,
                          (void *)(uintptr_t)op);
    if (n_params)
        memcpy((char *)node->op_params + OURS, params, n_params);
    return node;
}

const void *el_op_params(const struct ggml_tensor *node) { return (const char *)node->op_params + OURS; }

const el_op *el_op_of(const struct ggml_tensor *node)
{
    struct ggml_custom_op_params params;

    if (node->op != GGML_OP_CUSTOM)
        return NULL;
    memcpy(&params, node->op_params, sizeof params);
    return params.fun == run_share ? params.userdata : NULL;
}
