/* plan_index.c - what the planner knows of each node, and the lists that a plan grows by. */
#include <string.h>

#include "cpu_planner.h"
#include "ggml-impl.h"

bool el_is_alias(const struct ggml_tensor *t)
{
    return t->op == GGML_OP_RESHAPE || t->op == GGML_OP_VIEW || t->op == GGML_OP_PERMUTE || t->op == GGML_OP_TRANSPOSE;
}

struct ggml_tensor *el_base_of(const struct ggml_tensor *t)
{
    while (el_is_alias(t))
        t = t->src[0];
    return (struct ggml_tensor *)(uintptr_t)t;
}

/* Whether t shows all of its base's elements in their order. */
bool el_is_whole(const struct ggml_tensor *t)
{
    return !el_is_alias(t) || (ggml_is_contiguous(t) && ggml_nelements(t) == ggml_nelements(el_base_of(t)));
}

/* Whether both show the same elements. */
bool el_are_same(const struct ggml_tensor *a, const struct ggml_tensor *b)
{
    return a == b || (el_base_of(a) == el_base_of(b) && ggml_are_same_shape(a, b) && ggml_are_same_stride(a, b) &&
                      (a->view_src ? a->view_offs : 0) == (b->view_src ? b->view_offs : 0));
}

static size_t slot_of(const el_planner *p, const struct ggml_tensor *t)
{
    size_t at = ((uintptr_t)t >> 4) * 0x9E3779B97F4A7C15u % p->n_slots;

    while (p->keys[at] && p->keys[at] != t)
        at = (at + 1) % p->n_slots;
    return at;
}

el_node_info *el_info_of(const el_planner *p, const struct ggml_tensor *t)
{
    const size_t at = slot_of(p, el_base_of(t));

    return p->keys[at] ? &p->info[p->values[at]] : NULL;
}

/* Has its data, or will have when the next region runs. */
bool el_ready(const el_planner *p, const struct ggml_tensor *t)
{
    const struct ggml_tensor *base = el_base_of(t);

    return base->op == GGML_OP_NONE || el_info_of(p, base)->state == EL_NODE_DONE;
}

void *el_own(el_planner *p, size_t n_bytes)
{
    el_cpu_plan *plan = p->plan;
    void *memory = el_alloc(1, n_bytes);

    if (plan->n_owned == plan->cap_owned) {
        const int32_t cap = EL_MAX(64, plan->cap_owned * 2);
        void **owned = el_realloc(plan->owned, (size_t)cap, sizeof *owned);
        if (!owned) {
            el_free(memory);
            memory = NULL;
        } else {
            plan->owned = owned;
            plan->cap_owned = cap;
        }
    }
    if (!memory) {
        if (p->status == EDGELLM_OK)
            p->status = el_no_memory(n_bytes);
        return NULL;
    }
    plan->owned[plan->n_owned++] = memory;
    return memory;
}

int32_t el_emit(el_planner *p, el_chunk_fn *run, const void *job, int32_t n_chunks, bool exclusive)
{
    el_cpu_plan *plan = p->plan;

    if (plan->n_regions == plan->cap_regions) {
        const int32_t cap = EL_MAX(64, plan->cap_regions * 2);
        el_region *regions = el_realloc(plan->regions, (size_t)cap, sizeof *regions);
        if (!regions) {
            p->status = el_no_memory((size_t)cap * sizeof *regions);
            return 0;
        }
        plan->regions = regions;
        plan->cap_regions = cap;
    }
    plan->regions[plan->n_regions] =
        (el_region){.run = run, .job = job, .n_chunks = n_chunks, .wait_for = -1, .exclusive = exclusive};
    return plan->n_regions++;
}

edgellm_status el_index_graph(el_planner *p)
{
    struct ggml_cgraph *g = p->graph;
    const int32_t n = g->n_nodes + g->n_leafs;

    p->n_slots = (size_t)n * 2 + 1;
    p->info = el_alloc((size_t)n, sizeof *p->info);
    p->keys = el_alloc(p->n_slots, sizeof *p->keys);
    p->values = el_alloc(p->n_slots, sizeof *p->values);
    if (!p->info || !p->keys || !p->values)
        return el_no_memory(p->n_slots * sizeof *p->keys);
    for (int32_t i = 0; i < n; i++) {
        struct ggml_tensor *t = i < g->n_nodes ? g->nodes[i] : g->leafs[i - g->n_nodes];
        const size_t at = slot_of(p, t);
        p->keys[at] = t;
        p->values[at] = i;
        p->info[i] = (el_node_info){.user = -1, .first_region = -1, .last_region = -1};
    }
    for (int32_t i = 0; i < g->n_nodes; i++) {
        struct ggml_tensor *t = g->nodes[i];
        p->max_rows = EL_MAX(p->max_rows, t->op == GGML_OP_MUL_MAT ? t->ne[1] : 1);
        if (t->flags & GGML_TENSOR_FLAG_OUTPUT)
            el_info_of(p, t)->n_uses += 2;
        if (el_is_alias(t))
            continue;
        for (int k = 0; k < GGML_MAX_SRC; k++) {
            el_node_info *info = t->src[k] ? el_info_of(p, t->src[k]) : NULL;
            if (info) {
                info->n_uses++;
                info->user = i;
            }
        }
    }
    return EDGELLM_OK;
}

/* The one node that reads t, or NULL. */
struct ggml_tensor *el_only_user(const el_planner *p, const struct ggml_tensor *t)
{
    const el_node_info *info = el_info_of(p, t);

    return info->n_uses == 1 && info->user >= 0 ? p->graph->nodes[info->user] : NULL;
}

float el_param(const struct ggml_tensor *t, int i)
{
    float f;

    memcpy(&f, t->op_params + i, sizeof f);
    return f;
}
