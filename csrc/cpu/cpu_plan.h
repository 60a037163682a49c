/* cpu_plan.h - edgellm's own CPU backend: a ggml graph becomes a short list of regions for the process's workers.
 * Planning fuses what is adjacent (a norm and the quantization of its result go into every product that reads it; bias,
 * rope, cache write, gate and residual sum follow their product), places the tensors that are left in an arena, and
 * hands nodes it does not know to ggml's backend on one thread. A plan is made once per graph and run many times. */
#ifndef EL_CPU_PLAN_H
#define EL_CPU_PLAN_H

#include <stdatomic.h>
#include <stdbool.h>

#include "ggml_cpu.h"
#include "stock.h"

struct ggml_cgraph;
typedef struct el_cpu_plan el_cpu_plan;

/* Sources of a GGML_OP_FLASH_ATTN_EXT node beyond ggml's own, which let this backend read the paged cache by position
 * instead of by mask. Other backends ignore them, and read from the mask what ALiBi adds (max_bias): minus the distance
 * of query and key, which we compute from positions. */
enum {
    EL_ATTN_RANGES = 5, /* I32 [4, n_rows]: first visible position, position after the last, sequence (row of the
                           tables), the row's own position */
    EL_ATTN_TABLES = 6  /* I32 [max_blocks, n_seqs]: the pool's blocks of each sequence in position order */
};

/* Whether plans are made by this backend, which is the default; EDGELLM_CPU_BACKEND=ggml has ggml's own run them
 * (stock.h), for comparison. Asked once. */
bool el_cpu_own_backend(void);

/* Memory of plans. Those with many rows share one, since one runs at a time: a prompt read in parts of 512 makes a plan
 * for each depth of the cache. Freed with its last plan. */
typedef struct el_cpu_arena {
    char *memory;
    size_t bytes;
    int32_t n_plans;
} el_cpu_arena;

/* The graph's tensors without data (inputs among them) get it from the plan, which must outlive their use. An input
 * that no region reads is left without: a mask, say, when attention goes by position.
 * *shared: what the caller's plans with many rows share, NULL before the first. When it is too small for this plan, a
 * new one takes its place; the plans that have the old one should go soon. */
edgellm_status el_cpu_plan_new(el_cpu_plan **out, struct ggml_cgraph *graph, const el_ggml_cpu *ggml, int32_t n_threads,
                               el_cpu_arena **shared);
/* The same graph run by ggml's own backend, for someone who watches its products (stock.h). */
edgellm_status el_cpu_plan_watched(el_cpu_plan **out, struct ggml_cgraph *graph, const el_ggml_cpu *ggml,
                                   int32_t n_threads, const el_watch *watch);
const el_cpu_arena *el_cpu_plan_shared(const el_cpu_plan *plan); /* NULL: its memory is its own */
void el_cpu_plan_free(el_cpu_plan *plan); /* NULL is fine; waits for workers that are still inside */

size_t el_cpu_plan_bytes(const el_cpu_plan *plan); /* without what it shares */

/* Before a plan's inputs are filled again: waits until no worker reads or writes the arena any more. */
void el_cpu_plan_begin(el_cpu_plan *plan);
/* Computes for about budget_ms (0: to the end). AGAIN: call again. Errors: ECANCELLED, ENOMEM. */
edgellm_status el_cpu_plan_run(el_cpu_plan *plan, int32_t budget_ms, const _Atomic bool *cancel);

/* After a run: whether all floats of a tensor that is an output of the graph are numbers and finite. */
bool el_cpu_plan_finite(const el_cpu_plan *plan, const struct ggml_tensor *output);

#endif
