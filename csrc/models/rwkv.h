/* rwkv.h - what RWKV 6 and 7 share: the numbers of their layers, token shift, the norm of each head and, in the models
 * that are not grafted onto another family, channel mix in place of the feed-forward block. */
#ifndef EL_RWKV_H
#define EL_RWKV_H

#include "layer_blocks.h"

struct el_graph;
struct ggml_tensor;

typedef struct el_channel_mix { /* weights */
    el_norm norm;
    struct ggml_tensor *mix_key, *mix_receptance; /* [n_embd]; the second and receptance: RWKV 6 alone */
    el_linear key, value, receptance;
} el_channel_mix;

/* el_arch.hparams of a model with channel mix, and of one that is grafted onto another family's feed-forward blocks. */
edgellm_status el_rwkv_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch);
edgellm_status el_rwkv_grafted_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch);
/* A mixer's: widths of the memory. */
edgellm_status el_rwkv_layer_hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch);

/* Weights of channel mix as el_layer.own of every layer. */
void el_load_channel_mix(el_loader *l);
/* What the file alone knows, 1 when the tensor is missing: the rank of a low-rank projection, a number of floats. */
int64_t el_rank_of(const el_loader *l, const char *name);
int64_t el_n_floats(const el_loader *l, const char *name);

/* el_op_shift over the layer's memory. channel_mix: the second of its two parts. */
struct ggml_tensor *el_build_shift(struct el_graph *g, int32_t layer, bool channel_mix, struct ggml_tensor *x,
                                   struct ggml_tensor *const *mixes, int n_mixes);
/* Mix number i of what that gave: [n_embd, rows]. */
struct ggml_tensor *el_build_mixed(struct el_graph *g, struct ggml_tensor *all, int i);
/* Whether of a time mix only the memory is wanted. Never beside channel mix, which remembers its rows, too. */
bool el_rwkv_memory_alone(const struct el_graph *g, int32_t layer);
/* [head * n_head, rows] as heads, of which there may be fewer. */
struct ggml_tensor *el_build_heads(struct el_graph *g, int32_t layer, struct ggml_tensor *x);
/* Heads back to rows, each normed by itself where the file has weights for that. */
struct ggml_tensor *el_build_group_norm(struct el_graph *g, struct ggml_tensor *y, const el_norm *norm);
/* el_arch.layer of a model with channel mix. */
struct ggml_tensor *el_build_rwkv_layer(struct el_graph *g, int32_t layer, struct ggml_tensor *x);

#endif
