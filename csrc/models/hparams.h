/* hparams.h - the numbers of a model, read from the file's metadata and checked once.
 * Everything later (tensor shapes, graphs, caches) trusts them: a ggml assertion must not be reachable from a file. */
#ifndef EL_HPARAMS_H
#define EL_HPARAMS_H

#include "gguf.h"

enum {
    EL_MAX_LAYERS = 1024,
    EL_MAX_HEAD = 1 << 12,
    EL_MAX_HEADS = 1 << 12,
    EL_MAX_FF = 1 << 20,
    EL_MAX_WIDTH = 1 << 20
};

/* Which two values of a head rotate together. */
typedef enum el_rope_layout {
    EL_ROPE_ADJACENT = 0, /* x[2i], x[2i+1]: LLaMA's own order */
    EL_ROPE_HALVES,       /* x[i], x[i + n/2]: GPT-NeoX's */
    EL_ROPE_OFF           /* positions come from a table, from ALiBi or from nowhere */
} el_rope_layout;

typedef enum el_rope_scaling { EL_ROPE_NONE = 0, EL_ROPE_LINEAR, EL_ROPE_YARN, EL_ROPE_LONG } el_rope_scaling;

/* What a sliding layer sees of the w positions around it. */
typedef enum el_window {
    EL_WINDOW_LAST = 0, /* the last w, itself included */
    EL_WINDOW_CHUNK,    /* those of its own chunk of w (Llama 4) */
    EL_WINDOW_AROUND    /* w / 2 to either side; only where attention is not causal (ModernBERT) */
} el_window;

/* How the router's numbers become the experts' weights. The values are those of expert_gating_func in files. */
typedef enum el_gating {
    EL_GATING_NONE = 0,
    EL_GATING_SOFTMAX = 1,
    EL_GATING_SIGMOID = 2,
    EL_GATING_SOFTMAX_CHOSEN = 3, /* softmax over the chosen ones alone */
    EL_GATING_SQRT_SOFTPLUS = 4,
    EL_GATING_SIGMOID_CHOSEN = 64 /* chosen by the router's numbers as they are (Llama 4); no file says so */
} el_gating;

struct el_mixer;

typedef struct el_layer_hparams {
    const struct el_mixer *mixer; /* what mixes positions: attention, a recurrence, ...; NULL: nothing does */
    int32_t n_head;
    int32_t n_head_kv;
    int32_t head_k; /* width of a key head */
    int32_t head_v;
    int32_t n_rot; /* how many of head_k rotate; 0: none, positions are not encoded here */
    int32_t n_ff;  /* of the dense feed-forward block; 0: there is none */
    bool experts;  /* a mixture instead of the dense block */
    bool sliding;  /* attention sees only part of the positions, see el_window */
    float rope_base;
    float rope_factor;     /* positions are divided by this; 1: not at all */
    bool rope_unstretched; /* rotates as if no scaling and no factors were named */
    bool qk_norm_plain;    /* queries and keys are normed without weights */
    float swiglu_limit;    /* of the gate and of up before they are multiplied, in dense blocks; 0: none */
    float swiglu_limit_experts;
    int32_t kv_of;                   /* the layer whose cache rows are read; its own number unless layers share */
    int32_t k_width, v_width;        /* floats of a cache row, set by the mixer; 0: this layer writes none */
    int64_t conv_width, state_width; /* floats of a sequence's recurrent memory; 0: none */
} el_layer_hparams;

typedef struct el_expert_hparams {
    int32_t n;      /* 0: the model is dense */
    int32_t n_used; /* per row */
    int32_t n_ff;
    int32_t n_latent;                /* width of the experts' own space; 0: n_embd */
    int32_t n_groups, n_groups_used; /* the choice is first among groups; 0 or 1: it is not */
    int32_t n_leading_dense;         /* layers without experts at the start */
    el_gating gating;
    bool normalise;    /* the chosen weights are scaled to sum to 1 */
    bool weigh_inputs; /* weights multiply what goes into the experts, not what comes out (Llama 4) */
    float scale;       /* of the sum; 1: none */
} el_expert_hparams;

typedef struct el_mla_hparams { /* latent attention, see block_mla.c */
    int32_t q_rank, kv_rank;    /* widths of what queries, and keys and values, are made from; q_rank 0: of x itself */
    int32_t head_k, head_v;     /* of a whole key and value, as they would be without a latent */
    int32_t n_rope;             /* of head_k: the part that all heads share */
    bool absorbed;              /* the cache holds latents */
} el_mla_hparams;

typedef struct el_ssm_hparams { /* state-space and linear-attention blocks; 0 where the file has no such key */
    int32_t d_inner, d_state, d_conv, dt_rank, n_group;
    bool norm_dt_b_c;
} el_ssm_hparams;

