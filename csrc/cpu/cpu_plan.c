/* cpu_plan.c - from a ggml graph to regions. Nodes are visited in order. Row operations (sums, norms, row gathers) are
 * left pending until something needs their result: a product takes them in as the preparation of its input, and what
 * follows the product (bias, rope, gate, residual, cache write) is taken in as its epilogue. Whatever has more than one
 * reader is stored. */
#include "cpu_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu_planner.h"
#include "finite.h"
#include "ggml-impl.h"
#include "log.h"

/* ---- fallback ----------------------------------------------------------------------------- */

void el_fallback_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_fallback_job *job = job_;
    struct ggml_cplan plan = job->plan->ggml->graph_plan(job->nodes, 1, NULL);

    (void)chunk;
    (void)worker;
    plan.work_data = (uint8_t *)job->plan->work;
    job->plan->ggml->graph_compute(job->nodes, &plan);
}

static void plan_fallback(el_planner *p, int32_t i)
{
    struct ggml_tensor *t = p->graph->nodes[i];
    el_fallback_job *job = el_own(p, sizeof *job);
    struct ggml_cgraph *one = el_own(p, sizeof *one);
    struct ggml_cplan plan;

    if (!job || !one)
        return;
    el_store_sources(p, t);
    *one = ggml_graph_view(p->graph, i, i + 1);
    *job = (el_fallback_job){.node = t, .plan = p->plan, .nodes = one};
    plan = p->plan->ggml->graph_plan(one, 1, NULL);
    p->plan->work_bytes = EL_MAX(p->plan->work_bytes, plan.work_size);
    p->plan->n_fallback++;
    el_emit(p, el_fallback_chunk, job, 1, true);
    el_info_of(p, t)->state = EL_NODE_DONE;
}

/* ---- the plan ----------------------------------------------------------------------------- */

bool el_cpu_own_backend(void)
{
    static _Atomic int known; /* 0: not asked, 1: ggml's, 2: ours */
    int answer = atomic_load(&known);

    if (answer == 0) {
        const char *name = getenv("EDGELLM_CPU_BACKEND");
        answer = name && strcmp(name, "ggml") == 0 ? 1 : 2;
        if (name && *name && answer == 2 && strcmp(name, "edgellm") != 0)
            el_log(EL_LOG_WARN, "EDGELLM_CPU_BACKEND is \"edgellm\" or \"ggml\", not \"%.40s\": edgellm's is used",
                   name);
        atomic_store(&known, answer);
    }
    return answer == 2;
}

/* For whoever listens at debug level: how many regions, and what is left to ggml. */
static void log_plan(const el_planner *p)
{
    char left[256] = "nothing";
    size_t used = 0;

    if (el_log_level() < EL_LOG_DEBUG)
        return;
    for (int32_t r = 0; r < p->plan->n_regions && used < sizeof left; r++)
        if (p->plan->regions[r].run == el_fallback_chunk)
            used += (size_t)snprintf(left + used, sizeof left - used, "%s%s", used ? " " : "",
                                     ggml_op_desc(((const el_fallback_job *)p->plan->regions[r].job)->nodes->nodes[0]));
    el_log(EL_LOG_DEBUG, "plan: %d regions, %d rows at most, left to ggml: %s", p->plan->n_regions, (int)p->max_rows,
           left);
}

edgellm_status el_cpu_plan_watched(el_cpu_plan **out, struct ggml_cgraph *graph, const el_ggml_cpu *ggml,
                                   int32_t n_threads, const el_watch *watch)
{
    el_cpu_plan *plan = el_alloc(1, sizeof *plan);
    edgellm_status status;

    *out = NULL;
    if (!plan)
        return el_no_memory(sizeof *plan);
    *plan = (el_cpu_plan){.graph = graph, .ggml = ggml, .kernels = el_kernels_get(), .n_threads = n_threads};
    status = el_stock_new(&plan->stock, graph, ggml, n_threads, watch);
    if (status == EDGELLM_OK)
        *out = plan;
    else
        el_free(plan);
    return status;
}

