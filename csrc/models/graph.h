/* graph.h - one step of a model as a ggml graph.
 * A graph depends on the shape of a step alone (rows, outputs, visible cache slots), never on its tokens, so the engine
 * keeps it and only fills the inputs anew. It says nothing of threads or SIMD: rows of K and V are written to the slots
 * that `in.slots` names, and attention reads the pool by block tables (our backend) or whole under a mask (others).
 *
 * Shapes are ggml's: the first is the fastest. "rows" are the tokens of the step; those of one sequence are adjacent.
 */
#ifndef EL_GRAPH_H
#define EL_GRAPH_H

#include "adapter.h"
#include "model.h"

struct ggml_cgraph;

typedef struct el_graph_shape {
    int32_t n_rows;       /* tokens in the step */
    int32_t n_out;        /* rows whose results are wanted; may be 0 */
    int32_t n_kv;         /* cache slots that attention looks at, from slot 0 */
    int32_t n_kv_sliding; /* the same of sliding layers, whose cache may be another, shorter one; 0: none slides */
    int32_t n_seqs;       /* sequences in the step */
    bool encode;          /* rows are source texts, for the encoder beside the decoder */
    int32_t instance;     /* plans of one shape that differ in memory alone */
} el_graph_shape;

/* How positions turn into angles in an engine: the model's way, or another that the caller has asked for. */
typedef struct el_rope {
    bool stretch; /* instead of what the file says */
    float base;   /* 0: each layer's own */
    float factor, ext_factor, attn_factor;
    float ntk; /* the base times this to the power of n_rot / (n_rot - 2); 1: as it is */
    int32_t ctx_orig;
} el_rope;

typedef struct el_graph_options { /* the same for all steps of an engine */
    bool long_context;            /* the context exceeds what rope was trained for: rope_long instead of rope_short */
    bool embeddings;              /* instead of logits */
    int32_t pooling;              /* edgellm_pooling, of embeddings; never EDGELLM_POOLING_MODEL */
    el_rope rope;
    el_adapters adapters;
} el_graph_options;

typedef struct el_graph_inputs {
    struct ggml_tensor *tokens;        /* I32 [n_rows] */
    struct ggml_tensor *positions;     /* I32 [n_rows] */
    struct ggml_tensor *slots;         /* I64 [n_rows]: where each row's K and V go */
    struct ggml_tensor *slots_sliding; /* the same for sliding layers; NULL if there are none, like all of theirs */
    struct ggml_tensor *outputs;       /* I32 [n_out]: which rows; NULL when n_out is 0 */
    struct ggml_tensor *mask;          /* for other backends than ours: F16 [n_kv, n_rows]; -inf hidden, else 0 or, with
                                          ALiBi, minus the distance */
    struct ggml_tensor *mask_sliding;  /* [n_kv_sliding, n_rows] */
    struct ggml_tensor
        *ranges; /* I32 [4, n_rows]: first visible position, one past the last, sequence of the step, own position */
    struct ggml_tensor *ranges_sliding;
    struct ggml_tensor *tables;         /* I32 [n_kv / 32, n_seqs]: blocks of each sequence */
    struct ggml_tensor *tables_sliding; /* the same; entries before what is visible name no block of the sequence */
    struct ggml_tensor *runs; /* I32 [4, n_seqs]: first row, number of rows, slot of the recurrent memory that is
                                 read (-1: the sequence begins), slot that is written */
    struct ggml_tensor *source_ranges; /* I32 [4, n_rows] and [n_kv / 32, n_seqs]: the same for the source text; NULL */
    struct ggml_tensor *source_tables; /* unless a decoder reads one */
    struct ggml_tensor *types;         /* I32 [n_rows]: 0, or 1 in a second text; NULL unless the model marks it */
    struct ggml_tensor *attn_temp;     /* F32 [1, 1, n_rows]: scale of the queries; NULL without */
} el_graph_inputs;

/* One layer's share of the engine's memory; NULL where it keeps none. */
typedef struct el_layer_memory {
    struct ggml_tensor *k;     /* [k_width, n_slots] of the KV pool */
    struct ggml_tensor *v;     /* [v_width, n_slots] */
    struct ggml_tensor *conv;  /* F32 [conv_width, n_states] */
    struct ggml_tensor *state; /* F32 [state_width, n_states] */
} el_layer_memory;

typedef struct el_graph {
    const el_model *model;
    const el_layer_memory *memory; /* one per layer */
    el_graph_shape shape;
    el_graph_options options;
    struct ggml_context *ctx;
    struct ggml_cgraph *nodes;
    el_graph_inputs in;
    struct ggml_tensor *result;  /* F32 [n_vocab or width of embeddings, n_out; n_seqs when pooled]; NULL: n_out is 0 */
    struct ggml_tensor *carried; /* of the family: what its first layer leaves for the later ones */
} el_graph;

/* Bytes of memory that the headers of a graph need, at most. */
size_t el_graph_memory(const el_model *model, const el_graph_options *options);
/* Builds the graph in `memory`, which must stay while it is used. */
edgellm_status el_graph_build(el_graph *g, const el_model *model, const el_layer_memory *layers, el_graph_shape shape,
                              el_graph_options options, void *memory);
void el_graph_clear(el_graph *g);
/* From edgellm_engine_options to what the graphs use. EINVAL: a number is out of range. */
edgellm_status el_rope_resolve(el_rope *rope, const el_hparams *hp, const struct edgellm_engine_options *o,
                               int32_t n_ctx);

/* Scale of a query by its position: 1 + s * ln(1 + floor((position + offset) / length)). */
float el_graph_attn_temperature(const el_hparams *hp, int32_t position);
/* What a row at `position` of a sequence that will have `length` tokens sees: first .. *end - 1. */
int32_t el_graph_first_visible(const el_hparams *hp, bool causal, bool sliding, int32_t position, int32_t length,
                               int32_t *end);

/* ---- small blocks ------------------------------------------------------------------------- */

/* RMSNorm or LayerNorm as the family has it, times weight, plus bias. Of each head when x is [head, n_head, rows]. */
struct ggml_tensor *el_build_norm(el_graph *g, struct ggml_tensor *x, const el_norm *norm);
struct ggml_tensor *el_build_rms_norm(el_graph *g, struct ggml_tensor *x, struct ggml_tensor *weight);
/* w x + b. Every product with a weight goes through here (or el_build_linear_id, for experts). */
struct ggml_tensor *el_build_linear(el_graph *g, const el_linear *linear, struct ggml_tensor *x);
/* Rows of a table of embeddings. */
struct ggml_tensor *el_build_lookup(el_graph *g, struct ggml_tensor *table, struct ggml_tensor *ids);
/* x: [n_in, n_used or 1, rows], ids: I32 [n_used, rows]; result [n_out, n_used, rows] */
struct ggml_tensor *el_build_linear_id(el_graph *g, const el_linear *experts, struct ggml_tensor *x,
                                       struct ggml_tensor *ids);
struct ggml_tensor *el_build_scale(el_graph *g, struct ggml_tensor *x, float factor); /* x itself when factor is 1 */
/* True in the last layer of a step that wants no results. */
bool el_nobody_reads(const el_graph *g, int32_t layer);
/* Makes sure that t is computed, and now: for nodes that change memory. */
void el_build_now(el_graph *g, struct ggml_tensor *t);

#endif
