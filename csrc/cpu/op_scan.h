/* op_scan.h - the selective scan of state-space layers, Mamba 1 and 2.
 * Sources: Gu and Dao 2023 (Mamba), algorithm 2; Dao and Gu 2024 (Mamba 2), section 6. */
#ifndef EL_OP_SCAN_H
#define EL_OP_SCAN_H

#include "ggml.h"

enum { EL_SCAN_MAX_STATE = 1024 }; /* d_state */

typedef struct el_scan {         /* F32; rows may stand apart */
    struct ggml_tensor *x;       /* [head * n_head, rows]; Mamba 1 has heads of one channel */
    struct ggml_tensor *dt;      /* [n_head, rows], before bias and softplus */
    struct ggml_tensor *dt_bias; /* [n_head] */
    struct ggml_tensor *a;       /* [n_head] (Mamba 2) or [d_state, n_head] (Mamba 1): negative */
    struct ggml_tensor *b, *c;   /* [d_state * n_group, rows]; neighbouring heads form a group */
    struct ggml_tensor *d;       /* [n_head]: how much of x goes past the state */
    struct ggml_tensor *memory;  /* [d_state * head * n_head, n_states] */
    struct ggml_tensor *runs;    /* see el_graph_inputs */
} el_scan;

/* Per channel, with t = softplus(dt + dt_bias): state = exp(t a) state + t x b; y = state . c + d x. Result [head *
 * n_head, rows]. In the order of el_kernels.state_step. */
struct ggml_tensor *el_op_scan(struct ggml_context *ctx, const el_scan *s);

#endif
