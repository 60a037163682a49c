/* op_wkv.h - linear attention with a decay for each channel, as RWKV 6 and 7 and their kin have it.
 * Sources: Peng et al. 2024 (Eagle and Finch), section 4.2; Peng et al. 2025 (RWKV-7 "Goose"), section 4; Yang et al.
 * 2023 (gated linear attention), equation 3. */
#ifndef EL_OP_WKV_H
#define EL_OP_WKV_H

#include <stdbool.h>

#include "ggml.h"

enum { EL_WKV_MAX_HEAD = 1024 };

/* F32 [head, n_head, rows]; k and v may have fewer heads, which neighbouring ones share; decay may have one row for all
 */
typedef struct el_wkv {
    struct ggml_tensor *r, *decay, *k, *v;
    bool complement;            /* k stands for (1 - decay) k */
    struct ggml_tensor *first;  /* [head, n_head] or NULL: a token counts by itself as its key times this */
    struct ggml_tensor *erased; /* or NULL: unit vector of what is taken out of the state, ... */
    struct ggml_tensor *rate;   /* ... and for each of its channels, how much of it */
    struct ggml_tensor *memory; /* [head * head * n_head, n_states]: per head, a row for each channel of its value */
    struct ggml_tensor *runs;   /* see el_graph_inputs */
    float scale;                /* of the result */
} el_wkv;

/* Per head and token:
 *     first:   y = (state + v (first k)') r, then state = state decay + v k'
 *     erased:  state = state decay - (state erased) (rate erased)' + v k', then y = state r
 *     neither: state = state decay + v k', then y = state r
 * Result [head, n_head, rows]. */
struct ggml_tensor *el_op_wkv(struct ggml_context *ctx, const el_wkv *w);

#endif
