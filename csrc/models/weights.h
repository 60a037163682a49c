/* weights.h - taking tensors out of a file, by name and exact shape.
 * A family lists what it needs without checking each: after a refusal, later calls do nothing and give NULL, and the
 * model's opening fails with the first refusal's sentence. */
#ifndef EL_WEIGHTS_H
#define EL_WEIGHTS_H

#include "hparams.h"

struct ggml_tensor;
struct edgellm_model;

typedef struct el_linear { /* y = w x + b */
    struct ggml_tensor *w; /* [n_in, n_out]; of experts [n_in, n_out, n_expert] */
    struct ggml_tensor *b; /* [n_out] or NULL; of experts [n_out, n_expert] */
    struct ggml_tensor *s; /* one factor (of experts: one each) that w lacks, or NULL (NVFP4) */
} el_linear;

typedef struct el_norm {
    struct ggml_tensor *w, *b; /* NULL: 1 and 0 */
} el_norm;

typedef enum el_need { EL_REQUIRED, EL_OPTIONAL } el_need;
typedef enum el_role {
    EL_MATRIX, /* any type that can be multiplied */
    EL_FLOATS  /* F32: read as it is */
} el_role;

typedef struct el_loader {
    struct edgellm_model *model;
    const char *prefix; /* before "LAYER."; "blk." */
    int32_t layer;      /* -1: names are taken as they are */
    edgellm_status status;
} el_loader;

/* "PREFIX LAYER.name" or "name", of that shape. */
struct ggml_tensor *el_load(el_loader *l, const char *name, el_need need, el_role role, int64_t ne0, int64_t ne1,
                            int64_t ne2);
/* Whether products are made with it (EL_MATRIX), so that an adapter of it has an effect. */
bool el_is_multiplied(const struct ggml_tensor *weight);
bool el_has(const el_loader *l, const char *name); /* whether the file has that tensor */
/* What the file says of "name.what", unchecked; NULL: it has no such tensor. */
const el_gguf_tensor *el_find(const el_loader *l, const char *name, const char *what);
/* "name.weight" and, where present, "name.bias" and "name.scale" */
el_linear el_load_linear(el_loader *l, const char *name, el_need need, int64_t n_in, int64_t n_out);
el_linear el_load_experts(el_loader *l, const char *name, el_need need, int64_t n_in, int64_t n_out);
el_norm el_load_norm(el_loader *l, const char *name, el_need need, int64_t n);
struct ggml_tensor *el_load_vector(el_loader *l, const char *name, el_need need, int64_t n);
/* Rows first .. first + n - 1 of a linear (of each expert, for experts), sharing its memory. */
el_linear el_rows_of(el_loader *l, el_linear all, int64_t first, int64_t n);
/* F32 [ne0, ne1] of zeros that the caller fills, for numbers that follow from the metadata. */
struct ggml_tensor *el_load_computed(el_loader *l, int64_t ne0, int64_t ne1);
/* Zeroed memory that lives as long as the model. */
void *el_load_memory(el_loader *l, size_t n_bytes);
void el_refuse(el_loader *l, edgellm_status code, const char *fmt, ...) EL_PRINTF(3, 4);

/* ffn_up, ffn_down, ffn_gate (or what the suffix makes of them: "_shexp"), as the family's traits say. */
struct el_ffn el_load_ffn(el_loader *l, const char *suffix, int64_t n_ff);
/* The layer's router and experts, ffn_*_exps, and shared experts, ffn_*_shexp. */
struct el_experts *el_load_mixture(el_loader *l);

#endif
