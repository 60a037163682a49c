/* plan.c - makes, finds and drops plans. */
#include "plan.h"

#include <string.h>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"

edgellm_status el_plans_init(el_plans *p, const el_model *model, const el_kv_tensors *kv)
{
    memset(p, 0, sizeof *p);
    p->model = model;
    p->kv = kv;
    p->arena = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
    return p->arena ? EDGELLM_OK : el_no_memory(sizeof(void *));
}

static void drop(el_plan *plan)
{
    if (!plan)
        return;
    el_graph_clear(&plan->graph);
    el_free(plan->memory);
    el_free(plan->layer_end);
    el_free(plan);
}

static void drop_all(el_plans *p)
{
    for (int32_t i = 0; i < p->n; i++)
        drop(p->entries[i]);
    p->n = 0;
}

void el_plans_clear(el_plans *p)
{
    drop_all(p);
    if (p->arena)
        ggml_gallocr_free(p->arena);
    p->arena = NULL;
}

uint64_t el_plans_bytes(const el_plans *p) { return p->arena ? ggml_gallocr_get_buffer_size(p->arena, 0) : 0; }

int32_t el_plan_round_slots(int32_t used, int32_t n_slots)
{
    const int32_t step = used <= 4096 ? 256 : 1024; /* masked slots cost little, a new plan about a millisecond */
    const int64_t rounded = ((int64_t)used + step - 1) / step * step;

    return rounded < n_slots ? (int32_t)rounded : n_slots;
}

static edgellm_status make(el_plans *p, el_graph_shape shape, el_plan **out)
{
    el_plan *plan = el_alloc(1, sizeof *plan);
    const uint64_t arena_before = el_plans_bytes(p);
    edgellm_status status = EDGELLM_OK;

    if (!plan)
        return el_no_memory(sizeof *plan);
    plan->memory = el_alloc(1, el_graph_memory(p->model));
    plan->layer_end = el_alloc((size_t)p->model->hp.n_layer, sizeof *plan->layer_end);
    if (!plan->memory || !plan->layer_end) {
        status = el_no_memory(el_graph_memory(p->model));
        goto done;
    }
    EL_TRY(el_graph_build(&plan->graph, p->model, p->kv, shape, plan->memory, plan->layer_end));
    if (!ggml_gallocr_alloc_graph(p->arena, plan->graph.nodes)) {
        drop_all(p); /* the arena may be gone */
        status = el_fail(EDGELLM_ENOMEM, "out of memory: no scratch space for a step of %d tokens", shape.n_rows);
        goto done;
    }
    if (el_plans_bytes(p) != arena_before)
        drop_all(p); /* the arena has moved and their tensors point to the old one */
    *out = plan;
    plan = NULL;
done:
    drop(plan);
    return status;
}

static void evict_oldest(el_plans *p)
{
    int32_t oldest = 0;

    for (int32_t i = 1; i < p->n; i++)
        if (p->entries[i]->last_use < p->entries[oldest]->last_use)
            oldest = i;
    drop(p->entries[oldest]);
    p->entries[oldest] = p->entries[--p->n];
}

static bool same_shape(el_graph_shape a, el_graph_shape b)
{
    return a.n_rows == b.n_rows && a.n_out == b.n_out && a.n_kv == b.n_kv;
}

edgellm_status el_plans_get(el_plans *p, el_graph_shape shape, el_plan **out)
{
    edgellm_status status = EDGELLM_OK;

    for (int32_t i = 0; i < p->n; i++) {
        if (same_shape(p->entries[i]->graph.shape, shape)) {
            *out = p->entries[i];
            (*out)->last_use = ++p->clock;
            return EDGELLM_OK;
        }
    }
    if (p->n == EL_MAX_PLANS)
        evict_oldest(p);
    EL_TRY(make(p, shape, out));
    (*out)->last_use = ++p->clock;
    p->entries[p->n++] = *out;
done:
    return status;
}
