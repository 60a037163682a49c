/* adapter.h - LoRA: small matrices A and B that change a weight by scale * B A without touching it.
 * An adapter is a mapped GGUF file, immutable, that belongs to one opened model. A graph adds scale * B (A x) to what
 * it multiplies with an adapted weight (el_build_linear and its like), so adapters come and go with the graphs.
 * Sources: Hu et al. 2021 (LoRA), section 4.1; key and tensor names: the `gguf` package and its LoRA converter. */
#ifndef EL_ADAPTER_H
#define EL_ADAPTER_H

#include "model.h"

enum { EL_MAX_ADAPTERS = 8 };

typedef struct el_adapted {
    const struct ggml_tensor *w; /* a weight of the model, or a part of one */
    struct ggml_tensor *a;       /* [n_in, rank]; of experts [n_in, rank, n_expert] */
    struct ggml_tensor *b;       /* [rank, n_out] */
} el_adapted;

typedef struct edgellm_adapter {
    const el_model *model;
    el_gguf *file;
    float alpha; /* the adapter's strength is scale * alpha / rank; 0: scale alone */
    struct ggml_context *ctx;
    void *headers;
    el_adapted *entries; /* by address of w */
    size_t n;
} el_adapter;

/* What an engine applies. */
typedef struct el_adapters {
    int32_t n;
    const el_adapter *use[EL_MAX_ADAPTERS];
    float scale[EL_MAX_ADAPTERS];
} el_adapters;

edgellm_status el_adapter_open(el_adapter **out, const el_model *model, const char *path_utf8);
void el_adapter_free(el_adapter *adapter);
/* NULL: the adapter leaves that weight alone. */
const el_adapted *el_adapter_find(const el_adapter *adapter, const struct ggml_tensor *w);
/* The factor of B A x. */
float el_adapter_strength(const el_adapter *adapter, const el_adapted *entry, float scale);

#endif