typedef struct el_hparams {
    int32_t n_vocab;
    int32_t n_ctx_train; /* 0: the file does not say */
    int32_t n_positions; /* rows of a table of positions, which limits the context; 0: there is none */
    int32_t n_embd;
    int32_t n_layer;
    int32_t n_layer_stored; /* in the file; later ones repeat them (Nanbeige); 0: all */
    int32_t n_ff;           /* of the first layer that has a dense block */
    int32_t window;         /* positions a sliding layer sees, see el_window; 0: none slides */
    el_window window_kind;
    bool causal;           /* a row sees only positions up to its own */
    bool parallel;         /* see el_traits */
    bool layer_norm;       /* the traits' unless the file says otherwise, like activation */
    int32_t activation;    /* el_activation; the traits' unless the file says otherwise */
    int32_t pooling;       /* edgellm_pooling that the file names; EDGELLM_POOLING_MODEL: none */
    bool rank_of_mean;     /* a classifier reads the mean of all rows instead of one row */
    int32_t n_classes;     /* that the classifier scores */
    int32_t n_embd_out;    /* width of an embedding */
    int32_t n_encoder;     /* layers that read a source text; 0: the model has no encoder beside a decoder */
    int32_t decoder_start; /* token that the decoder begins with */
    int32_t n_buckets;     /* of relative positions (T5) */
    int32_t rescale_every; /* after so many layers the residual is halved (RWKV 6); 0: never */
    el_expert_hparams expert;
    el_mla_hparams mla;
    el_ssm_hparams ssm;

    float norm_eps;
    float attn_scale;       /* of q . k */
    float attn_softcap;     /* 0: none */
    float attn_value_scale; /* of attention's result; 1: none */
    float kda_bound;        /* negative: lower bound of delta attention's log decay; 0: none */
    float attn_clamp;       /* of q, k and v; 0: none */
    float alibi_max_bias;   /* 0: none */
    float logit_softcap;    /* 0: none */
    float embedding_scale;  /* 1: none, like the others */
    float residual_scale;   /* of each block's result before it is added */
    float logit_scale;
    float attn_temp_scale;    /* 0: none; see el_graph_attn_temperature */
    int32_t attn_temp_length; /* positions per step of that scale */
    int32_t attn_temp_offset; /* added to the position */
    bool attn_temp_unrotated; /* only in layers that do not rotate */

    el_rope_layout rope_layout;
    el_rope_scaling rope_scaling;
    float rope_base;
    float rope_base_sliding;
    float rope_factor; /* context is stretched by this much; 1: not at all */
    int32_t rope_ctx_orig;
    float rope_attn_factor; /* of the rotated values */
    float yarn_ext_factor, yarn_beta_fast, yarn_beta_slow;

    el_layer_hparams *layers; /* n_layer of them */
} el_hparams;

struct el_arch;

/* Reads and checks; on failure nothing is left allocated. n_vocab: of the tokenizer or 0. */
edgellm_status el_hparams_read(el_hparams *hp, const el_gguf *file, const struct el_arch *arch, int32_t n_vocab);
void el_hparams_clear(el_hparams *hp);

/* ---- keys.c: for the families' own keys ---------------------------------------------------
 * "ARCH.name" within lo .. hi; absent or 0 leaves the value as it is. */

edgellm_status el_key_i32(const el_gguf *file, const struct el_arch *arch, const char *name, int32_t lo, int32_t hi,
                          int32_t *value);
edgellm_status el_key_f32(const el_gguf *file, const struct el_arch *arch, const char *name, float lo, float hi,
                          float *value);
edgellm_status el_key_bool(const el_gguf *file, const struct el_arch *arch, const char *name, bool *value);
/* One number for all layers or an array with one for each. `at`: offsetof an int32_t in el_layer_hparams. zero: a 0 in
 * the file is a value, not "leave it". */
edgellm_status el_key_layers(el_hparams *hp, const el_gguf *file, const struct el_arch *arch, const char *name,
                             int32_t lo, int32_t hi, size_t at, bool zero);
/* The same for floats; 0 is "leave it". */
edgellm_status el_key_layers_f32(el_hparams *hp, const el_gguf *file, const struct el_arch *arch, const char *name,
                                 float lo, float hi, size_t at);
/* Layers for which the file has a router, blk.N.ffn_gate_inp, are mixtures, the others dense. */
void el_experts_where_routed(el_hparams *hp, const el_gguf *file);
/* Models that see have a multi-section rope, which in a text is rope on halves. */
edgellm_status el_key_sections(el_hparams *hp, const el_gguf *file, const struct el_arch *arch);
/* Layers whose attention.head_count_kv is 0 get that mixer, the others keep theirs. */
edgellm_status el_key_mixers(el_hparams *hp, const el_gguf *file, const struct el_arch *arch,
                             const struct el_mixer *without_heads);
/* Layers that the file calls recurrent get that mixer; without that key all but every n-th. */
edgellm_status el_key_recurrent(el_hparams *hp, const el_gguf *file, const struct el_arch *arch, int32_t interval,
                                const struct el_mixer *recurrent, const struct el_mixer *others);
/* ssm.*: hp->ssm. */
edgellm_status el_key_ssm(el_hparams *hp, const el_gguf *file, const struct el_arch *arch);
/* EFORMAT unless value is positive. */
edgellm_status el_key_require(int32_t value, const struct el_arch *arch, const char *name);

/* rope_params.c, called by el_hparams_read */
edgellm_status el_hparams_rope(el_hparams *hp, const el_gguf *file, const struct el_arch *arch);

#endif
