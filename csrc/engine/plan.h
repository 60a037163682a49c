/* plan.h - graphs kept for reuse. A plan is a graph whose tensors have their place in the arena; running it again only
 * needs new inputs. Plans are keyed by the shape of a step and kept in a small least-recently-used cache. All share one
 * arena, since one step runs at a time. */
#ifndef EL_PLAN_H
#define EL_PLAN_H

#include "ggml_cpu.h"
#include "graph.h"

enum { EL_MAX_PLANS = 16 };

typedef struct el_plan {
    el_graph graph;
    void *memory;       /* headers of the graph's tensors */
    int32_t *layer_end; /* see el_graph */
    uint64_t last_use;
} el_plan;

struct ggml_gallocr;

typedef struct el_plans {
    const el_model *model;
    const el_kv_tensors *kv;
    struct ggml_gallocr *arena;
    uint64_t clock;
    int32_t n;
    el_plan *entries[EL_MAX_PLANS];
} el_plans;

edgellm_status el_plans_init(el_plans *p, const el_model *model, const el_kv_tensors *kv);
void el_plans_clear(el_plans *p);
/* The plan for that shape, made if it is not there. It stays valid until the next call. */
edgellm_status el_plans_get(el_plans *p, el_graph_shape shape, el_plan **out);
uint64_t el_plans_bytes(const el_plans *p);

/* Cache slots a graph should look at so that `used` of them are covered: rounded up, so that a plan serves many steps.
 */
int32_t el_plan_round_slots(int32_t used, int32_t n_slots);

#endif
