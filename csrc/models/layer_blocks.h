/* layer_blocks.h - what layers are made of. A mixer lets positions see each other (attention, a recurrence, a
 * convolution) and brings everything that belongs to it: the checks of its numbers, its weights, its memory and its
 * graph. The other blocks work on each row alone. */
#ifndef EL_LAYER_BLOCKS_H
#define EL_LAYER_BLOCKS_H

#include "model.h"

struct el_graph;

typedef struct el_mixer {
    const char *name;
    /* Checks the layer's numbers and sets the widths of its memory (k_width, v_width, conv_width, state_width). */
    edgellm_status (*hparams)(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch);
    /* What becomes el_layer.mixer, allocated by el_load_memory. */
    void *(*load)(el_loader *l, const el_layer_hparams *layer);
    /* x: [n_embd, rows], normed. The result [n_embd, rows] is not yet added to the residual; NULL when
     * el_nobody_reads(g, layer): then only the layer's memory had to be brought up to date. */
    struct ggml_tensor *(*build)(struct el_graph *g, int32_t layer, struct ggml_tensor *x);
} el_mixer;

extern const el_mixer el_mixer_attention;

/* ---- block_attention.c -------------------------------------------------------------------- */

typedef struct el_attention { /* weights */
    el_linear q, k, v, out;
    el_norm q_norm, k_norm;    /* [head], [head, n_head] or [head * n_head] */
    struct ggml_tensor *sinks; /* [n_head] or NULL */
    el_linear gate;            /* of the result, [n_head] or [n_head * head_v] wide; w NULL: none */
    el_norm sub_norm;          /* of the result; w NULL: none */
} el_attention;

edgellm_status el_attention_hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch);
void *el_attention_load(el_loader *l, const el_layer_hparams *layer);
/* attn_q, attn_k and attn_v, or the rows of attn_qkv. */
void el_load_qkv(el_loader *l, el_attention *w, int64_t n_q, int64_t n_k, int64_t n_v);

/* The pieces, for families whose attention differs in one of them. q: [head_k, n_head, rows] */
struct ggml_tensor *el_build_rope(struct el_graph *g, const el_layer_hparams *lh, struct ggml_tensor *x);
/* A norm of each head or of all together, as the shape of its weight says. x: [head, n_head, rows] */
struct ggml_tensor *el_build_head_norm(struct el_graph *g, struct ggml_tensor *x, const el_norm *norm);
/* Writes this step's rows, [k_width, rows] and [v_width, rows] (v NULL: K's rows hold it), to the layer's cache. */
void el_build_cache_write(struct el_graph *g, int32_t layer, struct ggml_tensor *k, struct ggml_tensor *v);
/* What q sees of the cache of layer lh.kv_of: [head_v * n_head, rows]. sinks: [n_head] or NULL. */
struct ggml_tensor *el_build_attend(struct el_graph *g, int32_t layer, struct ggml_tensor *q,
                                    struct ggml_tensor *sinks);
/* What the result y passes through before the output projection, where family and file have it: times a function of
 * attn_gate's product with what attention read, x. n: width of y */
el_linear el_load_attn_gate(el_loader *l, int32_t n_head, int64_t n);
struct ggml_tensor *el_build_attn_gate(struct el_graph *g, const el_linear *linear, int32_t n_head,
                                       struct ggml_tensor *x, struct ggml_tensor *y);

/* ---- block_mamba.c, block_shortconv.c ----------------------------------------------------- */

extern const el_mixer el_mixer_mamba, el_mixer_mamba2, el_mixer_mamba_plamo2;
extern const el_mixer el_mixer_shortconv; /* LFM2's; the family sets ssm.d_conv */

struct el_mamba;
/* The pieces of Mamba 2, for layers that hold it beside something else. */
edgellm_status el_mamba2_hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch);
struct el_mamba *el_mamba2_load(el_loader *l);
struct ggml_tensor *el_build_mamba(struct el_graph *g, int32_t layer, const struct el_mamba *w, struct ggml_tensor *x);

/* ---- block_mla.c -------------------------------------------------------------------------- */

extern const el_mixer el_mixer_mla;
/* Reads and checks hp->mla and sets attn_scale: a family whose layers mix this way calls it in its hparams. */
edgellm_status el_mla_keys(el_hparams *hp, const el_gguf *file, const el_arch *arch);

/* ---- block_delta.c, block_kda.c ----------------------------------------------------------- */

extern const el_mixer el_mixer_delta; /* the gated delta rule, with the numbers of hp.ssm */
extern const el_mixer el_mixer_kda;   /* the same with a decay for each channel */
/* Gives el_mixer_kda and its numbers to the layers whose attention.head_count_kv is 0. */
edgellm_status el_kda_keys(el_hparams *hp, const el_gguf *file, const el_arch *arch);

/* ---- block_ffn.c, block_experts.c --------------------------------------------------------- */

/* act(gate) * up, or act(up) when gate is NULL. */
struct ggml_tensor *el_build_gated(struct el_graph *g, struct ggml_tensor *gate, struct ggml_tensor *up);
/* The same with act(gate), or gate, at most limit and up within -limit .. limit; 0: no limit. */
struct ggml_tensor *el_build_gated_within(struct el_graph *g, struct ggml_tensor *gate, struct ggml_tensor *up,
                                          float limit);
struct ggml_tensor *el_build_ffn(struct el_graph *g, const el_ffn *w, struct ggml_tensor *x);
/* The dense block or the mixture of that layer. x: [n_embd, rows], normed */
struct ggml_tensor *el_build_feed_forward(struct el_graph *g, int32_t layer, struct ggml_tensor *x);
struct ggml_tensor *el_build_experts(struct el_graph *g, int32_t layer, struct ggml_tensor *x);

/* The pieces of a mixture, for families that put them together otherwise. */
typedef struct el_choice {
    struct ggml_tensor *ids;     /* I32 [n_used, rows] */
    struct ggml_tensor *weights; /* F32 [1, n_used, rows] */
} el_choice;

/* From the router's numbers, [n_expert, rows]. */
el_choice el_build_choice(struct el_graph *g, const el_experts *w, struct ggml_tensor *logits);
/* The chosen experts' weighted sum, without the shared ones. x: [n_embd, rows], normed */
struct ggml_tensor *el_build_mixture(struct el_graph *g, const el_experts *w, struct ggml_tensor *x, el_choice choice);

/* ---- decoder.c ---------------------------------------------------------------------------- */

struct ggml_tensor *el_build_embeddings(struct el_graph *g); /* [n_embd, rows] */
/* One generic layer; NULL when only its memory was wanted. */
struct ggml_tensor *el_build_layer(struct el_graph *g, int32_t layer, struct ggml_tensor *x);
/* From the last layer on, only the rows whose results are asked for. Any [n, rows]. */
struct ggml_tensor *el_keep_outputs(struct el_graph *g, int32_t layer, struct ggml_tensor *x);
void el_build_head(struct el_graph *g, struct ggml_tensor *x); /* final norm and logits */
void el_build_decoder(struct el_graph *g);

/* ---- pooling.c ---------------------------------------------------------------------------- */

/* Embeddings of rows, or one for each sequence, or the classifier's scores: what the graph's options ask for.
 * x: [n_embd, n_out], normed */
struct ggml_tensor *el_build_pooling(struct el_graph *g, struct ggml_tensor *x);
edgellm_status el_pooling_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch);
void el_pooling_load(el_loader *l);

#endif
