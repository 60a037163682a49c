/* plan_memory.c - where tensors lie in the arena, and the workers' scratch memory. */
#include "cpu_planner.h"
#include "ggml-impl.h"

static void touch(el_planner *p, const struct ggml_tensor *t, int32_t region)
{
    el_node_info *info;

    if (!t)
        return;
    info = el_info_of(p, t);
    if (!info)
        return;
    if (info->first_region < 0)
        info->first_region = region;
    info->last_region = region;
    if (t->view_src && !el_is_alias(t)) /* written in place: it is that tensor which has to stay */
        touch(p, t->view_src, region);
}

static void touch_program(el_planner *p, const el_row_program *program, int32_t region)
{
    for (int32_t i = 0; i < program->n_ops; i++) {
        touch(p, program->ops[i].a, region);
        touch(p, program->ops[i].ids, region);
    }
}

static void touch_experts(el_planner *p, const el_region *r, int32_t region)
{
    const el_experts_job *job = r->job;
    const bool last = r->run == el_experts_sum_chunk || r->run == el_experts_out_chunk;

    if (r->run == el_choose_chunk) {
        touch_program(p, &job->input, region);
        touch(p, job->logits, region);
    }
    if (r->run != el_experts_hidden_chunk && r->run != el_experts_sum_chunk)
        touch(p, job->grouping.ids, region);
    if (r->run == el_choose_chunk || last)
        touch(p, job->weights, region);
    if (r->run == el_experts_up_chunk || r->run == el_experts_hidden_chunk ||
        (r->run == el_experts_out_chunk && !job->hidden_act))
        touch(p, job->hidden, region);
    if (r->run == el_experts_down_chunk || r->run == el_experts_sum_chunk)
        touch(p, job->products, region);
    if (last) {
        touch(p, job->residual, region);
        touch(p, job->out, region);
    }
}

/* Of the jobs that begin with their node. */
static const struct ggml_tensor *node_of(const el_region *r)
{
    return r->exclusive || r->run == el_node_chunk || r->run == el_batched_chunk || r->run == el_by_id_chunk
               ? *(const struct ggml_tensor *const *)r->job
               : NULL;
}

/* A worker that lost its core in an earlier region must not read memory that this one changes in place, nor write it
 * again. */
static void wait_for_readers(el_planner *p, int32_t region)
{
    el_region *r = &p->plan->regions[region];
    const struct ggml_tensor *t = node_of(r);

    if (!t || !el_writes_in_place(t))
        return;
    for (int k = 0; k <= GGML_MAX_SRC; k++) {
        const struct ggml_tensor *changed = k < GGML_MAX_SRC ? (el_op_of(t) ? t->src[k] : NULL) : t->view_src;
        const el_node_info *info = changed ? el_info_of(p, changed) : NULL;
        if (info && (t->view_src || el_base_of(changed)->op == GGML_OP_NONE))
            r->wait_for = EL_MAX(r->wait_for, info->last_region);
    }
}

static void touch_region(el_planner *p, int32_t region)
{
    const el_region *r = &p->plan->regions[region];

    if (r->run == el_rows_chunk) {
        touch_program(p, &((const el_rows_job *)r->job)->program, region);
    } else if (r->run == el_quantize_chunk) {
        touch_program(p, &((const el_matmul_job *)r->job)->input, region);
    } else if (r->run == el_matmul_chunk) {
        const el_matmul_job *job = r->job;
        if (!job->act)
            touch_program(p, &job->input, region);
        for (int32_t i = 0; i < job->n_products; i++) {
            touch(p, job->products[i].out, region);
            touch(p, job->products[i].slots, region);
            for (int32_t k = 0; k < job->products[i].n_epilogue; k++)
                touch(p, job->products[i].epilogue[k].a, region);
        }
    } else if (r->run == el_attention_chunk || r->run == el_combine_chunk) {
        const el_attention_job *job = r->job;
        touch(p, job->q, region);
        touch(p, job->out, region);
        touch(p, job->ranges, region);
        touch(p, job->tables, region);
    } else if (el_is_experts_region(r)) {
        touch_experts(p, r, region);
    } else if (r->run == el_rope_chunk) {
        touch(p, ((const el_rope_job *)r->job)->positions, region);
    } else {
        const struct ggml_tensor *t = node_of(r);
        touch(p, t, region);
        for (int k = 0; k < GGML_MAX_SRC; k++)
            touch(p, t->src[k], region);
    }
}

