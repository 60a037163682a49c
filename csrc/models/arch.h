/* arch.h - what distinguishes one architecture family from another.
 * A family is one entry in the table of arch.c: traits for the generic decoder, and functions only where traits are
 * not enough. docs/adding-a-model.md walks through a new one. */
#ifndef EL_ARCH_H
#define EL_ARCH_H

#include "hparams.h"

typedef enum el_rope_layout {                   /* which two values of a head rotate together */
                              EL_ROPE_ADJACENT, /* x[2i], x[2i+1]: LLaMA's own order */
                              EL_ROPE_HALVES    /* x[i], x[i + n/2]: GPT-NeoX's */
} el_rope_layout;

typedef enum el_activation { EL_ACT_SILU, EL_ACT_GELU } el_activation;

typedef struct el_traits {
    el_rope_layout rope;
    el_activation activation; /* of the gate in the feed-forward block */
    bool scale_embeddings;    /* by sqrt(n_embd) */
    bool qk_norm;             /* RMSNorm of each query and key head before rope */
    bool post_norms;          /* RMSNorm of each block's output before the residual sum */
    bool may_have_experts;
    bool yarn_keys;         /* the file may tune YaRN: log multiplier and betas */
    int32_t sliding_period; /* every n-th layer is full, the others slide, when the file has a window but no pattern */
} el_traits;

struct ggml_tensor;
struct el_graph;

typedef struct el_arch {
    const char *name; /* general.architecture */
    el_traits traits;
    edgellm_status (*hparams)(el_hparams *hp, const el_gguf *file, const struct el_arch *arch); /* NULL: nothing more */
    void (*build)(struct el_graph *g); /* adds the whole step to g; usually el_build_decoder */
} el_arch;

/* The family with that name; EUNSUPPORTED names the nearest ones. */
edgellm_status el_arch_find(const el_arch **out, el_str name);

extern const el_arch el_arch_llama, el_arch_mistral3, el_arch_gemma3;

#endif
