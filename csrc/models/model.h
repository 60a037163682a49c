/* model.h - an opened model: mapped file, vocabulary, numbers, and its weights as ggml tensors that point into the map.
 * Immutable after el_model_open; any number of engines and threads may read it. */
#ifndef EL_MODEL_H
#define EL_MODEL_H

#include "arch.h"
#include "gguf.h"
#include "tokenizer.h"
#include "weights.h"

struct ggml_context;

struct edgellm_vocab {
    el_gguf *file; /* NULL when a model owns it */
    el_tokenizer *tokenizer;
};

/* The dense feed-forward block. */
typedef struct el_ffn {
    el_linear gate, up, down;      /* gate.w NULL: ungated */
    struct ggml_tensor *act_scale; /* divides the activation's result (MPT, AWQ); NULL: none */
    el_norm sub_norm;              /* of what goes into down; w NULL: none */
    float limit;                   /* of gate and up before they are multiplied; 0: none */
} el_ffn;

typedef struct el_experts {
    el_linear router;
    struct ggml_tensor *router_scale; /* [n_embd]; NULL: none */
    struct ggml_tensor *choice_bias;  /* added to the router's probabilities for the choice alone; NULL: none */
    el_linear gate, up, down;         /* [in, out, n] and biases [out, n] */
    float limit;                      /* as in el_ffn */
    el_linear into, back;            /* the experts' own, narrower space; w NULL: they read and write rows themselves */
    el_ffn shared;                   /* up.w NULL: none */
    struct ggml_tensor *shared_gate; /* [n_embd]; NULL: the shared experts count fully */
} el_experts;

/* Weights of one layer; NULL where the file has none and the family does not need it. */
typedef struct el_layer {
    el_norm attn_norm, attn_post_norm, ffn_norm, ffn_post_norm;
    void *mixer; /* what the layer's mixer has loaded, see layer_blocks.h */
    el_ffn ffn;
    el_experts *experts; /* NULL: dense */
    void *own;           /* of the family */
} el_layer;

typedef struct edgellm_model {
    el_gguf *file;
    const el_arch *arch;
    el_hparams hp;
    struct edgellm_vocab vocab;

    struct ggml_context *weights; /* headers of the tensors below; their data lies in the map */
    void *weights_memory;
    struct ggml_tensor *token_embd, *position_embd, *token_types;
    el_norm embd_norm, output_norm;
    el_norm source_norm;    /* of an encoder's result (T5) */
    el_linear output;       /* w NULL: the model gives embeddings, not logits */
    el_linear dense[2];     /* of pooled embeddings, one after the other; w NULL: none */
    el_linear cls, cls_out; /* classifier of rerankers */
    el_norm cls_norm;
    struct ggml_tensor *rope_freqs;             /* divides each angle; [n_rot / 2]; NULL: by 1 */
    struct ggml_tensor *rope_long, *rope_short; /* the same, for contexts beyond rope_ctx_orig and within it */
    el_layer *layers;
    void *own;    /* of the family */
    void **owned; /* memory that weights.c gave out */
    int32_t n_owned, cap_owned;
    uint64_t n_params, n_bytes;
} el_model;

edgellm_status el_model_open(el_model **out, const char *path_utf8);
void el_model_free(el_model *model);

#endif