/* The quantized rows that a region makes for the one after it, or NULL. */
static struct ggml_tensor *act_made_by(const el_region *r)
{
    const struct ggml_tensor *act = r->run == el_quantize_chunk         ? ((const el_matmul_job *)r->job)->act
                                    : r->run == el_choose_chunk         ? ((const el_experts_job *)r->job)->act
                                    : r->run == el_experts_hidden_chunk ? ((const el_experts_job *)r->job)->hidden_act
                                                                        : NULL;

    return (struct ggml_tensor *)(uintptr_t)act;
}

typedef struct hole {
    size_t offset, size;
    int32_t last_region;
} hole;

typedef struct arena {
    size_t used;
    hole *holes;
    int32_t n_holes, cap;
} arena;

/* A worker that loses its core in a region keeps that region's buffers for some milliseconds, and whoever wants to use
 * them again waits. So memory is left alone for as many regions, if that costs no more than FRESH_BYTES. */
enum { REST_REGIONS = 24, FRESH_BYTES = 24 << 20 };

/* Room for size bytes in region `at`, from the hole that has rested longest; then the region has to wait for
 * stragglers. */
static size_t place(el_planner *p, arena *a, size_t size, int32_t at)
{
    hole *h = NULL;
    size_t offset;

    for (int32_t i = 0; i < a->n_holes; i++)
        if (a->holes[i].size >= size && (!h || a->holes[i].last_region < h->last_region))
            h = &a->holes[i];
    if (h && (h->last_region + REST_REGIONS <= at || a->used + size > FRESH_BYTES)) {
        offset = h->offset;
        p->plan->regions[at].wait_for = EL_MAX(p->plan->regions[at].wait_for, h->last_region);
        h->offset += size;
        h->size -= size;
        if (h->size == 0)
            *h = a->holes[--a->n_holes];
        return offset;
    }
    offset = a->used;
    a->used += size;
    return offset;
}

static void release(arena *a, size_t offset, size_t size, int32_t region)
{
    if (a->n_holes < a->cap)
        a->holes[a->n_holes++] = (hole){offset, size, region};
}

static el_cpu_arena *arena_new(size_t bytes)
{
    el_cpu_arena *a = el_alloc(1, sizeof *a);

    if (!a)
        return NULL;
    *a = (el_cpu_arena){.memory = el_alloc(1, bytes), .bytes = bytes};
    if (!a->memory) {
        el_free(a);
        return NULL;
    }
    return a;
}

/* The shared arena when there are many rows, a new one if it is too small: with room to spare, so that the next depth
 * of the cache finds room in it. */
static edgellm_status take_arena(el_planner *p, size_t used)
{
    el_cpu_plan *plan = p->plan;
    const size_t wanted = used + EL_PLAN_ALIGN;

    plan->shared = p->max_rows > EL_SHARED_ROWS ? p->shared : NULL;
    if (plan->shared && *plan->shared && (*plan->shared)->bytes >= wanted)
        plan->arena = *plan->shared;
    else
        plan->arena = arena_new(plan->shared ? wanted + wanted / 8 : wanted);
    if (!plan->arena)
        return el_no_memory(wanted);
    plan->arena->n_plans++;
    if (plan->shared)
        *plan->shared = plan->arena;
    return EDGELLM_OK;
}

void el_leave_arena(el_cpu_plan *plan)
{
    if (!plan->arena || --plan->arena->n_plans > 0)
        return;
    if (plan->shared && *plan->shared == plan->arena)
        *plan->shared = NULL;
    el_free(plan->arena->memory);
    el_free(plan->arena);
}

