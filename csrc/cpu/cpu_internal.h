/* cpu_internal.h - what the parts of a plan share. */
#ifndef EL_CPU_INTERNAL_H
#define EL_CPU_INTERNAL_H

#include "cpu_job.h"
#include "stock.h"

typedef struct el_worker_scratch {
    uint64_t tag;   /* which region of which run the rows below were prepared for */
    char *act;      /* quantized activation rows */
    float *row;     /* one row of floats */
    float *tile;    /* a product's outputs before its epilogue */
    float *tile2;   /* of the gated partner */
    float *queries; /* attention: gathered queries */
    char *kernel;   /* the kernels' own scratch */
    uint64_t group_tag;
    int32_t *groups; /* experts: which entries belong to which (cpu_experts.c) */
} el_worker_scratch;

struct el_cpu_plan {
    el_stock *stock; /* not NULL: ggml's backend runs the graph, and nothing below is used */
    struct ggml_cgraph *graph;
    const el_ggml_cpu *ggml;
    const el_kernels *kernels;
    int32_t n_threads;

    el_region *regions;
    int32_t n_regions, cap_regions;
    el_run run;
    uint64_t serial; /* counts runs, so that a worker knows prepared rows of the run before */

    el_cpu_arena *arena;
    el_cpu_arena **shared;      /* where others find it; NULL: this plan's own */
    el_worker_scratch *scratch; /* one per worker */
    char *scratch_memory;
    size_t scratch_bytes;

    /* An output that a product writes is looked through chunk by chunk, while it is in the cache: 8 rows of logits cost
     * 3 % of a step of a small model to read again. */
    const struct ggml_tensor *checked;
    _Atomic bool not_finite; /* of this run */

    void **owned; /* jobs and headers to free */
    int32_t n_owned, cap_owned;
    char *work; /* ggml's, for fallback nodes */
    size_t work_bytes;
    int32_t n_fallback;
};

/* A per-worker, per-region, per-run tag. */
static inline uint64_t el_cpu_tag(const el_cpu_plan *plan, const void *job)
{
    return (uint64_t)(uintptr_t)job * 0x9E3779B97F4A7C15u + plan->serial;
}

#endif
