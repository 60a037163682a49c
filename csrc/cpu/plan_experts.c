/* plan_experts.c - the nodes of a mixture of experts (el_build_experts in csrc/models) become four to six regions:
 * the router's product; the choice of experts; gate and up; the hidden rows quantized (with more than a few); down and
 * the weighted sum (two regions with many rows). */
#include <string.h>

#include "cpu_planner.h"
#include "ggml-impl.h"

enum {
    LOOK_AHEAD = 64, /* nodes from the router to the last one before the sums */
    CHUNKS_PER_WORKER = 6,
    BIG_OUT = 128,
    BLOCK = 32 /* outputs of a chunk and entries that it takes at a time when there are many */
};

/* What stands after the router's logits. */
typedef struct nodes {
    struct ggml_tensor *logits, *probs, *sorted, *picked, *total, *at_least, *divided, *scaled;
    struct ggml_tensor *up, *gate, *glu, *down, *weighted, *sum, *out;
    int32_t n_sums; /* adds that have been found */
} nodes;

static bool is_view_of(const struct ggml_tensor *t, const struct ggml_tensor *base)
{
    return base && t && el_base_of(t) == base;
}

/* Whether t is the part of `weighted` with that rank, for all rows. */
static bool is_rank(const struct ggml_tensor *t, const struct ggml_tensor *weighted, int32_t rank)
{
    return t->op == GGML_OP_VIEW && t->src[0] == weighted && t->view_offs == (size_t)rank * weighted->nb[1] &&
           t->ne[0] == weighted->ne[0] && t->ne[1] == weighted->ne[2] && t->nb[1] == weighted->nb[2];
}

static void meet_product(nodes *m, struct ggml_tensor *t, const struct ggml_tensor *x, struct ggml_tensor *first[2])
{
    if (!is_view_of(t->src[2], m->sorted))
        return;
    if (is_view_of(t->src[1], x) && t->src[1]->ne[1] == 1)
        first[first[0] ? 1 : 0] = t;
    else if (m->glu && t->src[1] == m->glu)
        m->down = t;
}

/* Follows the nodes after the router's product. True when they are a whole mixture of experts. */
static bool match(const el_planner *p, int32_t router, nodes *m)
{
    const struct ggml_tensor *x = el_base_of(p->graph->nodes[router]->src[1]);
    struct ggml_tensor *first[2] = {NULL};
    int32_t n_used = 0;

    *m = (nodes){.logits = p->graph->nodes[router]};
    for (int32_t i = router + 1; i < p->graph->n_nodes && i < router + LOOK_AHEAD + 2 * n_used && !m->out; i++) {
        struct ggml_tensor *t = p->graph->nodes[i], *a = t->src[0], *b = t->src[1];
        const struct ggml_tensor *weights = m->scaled ? m->scaled : m->divided ? m->divided : m->picked;
        switch (t->op) {
        case GGML_OP_SOFT_MAX:
            if (a == m->logits && !b && !t->src[2] && el_param(t, 0) == 1 && el_param(t, 1) == 0)
                m->probs = t;
            break;
        case GGML_OP_ARGSORT:
            if (m->probs && a == m->probs && t->op_params[0] == GGML_SORT_ORDER_DESC)
                m->sorted = t;
            break;
        case GGML_OP_GET_ROWS:
            if (is_view_of(a, m->probs) && is_view_of(b, m->sorted) && a->ne[0] == 1 && b->view_offs == 0) {
                m->picked = t;
                n_used = (int32_t)b->ne[0];
            }
            break;
        case GGML_OP_SUM_ROWS:
            if (is_view_of(a, m->picked) && a->ne[0] == n_used)
                m->total = t;
            break;
        case GGML_OP_CLAMP:
            if (m->total && a == m->total)
                m->at_least = t;
            break;
        case GGML_OP_DIV:
            if (is_view_of(a, m->picked) && m->at_least && b == m->at_least)
                m->divided = t;
            break;
        case GGML_OP_SCALE:
            if (weights && is_view_of(a, weights) && !m->scaled && el_param(t, 1) == 0)
                m->scaled = t;
            break;
        case GGML_OP_MUL_MAT_ID:
            meet_product(m, t, x, first);
            break;
        case GGML_OP_GLU:
            if (first[1] && t->op_params[1] == 0 &&
                (t->op_params[0] == GGML_GLU_OP_SWIGLU || t->op_params[0] == GGML_GLU_OP_GEGLU) &&
                ((a == first[0] && b == first[1]) || (a == first[1] && b == first[0]))) {
                m->gate = a;
                m->up = b;
                m->glu = t;
            }
            break;
        case GGML_OP_MUL:
            if (m->down && a == m->down && weights && is_view_of(b, weights) && b->ne[1] == n_used)
                m->weighted = t;
            break;
        case GGML_OP_CONT:
            if (m->weighted && n_used == 1 && is_rank(a, m->weighted, 0))
                m->out = t;
            break;
        case GGML_OP_ADD:
            if (m->weighted && is_rank(b, m->weighted, m->n_sums + 1) &&
                (m->sum ? a == m->sum : is_rank(a, m->weighted, 0))) {
                m->sum = t;
                if (++m->n_sums == n_used - 1)
                    m->out = t;
            }
            break;
        default:
            break;
        }
    }
    return m->out && n_used <= EL_MAX_USED_EXPERTS;
}

