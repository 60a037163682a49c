/* plan.h - graphs kept for reuse. A plan is a graph with its memory and its list of regions; running it again only
 * needs new inputs. Plans are keyed by the shape of a step and kept in a small least-recently-used cache. */
#ifndef EL_PLAN_H
#define EL_PLAN_H

#include "cpu_plan.h"
#include "graph.h"

enum {
    EL_MAX_PLANS = 16,
    EL_MAX_PLAN_BYTES = 256 << 20 /* of all plans together; a larger one stands alone */
};

typedef struct el_plan {
    el_graph graph;
    el_cpu_plan *cpu;
    void *memory; /* headers of the graph's tensors */
    uint64_t last_use;
} el_plan;

typedef struct el_plans {
    const el_model *model;
    const el_layer_memory *memory;
    el_graph_options options;
    const el_ggml_cpu *ggml;
    int32_t n_threads;
    const el_watch *watch; /* who sees the products of the plans made from now on; NULL: nobody */
    el_cpu_arena *shared;  /* of the plans with many rows; the last of them frees it */
    uint64_t clock;
    int32_t n;
    el_plan *entries[EL_MAX_PLANS];
} el_plans;

edgellm_status el_plans_init(el_plans *p, const el_model *model, const el_layer_memory *memory,
                             el_graph_options options, const el_ggml_cpu *ggml, int32_t n_threads);
void el_plans_clear(el_plans *p);
/* The plan for that shape, made if it is not there. It stays valid until the next call. */
edgellm_status el_plans_get(el_plans *p, el_graph_shape shape, el_plan **out);
uint64_t el_plans_bytes(const el_plans *p);

/* Cache slots a graph should look at so that `used` of them are covered: rounded up, so that a plan serves many steps.
 */
int32_t el_plan_round_slots(int32_t used, int32_t n_slots);

#endif
