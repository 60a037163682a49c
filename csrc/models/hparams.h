/* hparams.h - the numbers of a model, read from the file's metadata and checked once.
 * Everything later (tensor shapes, graphs, caches) trusts them: a ggml assertion must not be reachable from a file. */
#ifndef EL_HPARAMS_H
#define EL_HPARAMS_H

#include "gguf.h"

enum { EL_MAX_LAYERS = 1024 };

typedef enum el_rope_scaling { EL_ROPE_NONE = 0, EL_ROPE_LINEAR, EL_ROPE_YARN } el_rope_scaling;

typedef struct el_layer_hparams {
    int32_t n_head;
    int32_t n_head_kv;
    int32_t n_ff;
    bool sliding; /* attention sees only the last `window` positions */
} el_layer_hparams;

typedef struct el_hparams {
    int32_t n_vocab;
    int32_t n_ctx_train; /* 0: the file does not say */
    int32_t n_embd;
    int32_t n_layer;
    int32_t head_k; /* width of a key head */
    int32_t head_v;
    int32_t n_rot; /* how many of head_k rotate */
    int32_t n_expert;
    int32_t n_expert_used;
    int32_t window; /* positions a sliding layer sees, itself included; 0: none slides */
    float norm_eps;
    float attn_scale;         /* of q . k */
    float logit_softcap;      /* 0: none */
    float expert_scale;       /* of the routed experts' sum; 1: none */
    float attn_temp_scale;    /* 0: none; see el_graph_attn_temperature */
    int32_t attn_temp_length; /* positions per step of that scale */

    el_rope_scaling rope_scaling;
    float rope_base;
    float rope_base_sliding;
    float rope_factor; /* context is stretched by this much; 1: not at all */
    int32_t rope_ctx_orig;
    float rope_attn_factor; /* of the rotated values */
    float yarn_beta_fast, yarn_beta_slow;

    el_layer_hparams *layers; /* n_layer of them */
} el_hparams;

struct el_arch;

/* Reads and checks; on failure nothing is left allocated. n_vocab: of the tokenizer or 0. */
edgellm_status el_hparams_read(el_hparams *hp, const el_gguf *file, const struct el_arch *arch, int32_t n_vocab);
void el_hparams_clear(el_hparams *hp);

/* For the families' own keys: "ARCH.name" within lo .. hi; absent or 0 leaves *value. */
edgellm_status el_hparams_i32(const el_gguf *file, const struct el_arch *arch, const char *name, int32_t lo, int32_t hi,
                              int32_t *value);
edgellm_status el_hparams_f32(const el_gguf *file, const struct el_arch *arch, const char *name, float lo, float hi,
                              float *value);

#endif