/* Whether no one else reads what will not be stored. */
static bool is_closed(const el_planner *p, const nodes *m)
{
    const int32_t n_used = (int32_t)m->down->ne[1], more = m->total ? 2 : 1;
    const struct {
        const struct ggml_tensor *t;
        int32_t n_uses;
    } expected[] = {{m->logits, 1},   {m->probs, 2},   {m->sorted, 4},       {m->picked, more}, {m->total, 1},
                    {m->at_least, 1}, {m->divided, 1}, {m->scaled, 1},       {m->up, 1},        {m->gate, 1},
                    {m->glu, 1},      {m->down, 1},    {m->weighted, n_used}};

    for (size_t i = 0; i < EL_COUNT(expected); i++)
        if (expected[i].t && el_info_of(p, expected[i].t)->n_uses != expected[i].n_uses)
            return false;
    return true;
}

static bool can_compute(const el_planner *p, const nodes *m)
{
    const struct ggml_tensor *gate = m->gate->src[0], *up = m->up->src[0], *down = m->down->src[0];
    el_act_format a, b;

    if (!el_is_weight(p, gate) || !el_is_weight(p, up) || !el_is_weight(p, down) || !ggml_are_same_shape(gate, up))
        return false;
    a = el_format_for(p, gate);
    b = el_format_for(p, up);
    return a.own == b.own && a.kind == b.kind;
}

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static void size_chunks(el_planner *p, el_experts_job *job)
{
    const int64_t n_ff = job->gate->ne[1], n_embd = job->down->ne[1],
                  n_entries = job->grouping.n_rows * job->grouping.n_used;
    const int64_t wanted = (int64_t)p->plan->n_threads * CHUNKS_PER_WORKER;
    const bool many = job->grouping.n_rows > EL_SMALL_ROWS;
    const size_t input = job->format.stride, hidden = job->hidden_format.stride;
    size_t tile;

    job->grouping.n_slots = (int32_t)EL_MIN((int64_t)job->grouping.n_expert, n_entries);
    job->entries_per_block = EL_MIN((int64_t)BLOCK, job->grouping.n_rows);
    job->up_per_chunk = many ? BIG_OUT : round_up(EL_MIN(n_ff * job->grouping.n_slots / wanted + 1, (int64_t)1024), 32);
    job->up_chunks = (int32_t)((n_ff + job->up_per_chunk - 1) / job->up_per_chunk);
    job->down_per_chunk = many ? BIG_OUT : round_up(EL_MIN(n_embd / wanted + 1, (int64_t)1024), 32);
    job->down_chunks = (int32_t)((n_embd + job->down_per_chunk - 1) / job->down_per_chunk);
    tile = (size_t)(job->up_per_chunk * job->entries_per_block);
    tile = EL_MAX(tile, (size_t)(job->down_per_chunk * (many ? job->entries_per_block : n_entries)));
    tile = EL_MAX(tile, (size_t)(many ? n_embd : job->grouping.n_expert));
    p->tile_floats = EL_MAX(p->tile_floats, EL_MAX(tile, (size_t)job->grouping.n_expert));
    p->row_floats = EL_MAX(p->row_floats, (size_t)EL_MAX(job->input.width, n_embd));
    p->act_bytes = EL_MAX(p->act_bytes, (size_t)job->entries_per_block * EL_MAX(input, hidden) +
                                            (job->hidden_act ? 0 : (size_t)n_entries * hidden));
    p->group_ints = EL_MAX(p->group_ints, el_grouping_ints(&job->grouping));
}

static void scratch_of(el_planner *p, const el_act_format *format, const struct ggml_tensor *w)
{
    if (format->own)
        p->kernel_bytes = EL_MAX(p->kernel_bytes, el_matmul_scratch(w->type, w->ne[0]));
}

static void done(el_planner *p, const struct ggml_tensor *t) { el_info_of(p, t)->state = EL_NODE_DONE; }

