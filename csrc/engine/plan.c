/* plan.c - makes, finds and drops plans. */
#include "plan.h"

#include <string.h>

#include "ggml.h"

edgellm_status el_plans_init(el_plans *p, const el_model *model, const el_layer_memory *memory,
                             el_graph_options options, const el_ggml_cpu *ggml, int32_t n_threads)
{
    *p = (el_plans){.model = model, .memory = memory, .options = options, .ggml = ggml, .n_threads = n_threads};
    return EDGELLM_OK;
}

static void drop(el_plan *plan)
{
    if (!plan)
        return;
    el_cpu_plan_free(plan->cpu);
    el_graph_clear(&plan->graph);
    el_free(plan->memory);
    el_free(plan);
}

void el_plans_clear(el_plans *p)
{
    for (int32_t i = 0; i < p->n; i++)
        drop(p->entries[i]);
    p->n = 0;
}

uint64_t el_plans_bytes(const el_plans *p)
{
    uint64_t n = 0;

    for (int32_t i = 0; i < p->n; i++)
        n += el_cpu_plan_bytes(p->entries[i]->cpu);
    return n + (p->shared ? p->shared->bytes : 0);
}

int32_t el_plan_round_slots(int32_t used, int32_t n_slots)
{
    const int32_t step = used <= 4096 ? 256 : 1024; /* masked slots cost little, a new plan about a millisecond */
    const int64_t rounded = ((int64_t)used + step - 1) / step * step;

    return rounded < n_slots ? (int32_t)rounded : n_slots;
}

static edgellm_status make(el_plans *p, el_graph_shape shape, el_plan **out)
{
    el_plan *plan = el_alloc(1, sizeof *plan);
    edgellm_status status = EDGELLM_OK;

    if (!plan)
        return el_no_memory(sizeof *plan);
    plan->memory = el_alloc(1, el_graph_memory(p->model, &p->options));
    if (!plan->memory) {
        status = el_no_memory(el_graph_memory(p->model, &p->options));
        goto done;
    }
    EL_TRY(el_graph_build(&plan->graph, p->model, p->memory, shape, p->options, plan->memory));
    if (p->watch)
        EL_TRY(el_cpu_plan_watched(&plan->cpu, plan->graph.nodes, p->ggml, p->n_threads, p->watch));
    else
        EL_TRY(el_cpu_plan_new(&plan->cpu, plan->graph.nodes, p->ggml, p->n_threads, &p->shared));
    *out = plan;
    plan = NULL;
done:
    drop(plan);
    return status;
}

static void evict(el_plans *p, int32_t i)
{
    drop(p->entries[i]);
    p->entries[i] = p->entries[--p->n];
}

static void evict_oldest(el_plans *p)
{
    int32_t oldest = 0;

    for (int32_t i = 1; i < p->n; i++)
        if (p->entries[i]->last_use < p->entries[oldest]->last_use)
            oldest = i;
    evict(p, oldest);
}

/* Plans whose shared memory has become too small for a newer one. */
static void evict_outgrown(el_plans *p)
{
    for (int32_t i = p->n - 1; i >= 0; i--)
        if (el_cpu_plan_shared(p->entries[i]->cpu) && el_cpu_plan_shared(p->entries[i]->cpu) != p->shared)
            evict(p, i);
}

static bool same_shape(el_graph_shape a, el_graph_shape b)
{
    return a.n_rows == b.n_rows && a.n_out == b.n_out && a.n_kv == b.n_kv && a.n_kv_sliding == b.n_kv_sliding &&
           a.n_seqs == b.n_seqs && a.encode == b.encode && a.instance == b.instance;
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
    evict_outgrown(p);
    while (p->n > 1 && el_plans_bytes(p) > EL_MAX_PLAN_BYTES)
        evict_oldest(p);
done:
    return status;
}
