/* ggml_cpu.h - the one door to ggml's CPU backend.
 * On x86-64 that backend is compiled twice, each with its own copy of ggml-base, into a module that exports one
 * function, edgellm_ggml_cpu; the loader (ggml_cpu.c) opens the one this CPU can run. Elsewhere it is linked in.
 * Graphs and tensors made by the ggml-base of this library may be passed through: both come from the same sources. */
#ifndef EL_GGML_CPU_H
#define EL_GGML_CPU_H

#include <stdint.h>

#include "edgellm.h"

#include "ggml-cpu.h"
#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct el_ggml_cpu {
    uint32_t struct_size;     /* sizeof(el_ggml_cpu) where the module was compiled */
    uint32_t tensor_size;     /* sizeof(struct ggml_tensor) there */
    const char *ggml_version; /* "0.20.2" */
    const char *isa;          /* instruction set it was compiled for: "x64", "avx2", "neon", "generic" */

    void (*set_log)(ggml_log_callback callback, void *data);
    void (*set_abort)(ggml_abort_callback_t callback);

    void (*init)(void); /* fills ggml's tables; the loader has called it */
    struct ggml_cplan (*graph_plan)(const struct ggml_cgraph *graph, int n_threads, struct ggml_threadpool *pool);
    enum ggml_status (*graph_compute)(struct ggml_cgraph *graph, struct ggml_cplan *plan);

    void (*threadpool_params_init)(struct ggml_threadpool_params *params, int n_threads);
    struct ggml_threadpool *(*threadpool_new)(struct ggml_threadpool_params *params); /* NULL: no memory */
    void (*threadpool_free)(struct ggml_threadpool *pool);
    void (*threadpool_pause)(struct ggml_threadpool *pool);
    void (*threadpool_resume)(struct ggml_threadpool *pool);

    const struct ggml_type_traits_cpu *(*type_traits)(enum ggml_type type); /* vec_dot, from_float */
    void (*fp32_to_fp16)(const float *from, ggml_fp16_t *to, int64_t n);
    void (*fp16_to_fp32)(const ggml_fp16_t *from, float *to, int64_t n);
} el_ggml_cpu;

/* The backend for this CPU minus EDGELLM_CPU_DISABLE; opened on the first call, kept for the life of the process.
 * Any thread. Errors: EIO (module missing or not loadable), EUNSUPPORTED (module of another version). */
edgellm_status el_ggml_cpu_get(const el_ggml_cpu **out);

/* What a module exports. */
EDGELLM_API const el_ggml_cpu *edgellm_ggml_cpu(void);

#ifdef __cplusplus
}
#endif

#endif