edgellm_status el_cpu_plan_new(el_cpu_plan **out, struct ggml_cgraph *graph, const el_ggml_cpu *ggml, int32_t n_threads,
                               el_cpu_arena **shared)
{
    el_planner p = {.graph = graph, .shared = shared};

    if (!el_cpu_own_backend())
        return el_cpu_plan_watched(out, graph, ggml, n_threads, NULL);
    *out = NULL;
    p.plan = el_alloc(1, sizeof *p.plan);
    if (!p.plan)
        return el_no_memory(sizeof *p.plan);
    *p.plan = (el_cpu_plan){.graph = graph, .ggml = ggml, .kernels = el_kernels_get(), .n_threads = n_threads};
    p.status = el_index_graph(&p);
    for (int32_t i = 0; i < graph->n_nodes && p.status == EDGELLM_OK; i++) {
        struct ggml_tensor *t = graph->nodes[i];
        if (el_is_alias(t) || el_info_of(&p, t)->state != EL_NODE_NEW)
            continue;
        if (el_is_product(&p, t)) {
            if (!el_plan_experts(&p, i))
                el_plan_products(&p, i);
        } else if (el_is_attention(&p, t))
            el_plan_attention(&p, t);
        else if (el_op_of(t))
            el_plan_op(&p, t);
        else if (el_can_pend(t))
            el_pend(&p, t);
        else if (!el_plan_any_product(&p, t) && !el_plan_node(&p, t))
            plan_fallback(&p, i);
    }
    for (int32_t i = 0; i < graph->n_nodes && p.status == EDGELLM_OK; i++)
        if (p.info[i].state == EL_NODE_PENDING && (graph->nodes[i]->flags & GGML_TENSOR_FLAG_OUTPUT))
            el_store_rows(&p, graph->nodes[i]);
    if (p.status == EDGELLM_OK)
        el_place_all(&p);
    if (p.status == EDGELLM_OK)
        el_make_scratch(&p);
    if (p.status == EDGELLM_OK)
        p.status = el_run_init(&p.plan->run, p.plan->regions, p.plan->n_regions, n_threads);
    if (p.status == EDGELLM_OK)
        log_plan(&p);
    el_free(p.info);
    el_free(p.keys);
    el_free(p.values);
    if (p.status != EDGELLM_OK)
        el_cpu_plan_free(p.plan);
    else
        *out = p.plan;
    return p.status;
}

void el_cpu_plan_free(el_cpu_plan *plan)
{
    if (!plan)
        return;
    el_stock_free(plan->stock);
    el_run_clear(&plan->run);
    for (int32_t i = 0; i < plan->n_owned; i++)
        el_free(plan->owned[i]);
    el_free(plan->owned);
    el_free(plan->regions);
    el_leave_arena(plan);
    el_free(plan->scratch);
    el_free(plan->scratch_memory);
    el_free(plan->work);
    el_free(plan);
}

size_t el_cpu_plan_bytes(const el_cpu_plan *plan)
{
    return plan->stock ? el_stock_bytes(plan->stock) : plan->scratch_bytes + (plan->shared ? 0 : plan->arena->bytes);
}

const el_cpu_arena *el_cpu_plan_shared(const el_cpu_plan *plan) { return plan->shared ? plan->arena : NULL; }

void el_cpu_plan_begin(el_cpu_plan *plan)
{
    if (plan->stock) {
        el_stock_begin(plan->stock);
        return;
    }
    if (plan->shared)
        el_workers_quiesce(); /* the plan before may have had the same memory */
    el_run_reset(&plan->run);
    plan->serial++;
    atomic_store(&plan->not_finite, false);
}

bool el_cpu_plan_finite(const el_cpu_plan *plan, const struct ggml_tensor *output)
{
    if (plan->checked == output)
        return !atomic_load(&plan->not_finite);
    return el_all_finite(output->data, (size_t)ggml_nelements(output));
}

edgellm_status el_cpu_plan_run(el_cpu_plan *plan, int32_t budget_ms, const _Atomic bool *cancel)
{
    if (plan->stock)
        return el_stock_run(plan->stock, budget_ms, cancel);
    return el_workers_run(&plan->run, plan->n_threads, budget_ms, cancel);
}