/* Gives every tensor that regions read or write a place. Offsets are kept in data until the arena exists. */
void el_place_all(el_planner *p)
{
    struct ggml_cgraph *g = p->graph;
    arena a = {.cap = g->n_nodes + p->plan->n_regions};
    const int32_t n = g->n_nodes + g->n_leafs;
    size_t *offsets = el_alloc((size_t)n, sizeof *offsets);
    size_t *act_offsets = el_alloc((size_t)p->plan->n_regions + 1, sizeof *act_offsets);

    a.holes = el_alloc((size_t)a.cap, sizeof *a.holes);
    if (!a.holes || !offsets || !act_offsets) {
        p->status = el_no_memory((size_t)n * sizeof *offsets);
        goto done;
    }
    for (int32_t r = 0; r < p->plan->n_regions; r++) {
        wait_for_readers(p, r);
        touch_region(p, r);
    }
    for (int32_t i = 0; i < n; i++) { /* inputs and outputs live throughout */
        struct ggml_tensor *t = i < g->n_nodes ? g->nodes[i] : g->leafs[i - g->n_nodes];
        const bool is_input = t->op == GGML_OP_NONE && !t->data && p->info[i].first_region >= 0;
        const bool kept = i < g->n_nodes && (t->flags & GGML_TENSOR_FLAG_OUTPUT) && !el_is_alias(t) &&
                          p->info[i].state == EL_NODE_DONE;
        if (!t->view_src && (is_input || kept)) {
            offsets[i] = a.used + 1;
            a.used += el_aligned(ggml_nbytes(t));
        }
    }
    for (int32_t r = 0; r < p->plan->n_regions; r++) {
        const el_region *region = &p->plan->regions[r];
        for (int32_t i = 0; i < g->n_nodes; i++)
            if (p->info[i].first_region == r && !offsets[i] && p->info[i].state == EL_NODE_DONE &&
                !g->nodes[i]->view_src && !g->nodes[i]->data)
                offsets[i] = place(p, &a, el_aligned(ggml_nbytes(g->nodes[i])), r) + 1;
        if (act_made_by(region))
            act_offsets[r] = place(p, &a, el_aligned(act_made_by(region)->nb[2]), r) + 1;
        if (p->max_rows <= EL_SHARED_ROWS)
            continue;
        for (int32_t i = 0; i < g->n_nodes; i++)
            if (p->info[i].last_region == r && offsets[i] && !(g->nodes[i]->flags & GGML_TENSOR_FLAG_OUTPUT))
                release(&a, offsets[i] - 1, el_aligned(ggml_nbytes(g->nodes[i])), r);
        if (r > 0 && act_offsets[r - 1])
            release(&a, act_offsets[r - 1] - 1, el_aligned(act_made_by(region - 1)->nb[2]), r);
    }
    p->status = take_arena(p, a.used);
    if (p->status != EDGELLM_OK)
        goto done;
    {
        char *base = (char *)(((uintptr_t)p->plan->arena->memory + EL_PLAN_ALIGN - 1) / EL_PLAN_ALIGN * EL_PLAN_ALIGN);
        for (int32_t i = 0; i < n; i++)
            if (offsets[i])
                (i < g->n_nodes ? g->nodes[i] : g->leafs[i - g->n_nodes])->data = base + offsets[i] - 1;
        for (int32_t r = 0; r < p->plan->n_regions; r++)
            if (act_offsets[r])
                act_made_by(&p->plan->regions[r])->data = base + act_offsets[r] - 1;
        for (int32_t i = 0; i < g->n_nodes; i++)
            if (g->nodes[i]->view_src && g->nodes[i]->view_src->data)
                g->nodes[i]->data = (char *)g->nodes[i]->view_src->data + g->nodes[i]->view_offs;
    }
done:
    el_free(a.holes);
    el_free(offsets);
    el_free(act_offsets);
}

void el_make_scratch(el_planner *p)
{
    el_cpu_plan *plan = p->plan;
    const size_t act = el_aligned(p->act_bytes), row = el_aligned(p->row_floats * 4),
                 tile = el_aligned(p->tile_floats * 4);
    const size_t queries = el_aligned(p->query_floats * 4), kernel = el_aligned(p->kernel_bytes);
    const size_t groups = el_aligned(p->group_ints * sizeof(int32_t));
    const size_t each = act + row + 2 * tile + queries + kernel + groups + EL_PLAN_ALIGN;
    char *at;

    plan->scratch = el_alloc((size_t)plan->n_threads, sizeof *plan->scratch);
    plan->scratch_bytes = (size_t)plan->n_threads * each + plan->work_bytes;
    plan->scratch_memory = el_alloc((size_t)plan->n_threads, each + EL_PLAN_ALIGN);
    plan->work = plan->work_bytes ? el_alloc(1, plan->work_bytes) : NULL;
    if (!plan->scratch || !plan->scratch_memory || (plan->work_bytes && !plan->work)) {
        p->status = el_no_memory((size_t)plan->n_threads * each + plan->work_bytes);
        return;
    }
    at = (char *)(((uintptr_t)plan->scratch_memory + EL_PLAN_ALIGN - 1) / EL_PLAN_ALIGN * EL_PLAN_ALIGN);
    for (int32_t w = 0; w < plan->n_threads; w++, at += each)
        plan->scratch[w] = (el_worker_scratch){.act = at,
                                               .row = (float *)(void *)(at + act),
                                               .tile = (float *)(void *)(at + act + row),
                                               .tile2 = (float *)(void *)(at + act + row + tile),
                                               .queries = (float *)(void *)(at + act + row + 2 * tile),
                                               .kernel = at + act + row + 2 * tile + queries,
                                               .groups = (int32_t *)(void *)(at + each - EL_PLAN_ALIGN - groups)};
}
