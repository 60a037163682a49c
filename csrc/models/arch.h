/* arch.h - what distinguishes one architecture family from another.
 * A family is one file in csrc/models/families: traits for the generic decoder, and functions only where traits are not
 * enough. The build finds it by itself. docs/adding-a-model.md walks through a new one. */
#ifndef EL_ARCH_H
#define EL_ARCH_H

#include "hparams.h"

typedef enum el_activation {
    EL_ACT_SILU = 0,
    EL_ACT_GELU, /* tanh form */
    EL_ACT_GELU_ERF,
    EL_ACT_RELU,
    EL_ACT_RELU_SQUARED,
    EL_ACT_SWIGLU_OAI /* gpt-oss: clamped, 1.702 inside the sigmoid, up + 1 */
} el_activation;

/* Where a layer's norms stand. */
typedef enum el_norm_place {
    EL_NORM_BEFORE = 0, /* of each block's input */
    EL_NORM_AFTER,      /* of each block's output, before the residual sum (OLMo 2) */
    EL_NORM_BOTH,
    EL_NORM_SUM /* of the sum (BERT): attn_output_norm, layer_output_norm */
} el_norm_place;

typedef enum el_qk_norm {
    EL_QK_NORM_NONE = 0,
    EL_QK_NORM_OPTIONAL, /* where the file has the weights */
    EL_QK_NORM           /* required */
} el_qk_norm;

/* What attention's result is multiplied by: a function of attn_gate's product, one number per head or per element. */
typedef enum el_attn_gate { EL_ATTN_GATE_NONE = 0, EL_ATTN_GATE_SIGMOID, EL_ATTN_GATE_SOFTPLUS } el_attn_gate;

/* Which keys of a mixture a family defines; others are left alone, whatever a file says. */
enum {
    EL_EXPERT_KEYS = 1, /* all of them, and groups */
    EL_EXPERT_GATING = 2,
    EL_EXPERT_NORMALISE = 4,
    EL_EXPERT_SCALE = 8,
    EL_EXPERT_LEADING = 16
};

/* Zero is LLaMA: RMSNorm before each block, gated SiLU, rope on adjacent pairs, residual sums one after the other. */
typedef struct el_traits {
    el_rope_layout rope;
    el_activation activation;
    bool limit_before; /* swiglu_limit holds for the gate before the activation, not after it */
    bool ungated;      /* up, activation, down; no gate */
    bool fused_gate;   /* ffn_up holds gate and up, one after the other */
    bool any_gate;     /* gated, fused or not, or ungated, as the file has it */
    bool layer_norm;   /* LayerNorm instead of RMSNorm; with a bias where the file has one */
    bool no_norms;     /* norms without weights (OLMo) */
    el_norm_place norm_place;
    float norm_eps;       /* of files that do not say; 0: they must */
    float post_norm_eps;  /* of norms after a block, if it differs */
    const char *ffn_norm; /* tensor of the norm before the feed-forward block, if it is not "ffn_norm" */
    const char *attn_post_norm, *ffn_post_norm; /* likewise, "post_attention_norm" and "post_ffw_norm" */
    bool sub_norms;                             /* of what goes into the output and the down projection (BitNet) */
    bool attn_norm_optional;                    /* in layers that have no attention (Deci) */
    bool first_unnormed;                        /* the first layer has no norm before attention (ModernBERT) */
    const char *embd_norm;                      /* tensor of a norm of the embeddings; NULL: there is none */
    bool embd_norm_plain;                       /* the embeddings are normed without weights */
    const char *output_norm;                    /* NULL: "output_norm" */
    bool no_layers;                             /* the family loads its layers by itself */
    bool no_output_norm;                        /* there is none */

    el_qk_norm qk_norm; /* of queries and keys: per head or over all heads, as the weights' shape says */
    bool qk_norm_after_rope;
    bool v_norm;       /* values are normed per head, without weights; a missing attn_v means that keys are values */
    bool parallel;     /* attention and feed-forward read the same x and are added together; a missing ffn_norm means
                          that both read the same norm's output */
    bool parallel_key; /* the file says so by use_parallel_residual (GPT-NeoX) */
    bool token_types;  /* a row of token_types is added to the embeddings: the first, in a second text the second (BERT)
                        */
    bool position_table; /* position_embd is added to the embeddings */
    bool alibi;          /* attention.max_alibi_bias (Press et al. 2022) */
    bool sinks;          /* attn_sinks: one more score per head, without a value (gpt-oss) */
    bool some_sinks;     /* in layers where the file has them */
    el_attn_gate attn_gate;
    bool scale_embeddings;   /* by sqrt(n_embd) */
    bool scale_keys;         /* the file may say embedding_scale, residual_scale, logit_scale */
    bool gelu_classifier;    /* of a reranker: GELU instead of tanh (ModernBERT) */
    bool softmax_classifier; /* over its classes (Qwen 3) */
    bool encoder;            /* a row sees later positions too, unless the file says attention.causal */

    bool may_have_experts;
    int32_t expert_keys;     /* EL_EXPERT_* that the file may say */
    bool experts_normalise;  /* default of expert_weights_norm */
    el_gating gating;        /* default of expert_gating_func; 0: softmax */
    bool router_scale;       /* ffn_gate_inp.scale, of each element that the family feeds the router (Gemma 4) */
    bool shared_experts;     /* ffn_*_shexp: a dense block beside the mixture, times the sigmoid of ffn_gate_inp_shexp
                                where the file has that */
    bool no_rope_factors;    /* frequency factors of a file do not count */
    bool yarn_keys;          /* the file may tune YaRN: log multiplier and betas */
    int32_t sliding_period;  /* every n-th layer is full, the others slide, when the file has a window but no pattern */
    bool full_first;         /* it is the first of each n, not the last */
    float rope_base_sliding; /* default of rope.freq_base_swa; 0: rope.freq_base */
    bool sliding_unscaled;   /* sliding layers rotate by positions that no factor divides */
    int32_t window;          /* default of attention.sliding_window */
    int32_t no_rope_period;  /* every n-th layer does not rotate (SmolLM3) */
} el_traits;

struct el_graph;
struct el_loader;
struct ggml_tensor;

typedef struct el_arch {
    const char *name; /* general.architecture */
    el_traits traits;
    const struct el_mixer *mixer; /* of every layer; NULL: attention. hparams may choose for each layer */
    edgellm_status (*hparams)(el_hparams *hp, const el_gguf *file, const struct el_arch *arch); /* NULL: nothing more */
    void (*load)(struct el_loader *l); /* weights besides those of the generic decoder; NULL: none */
    void (*build)(struct el_graph *g); /* the whole step; NULL: el_build_decoder */
    struct ggml_tensor *(*layer)(struct el_graph *g, int32_t layer, struct ggml_tensor *x); /* NULL: the generic one */
    /* What a layer does to each row after its ffn_norm; NULL: the dense block or the mixture */
    struct ggml_tensor *(*feed_forward)(struct el_graph *g, int32_t layer, struct ggml_tensor *x);
} el_arch;

/* Defines a family: EL_ARCH(stable) = {.name = "stable", ...}. CMake looks for this word at the start of a line. */
#define EL_ARCH(ident) const el_arch el_arch_##ident

/* The family with that name; EUNSUPPORTED names the nearest ones. */
edgellm_status el_arch_find(const el_arch **out, el_str name);
const el_arch *el_arch_at(size_t i); /* all of them, by name; NULL after the last */

#endif
