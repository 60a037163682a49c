/* graph.h - one step of a model as a ggml graph, and the blocks that families build it from.
 * A graph depends on the shape of a step alone (rows, outputs, visible cache slots), never on its tokens, so the engine
 * keeps it and only fills the inputs anew. It says nothing of threads or SIMD: rows of K and V are written to the slots
 * that `in.slots` names, and attention reads the pool by block tables (our backend) or whole under a mask (others).
 *
 * Shapes are ggml's: the first is the fastest. "rows" are the tokens of the step. */
#ifndef EL_GRAPH_H
#define EL_GRAPH_H

#include "model.h"

struct ggml_cgraph;

typedef struct el_graph_shape {
    int32_t n_rows;   /* tokens in the step */
    int32_t n_out;    /* rows whose logits are wanted; may be 0 */
    int32_t n_kv;     /* cache slots that attention looks at, from slot 0 */
    int32_t n_seqs;   /* sequences in the step */
    int32_t instance; /* plans of one shape that differ in memory alone */
} el_graph_shape;

typedef struct el_graph_inputs {
    struct ggml_tensor *tokens;       /* I32 [n_rows] */
    struct ggml_tensor *positions;    /* I32 [n_rows] */
    struct ggml_tensor *slots;        /* I64 [n_rows]: where each row's K and V go */
    struct ggml_tensor *outputs;      /* I32 [n_out]: which rows; NULL when n_out is 0 */
    struct ggml_tensor *mask;         /* for other backends than ours: F16 [n_kv, n_rows], 0 visible, -inf not */
    struct ggml_tensor *mask_sliding; /* the same for sliding layers; NULL if there are none */
    struct ggml_tensor
        *ranges; /* I32 [4, n_rows]: first visible position, one past the last, sequence of the step, 0 */
    struct ggml_tensor *ranges_sliding;
    struct ggml_tensor *tables;    /* I32 [n_kv / 32, n_seqs]: blocks of each sequence */
    struct ggml_tensor *attn_temp; /* F32 [1, 1, n_rows]: scale of the queries; NULL without */
} el_graph_inputs;

typedef struct el_kv_tensors { /* one layer's share of the cache pool */
    struct ggml_tensor *k;     /* [n_head_kv * head_k, n_slots] */
    struct ggml_tensor *v;     /* [n_head_kv * head_v, n_slots] */
} el_kv_tensors;

typedef struct el_graph {
    const el_model *model;
    const el_kv_tensors *kv; /* one per layer */
    el_graph_shape shape;
    struct ggml_context *ctx;
    struct ggml_cgraph *nodes;
    el_graph_inputs in;
    struct ggml_tensor *logits; /* F32 [n_vocab, n_out]; NULL when n_out is 0 */
} el_graph;

/* Bytes of memory that the headers of a graph need, at most. */
size_t el_graph_memory(const el_model *model);

/* Builds a step of that shape into `memory` (el_graph_memory bytes). */
edgellm_status el_graph_build(el_graph *g, const el_model *model, const el_kv_tensors *kv, el_graph_shape shape,
                              void *memory);
void el_graph_clear(el_graph *g);

/* 1 + s * ln(1 + floor(position / length)): Mistral 3 and Llama 4 scale queries of far positions. */
float el_graph_attn_temperature(const el_hparams *hp, int32_t position);

/* ---- blocks: each takes and returns [n_embd, rows] unless it says otherwise -------------- */

struct ggml_tensor *el_build_norm(el_graph *g, struct ggml_tensor *x, struct ggml_tensor *weight);
struct ggml_tensor *el_build_linear(el_graph *g, struct ggml_tensor *w, struct ggml_tensor *bias,
                                    struct ggml_tensor *x);
struct ggml_tensor *el_build_attention(el_graph *g, int32_t layer, struct ggml_tensor *x); /* writes the cache too */
struct ggml_tensor *el_build_ffn(el_graph *g, int32_t layer, struct ggml_tensor *x);
struct ggml_tensor *el_build_experts(el_graph *g, int32_t layer, struct ggml_tensor *x);

/* The usual stack: embeddings, layers of attention and feed-forward with residual sums, norm, head. */
void el_build_decoder(el_graph *g);

#endif
