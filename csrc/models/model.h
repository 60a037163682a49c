/* model.h - an opened model: mapped file, vocabulary, numbers, and its weights as ggml tensors that point into the map.
 * Immutable after el_model_open; any number of engines and threads may read it. */
#ifndef EL_MODEL_H
#define EL_MODEL_H

#include "arch.h"
#include "gguf.h"
#include "tokenizer.h"

struct ggml_context;
struct ggml_tensor;

struct edgellm_vocab {
    el_gguf *file; /* NULL when a model owns it */
    el_tokenizer *tokenizer;
};

/* Weights of one layer; NULL where the file has none and the family does not need it. w: matrix, b: bias. */
typedef struct el_layer {
    struct ggml_tensor *attn_norm, *attn_post_norm;
    struct ggml_tensor *wq, *bq, *wk, *bk, *wv, *bv, *wo, *bo;
    struct ggml_tensor *q_norm, *k_norm;
    struct ggml_tensor *ffn_norm, *ffn_post_norm;
    struct ggml_tensor *gate, *gate_b, *up, *up_b, *down, *down_b;
    struct ggml_tensor *router, *gate_exps, *up_exps, *down_exps; /* experts: [in, out, n_expert] */
} el_layer;

typedef struct edgellm_model {
    el_gguf *file;
    const el_arch *arch;
    el_hparams hp;
    struct edgellm_vocab vocab;

    struct ggml_context *weights; /* headers of the tensors below; their data lies in the map */
    void *weights_memory;
    struct ggml_tensor *token_embd, *output_norm, *output;
    struct ggml_tensor *rope_freqs; /* divides each angle; [n_rot / 2] */
    el_layer *layers;
    uint64_t n_params, n_bytes;
} el_model;

edgellm_status el_model_open(el_model **out, const char *path_utf8);
void el_model_free(el_model *model);

#endif
