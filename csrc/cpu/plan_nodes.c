/* plan_nodes.c - nodes that become a region each, because nothing around them can be fused with them. */
#include "cpu_planner.h"
#include "ggml-impl.h"

/* Whether t changes memory that other tensors show: its result lies in one of them, or it is an operation of ours. */
static bool writes_in_place(const struct ggml_tensor *t) { return t->view_src || el_op_of(t); }

static bool reads(const struct ggml_tensor *t, const struct ggml_tensor *base)
{
    for (int k = 0; k < GGML_MAX_SRC; k++)
        if (t->src[k] && el_base_of(t->src[k]) == base)
            return true;
    return false;
}

void el_store_sources(el_planner *p, const struct ggml_tensor *t)
{
    for (int k = 0; k < GGML_MAX_SRC; k++)
        if (t->src[k] && !el_ready(p, t->src[k]))
            el_store_rows(p, t->src[k]);
    for (int k = 0; k < GGML_MAX_SRC && writes_in_place(t); k++)
        for (int32_t i = 0; t->src[k] && i < p->graph->n_nodes && p->graph->nodes[i] != t; i++)
            if (p->info[i].state == EL_NODE_PENDING && reads(p->graph->nodes[i], el_base_of(t->src[k])))
                el_store_rows(p, p->graph->nodes[i]);
}

void el_op_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_op_job *job = job_;

    (void)worker;
    job->op->run(job->node, chunk);
}

void el_plan_op(el_planner *p, struct ggml_tensor *t)
{
    el_op_job *job = el_own(p, sizeof *job);

    if (!job)
        return;
    el_store_sources(p, t);
    *job = (el_op_job){.node = t, .op = el_op_of(t)};
    el_emit(p, el_op_chunk, job, job->op->n_chunks(t), true);
    el_info_of(p, t)->state = EL_NODE_DONE;
}
