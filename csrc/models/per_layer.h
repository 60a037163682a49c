/* per_layer.h - an embedding of each token for each layer (Gemma 3n and 4), and layers that read earlier ones' keys and
 * values. Source: Gemma Team 2025 (Gemma 3n, model card), the published model code. */
#ifndef EL_PER_LAYER_H
#define EL_PER_LAYER_H

#include "layer_blocks.h"

typedef struct el_per_layer { /* of the model; width 0: none */
    int64_t width;
    struct ggml_tensor *tokens; /* [width * n_layer, n_vocab] */
    el_linear project;          /* of the token's own embedding */
    el_norm norm;
} el_per_layer;

typedef struct el_per_layer_gate { /* of one layer */
    el_linear gate, project;
    el_norm post_norm;
} el_per_layer_gate;

el_per_layer el_per_layer_load(el_loader *l, int64_t width); /* leaves l->layer at -1 */
el_per_layer_gate el_per_layer_load_gate(el_loader *l, int64_t width);
/* The families have no biases in attention, or (all false) none where keys are another layer's, whatever a file holds.
 */
void el_per_layer_drop_biases(el_attention *w, bool all);
/* Layers from n_own on read the last layer of their kind before them. */
edgellm_status el_per_layer_share(el_hparams *hp, const el_arch *arch, int32_t n_own);

/* [width, n_layer, rows] from the tokens and their scaled embeddings x */
struct ggml_tensor *el_build_per_layer(struct el_graph *g, const el_per_layer *p, struct ggml_tensor *x);
/* [width, rows] of one layer */
struct ggml_tensor *el_per_layer_of(struct el_graph *g, struct ggml_tensor *all, int32_t layer);
/* What the layer's own embedding adds to x. */
struct ggml_tensor *el_build_per_layer_gate(struct el_graph *g, const el_per_layer_gate *w, struct ggml_tensor *x,
                                            struct ggml_tensor *own);

#endif
