/* tensors_table.h - the door for edgellm.tensors: weights as arrays, through the kernels of this very library.
 * One function is exported for it. It is no part of edgellm.h and promises nothing to anybody else: the module
 * (src/edgellm/tensors/_tensors.cpp) is built beside the library, and refuses one whose sizes or version differ. */
#ifndef EL_TENSORS_TABLE_H
#define EL_TENSORS_TABLE_H

#include <stdbool.h>

#include "edgellm.h"

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct el_tensor_type {
    int32_t number;   /* in GGUF */
    char name[16];    /* "Q4_K" */
    int64_t elements; /* of one block */
    size_t bytes;
    bool own_kernel;
    bool quantizes;
    bool needs_imatrix; /* to be quantized to */
} el_tensor_type;

typedef struct el_tensors_table {
    uint32_t struct_size;  /* sizeof(el_tensors_table) where the library was compiled */
    uint32_t kernels_size; /* sizeof(el_kernels) there */
    const char *version;   /* EDGELLM_VERSION there */

    bool (*type_at)(size_t i, el_tensor_type *out); /* the i-th type of weights, by number; false after the last */

    const char *(*isa_at)(size_t i);        /* slow to fast, whether or not this CPU has it; NULL after the last */
    const el_kernels *(*kernels_get)(void); /* as in kernels.h */
    const el_kernels *(*kernels_named)(const char *isa);
    int (*act_kind)(int type);
    size_t (*act_row_bytes)(el_act_kind kind, int64_t k);
    size_t (*matmul_scratch)(int type, int64_t k);

    /* Rows row0 .. row0 + n_rows - 1 of k values, with ggml's code for each format. The caller has checked that the
     * type is one of type_at's and that k is a multiple of its elements; dst and src are of any alignment.
     * quantize: imatrix is k weights of the columns, or NULL. What it writes is finite when read back.
     * Errors: EINVAL (type that is not written here; a value that is no finite number or too large), ENOMEM. */
    edgellm_status (*quantize)(int type, void *dst, const float *src, int64_t row0, int64_t n_rows, int64_t k,
                               const float *imatrix);
    edgellm_status (*dequantize)(int type, float *dst, const void *src, int64_t row0, int64_t n_rows, int64_t k);
    const char *(*last_error)(void);
} el_tensors_table;

EDGELLM_API const el_tensors_table *edgellm_tensors_table(void);

#ifdef __cplusplus
}
#endif

#endif
