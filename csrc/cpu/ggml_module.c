/* ggml_module.c - the table of ggml functions that a module exports; compiled once into each of them.
 * EL_GGML_ISA names the instruction set of the build. */
#include "ggml_cpu.h"

/* ggml returns the callback it replaces; nobody here wants it. */
static void set_abort(ggml_abort_callback_t callback) { (void)ggml_set_abort_callback(callback); }

static const el_ggml_cpu table = {
    .struct_size = sizeof(el_ggml_cpu),
    .tensor_size = sizeof(struct ggml_tensor),
    .ggml_version = GGML_VERSION,
    .isa = EL_GGML_ISA,
    .set_log = ggml_log_set,
    .set_abort = set_abort,
    .init = ggml_cpu_init,
    .graph_plan = ggml_graph_plan,
    .graph_compute = ggml_graph_compute,
    .threadpool_params_init = ggml_threadpool_params_init,
    .threadpool_new = ggml_threadpool_new,
    .threadpool_free = ggml_threadpool_free,
    .threadpool_pause = ggml_threadpool_pause,
    .threadpool_resume = ggml_threadpool_resume,
    .type_traits = ggml_get_type_traits_cpu,
    .fp32_to_fp16 = ggml_cpu_fp32_to_fp16,
    .fp16_to_fp32 = ggml_cpu_fp16_to_fp32,
};

const el_ggml_cpu *edgellm_ggml_cpu(void) { return &table; }