enum { N_FUSED = 10 };

static void fuse_all(el_planner *p, struct ggml_tensor *const fused[N_FUSED])
{
    for (int32_t i = 0; i < N_FUSED; i++)
        if (fused[i])
            el_info_of(p, fused[i])->state = EL_NODE_FUSED;
}

bool el_plan_experts(el_planner *p, int32_t router)
{
    const struct ggml_tensor *x = p->graph->nodes[router]->src[1];
    struct ggml_tensor *after;
    el_experts_job *job;
    nodes m;

    if (!match(p, router, &m) || !is_closed(p, &m) || !can_compute(p, &m))
        return false;
    job = el_own(p, sizeof *job);
    if (!job)
        return true; /* planning ends with the error */
    *job = (el_experts_job){.plan = p->plan,
                            .grouping = {.ids = m.sorted,
                                         .n_rows = x->ne[1],
                                         .n_expert = (int32_t)m.logits->ne[0],
                                         .n_used = (int32_t)m.down->ne[1]},
                            .logits = m.logits,
                            .weights = m.scaled    ? m.scaled
                                       : m.divided ? m.divided
                                                   : m.picked,
                            .normalise = m.divided != NULL,
                            .min_sum = m.at_least ? el_param(m.at_least, 0) : 0,
                            .factor = m.scaled ? el_param(m.scaled, 0) : 1,
                            .input = {.width = x->ne[0], .n_rows = x->ne[1]},
                            .gate = m.gate->src[0],
                            .up = m.up->src[0],
                            .down = m.down->src[0],
                            .gelu = m.glu->op_params[0] == GGML_GLU_OP_GEGLU,
                            .hidden = m.glu,
                            .products = m.down,
                            .out = m.out};
    job->format = el_format_for(p, job->gate);
    job->hidden_format = el_format_for(p, job->down);
    el_plan_products(p, router);
    fuse_all(p, (struct ggml_tensor *[]){m.probs, m.picked, m.total, m.at_least, m.divided, m.scaled, m.up, m.gate,
                                         m.weighted, m.down});
    for (int32_t i = router + 1; p->graph->nodes[i] != m.out; i++) /* the sums */
        if (p->graph->nodes[i]->op == GGML_OP_ADD && el_info_of(p, p->graph->nodes[i])->state == EL_NODE_NEW)
            el_info_of(p, p->graph->nodes[i])->state = EL_NODE_FUSED;
    after = el_only_user(p, m.out);
    if (after && after->op == GGML_OP_ADD && ggml_are_same_shape(after->src[0], after->src[1])) {
        const struct ggml_tensor *other = after->src[0] == m.out ? after->src[1] : after->src[0];
        if (el_ready(p, other) && el_is_rows(other)) {
            el_info_of(p, m.out)->state = EL_NODE_FUSED;
            job->residual = other;
            job->out = after;
        }
    }
    el_make_rows(p, &job->input, x);
    job->act = el_act_rows(p, &job->format, job->grouping.n_rows);
    if (job->grouping.n_rows * job->grouping.n_used > EL_SMALL_ROWS)
        job->hidden_act = el_act_rows(p, &job->hidden_format, job->grouping.n_rows * job->grouping.n_used);
    scratch_of(p, &job->format, job->gate);
    scratch_of(p, &job->format, job->up);
    scratch_of(p, &job->hidden_format, job->down);
    size_chunks(p, job);
    done(p, job->grouping.ids);
    done(p, job->weights);
    done(p, job->hidden);
    done(p, job->out);
    el_emit(p, el_choose_chunk, job, el_row_chunks(job->grouping.n_rows), false);
    el_emit(p, el_experts_up_chunk, job, job->grouping.n_slots * job->up_chunks, false);
    if (job->hidden_act)
        el_emit(p, el_experts_hidden_chunk, job, el_row_chunks(job->grouping.n_rows * job->grouping.n_used), false);
    if (job->grouping.n_rows > EL_SMALL_ROWS) {
        done(p, job->products);
        el_emit(p, el_experts_down_chunk, job, job->grouping.n_slots * job->down_chunks, false);
        el_emit(p, el_experts_sum_chunk, job, el_row_chunks(job->grouping.n_rows), false);
    } else {
        el_emit(p, el_experts_out_chunk, job, job->down_chunks, false);
    }
    return true;
}

bool el_is_experts_region(const el_region *r)
{
    return r->run == el_choose_chunk || r->run == el_experts_up_chunk || r->run == el_experts_hidden_chunk ||
           r->run == el_experts_down_chunk || r->run == el_experts_sum_chunk || r->run == el_experts_out_chunk;
}
