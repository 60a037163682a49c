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

enum { MOST_NODES = 32 + 2 * EL_MAX_USED_EXPERTS };

/* What stands after the router's product, NULL where a model has none of it. */
typedef struct nodes {
    struct ggml_tensor *logits, *probs, *score, *sorted, *picked, *softened, *total, *at_least, *divided, *scaled;
    struct ggml_tensor *up, *up_biased, *gate, *gate_biased, *hidden, *down, *down_biased, *weighted, *sum, *out;
    el_gating gating;
    el_map map; /* gate and up, or up alone, to hidden */
    float params[4];
    int32_t n_used, n_sums;              /* adds that have been found */
    struct ggml_tensor *all[MOST_NODES]; /* that have been recognised, out being the last */
    int32_t n_all;
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

static struct ggml_tensor *weights_of(const nodes *m)
{
    return m->scaled ? m->scaled : m->divided ? m->divided : m->softened ? m->softened : m->picked;
}

static struct ggml_tensor *down_of(const nodes *m) { return m->down_biased ? m->down_biased : m->down; }

/* The router's bias, the probabilities, and what is added to them for the choice alone. */
static bool meet_scores(const el_planner *p, nodes *m, struct ggml_tensor *t)
{
    const struct ggml_tensor *a = t->src[0], *b = t->src[1];

    if (m->sorted || !a || a != (m->score ? m->score : m->probs))
        return false;
    if (t->op == GGML_OP_ADD && el_is_vector(b, m->logits->ne[0])) {
        if (m->probs == m->logits && el_info_of(p, m->logits)->n_uses == 1)
            m->logits = m->probs = t;
        else if (!m->score)
            m->score = t;
        return true;
    }
    if (m->score)
        return false;
    if (t->op == GGML_OP_SOFT_MAX && a == m->logits && !b && !t->src[2] && el_param(t, 0) == 1 && el_param(t, 1) == 0)
        m->gating = EL_GATE_SOFTMAX;
    else if (t->op == GGML_OP_UNARY && a == m->logits && ggml_get_unary_op(t) == GGML_UNARY_OP_SIGMOID)
        m->gating = EL_GATE_SIGMOID;
    else if (t->op == GGML_OP_UNARY && a == m->logits && ggml_get_unary_op(t) == GGML_UNARY_OP_SOFTPLUS)
        m->gating = EL_GATE_SOFTPLUS;
    else if (t->op == GGML_OP_SQRT && m->gating == EL_GATE_SOFTPLUS)
        m->gating = EL_GATE_SQRT_SOFTPLUS;
    else
        return false;
    m->probs = t;
    return true;
}

/* The choice and the weights of the chosen. */
static bool meet_choice(nodes *m, struct ggml_tensor *t)
{
    const struct ggml_tensor *a = t->src[0], *b = t->src[1];
    struct ggml_tensor **place = NULL;

    if (t->op == GGML_OP_ARGSORT && a == (m->score ? m->score : m->probs) && !m->sorted &&
        t->op_params[0] == GGML_SORT_ORDER_DESC) {
        place = &m->sorted;
    } else if (t->op == GGML_OP_GET_ROWS && is_view_of(a, m->probs) && is_view_of(b, m->sorted) && a->ne[0] == 1 &&
               b->view_offs == 0 && !m->picked) {
        place = &m->picked;
        m->n_used = (int32_t)b->ne[0];
    } else if (m->picked && m->scaled == NULL && is_view_of(a, weights_of(m)) && a->ne[0] == m->n_used) {
        if (t->op == GGML_OP_SOFT_MAX && !b && !t->src[2] && el_param(t, 0) == 1 && el_param(t, 1) == 0 &&
            !m->softened && !m->total)
            place = &m->softened;
        else if (t->op == GGML_OP_SUM_ROWS && !m->total)
            place = &m->total;
        else if (t->op == GGML_OP_DIV && m->at_least && b == m->at_least && !m->divided)
            place = &m->divided;
        else if (t->op == GGML_OP_SCALE && el_param(t, 1) == 0)
            place = &m->scaled;
    } else if (t->op == GGML_OP_CLAMP && m->total && a == m->total) {
        place = &m->at_least;
    }
    if (place)
        *place = t;
    return place != NULL;
}

/* The experts' products, their biases, and what makes one row of gate and up. */
static bool meet_product(nodes *m, struct ggml_tensor *t, const struct ggml_tensor *x, struct ggml_tensor *first[2])
{
    struct ggml_tensor *a = t->src[0], *b = t->src[1];

    if (t->op == GGML_OP_MUL_MAT_ID && is_view_of(t->src[2], m->sorted) && t->src[2]->view_offs == 0) {
        if (is_view_of(b, x) && b->ne[1] == 1 && b->ne[0] == x->ne[0] && !first[1] && !m->hidden)
            first[first[0] ? 1 : 0] = t;
        else if (m->hidden && b == m->hidden && !m->down)
            m->down = t;
        else
            return false;
        return true;
    }
    if (t->op == GGML_OP_ADD_ID && is_view_of(t->src[2], m->sorted) && b->op == GGML_OP_NONE &&
        b->type == GGML_TYPE_F32 && ggml_is_contiguous(b)) {
        if (a == first[0] && !m->hidden)
            m->up_biased = t; /* whose it is, the gate tells */
        else if (a == first[1] && !m->hidden)
            m->gate_biased = t;
        else if (m->down && a == m->down && !m->weighted)
            m->down_biased = t;
        else
            return false;
        return true;
    }
    return false;
}

/* gate and up to hidden. */
static bool meet_activation(nodes *m, struct ggml_tensor *t, struct ggml_tensor *first[2])
{
    struct ggml_tensor *one = m->up_biased ? m->up_biased : first[0], *two = m->gate_biased ? m->gate_biased : first[1];
    float params[4];
    const int map = el_map_of(t, params);

    if (m->down || !one || map < 0 || (two && m->hidden))
        return false;
    if (two && t->op == GGML_OP_GLU &&
        ((t->src[0] == one && t->src[1] == two) || (t->src[0] == two && t->src[1] == one))) {
        const bool turned = t->src[0] == one;
        struct ggml_tensor *biased[2] = {m->up_biased, m->gate_biased};
        m->up = first[turned ? 1 : 0];
        m->gate = first[turned ? 0 : 1];
        m->up_biased = biased[turned ? 1 : 0];
        m->gate_biased = biased[turned ? 0 : 1];
        m->map = (el_map)map;
    } else if (!two && t->op == GGML_OP_UNARY && t->src[0] == one && !m->hidden) {
        m->up = first[0];
        m->map = (el_map)map;
    } else if (m->hidden && t->op == GGML_OP_SQR && t->src[0] == m->hidden && m->map == EL_MAP_RELU) {
        m->map = EL_MAP_RELU_SQR;
    } else {
        return false;
    }
    memcpy(m->params, params, sizeof params);
    m->hidden = t;
    return true;
}

/* The weighted sum of the experts' results. */
static bool meet_sum(nodes *m, struct ggml_tensor *t)
{
    struct ggml_tensor *a = t->src[0], *b = t->src[1];

    if (t->op == GGML_OP_MUL && m->down && a == down_of(m) && m->picked && is_view_of(b, weights_of(m)) &&
        b->ne[1] == m->n_used && !m->weighted) {
        m->weighted = t;
    } else if (t->op == GGML_OP_CONT && m->weighted && m->n_used == 1 && is_rank(a, m->weighted, 0)) {
        m->out = t;
    } else if (t->op == GGML_OP_ADD && m->weighted && is_rank(b, m->weighted, m->n_sums + 1) &&
               (m->sum ? a == m->sum : is_rank(a, m->weighted, 0))) {
        m->sum = t;
        if (++m->n_sums == m->n_used - 1)
            m->out = t;
    } else {
        return false;
    }
    return true;
}

/* Follows the nodes after the router's product. True when they are a whole mixture of experts. */
static bool match(const el_planner *p, int32_t router, nodes *m)
{
    const struct ggml_tensor *x = el_base_of(p->graph->nodes[router]->src[1]);
    struct ggml_tensor *first[2] = {NULL};

    *m = (nodes){.logits = p->graph->nodes[router], .probs = p->graph->nodes[router]};
    for (int32_t i = router + 1;
         i < p->graph->n_nodes && i < router + LOOK_AHEAD + 2 * m->n_used && !m->out && m->n_all < MOST_NODES; i++) {
        struct ggml_tensor *t = p->graph->nodes[i];
        if (el_is_alias(t) || el_info_of(p, t)->state != EL_NODE_NEW)
            continue;
        if (meet_scores(p, m, t) || meet_choice(m, t) || meet_product(m, t, x, first) || meet_activation(m, t, first) ||
            meet_sum(m, t))
            m->all[m->n_all++] = t;
    }
    return m->out && m->n_used <= EL_MAX_USED_EXPERTS && el_is_whole(p->graph->nodes[router]->src[1]);
}

/* Whether no one else reads what will not be stored. */
static bool is_closed(const el_planner *p, const nodes *m)
{
    for (int32_t i = -1; i < m->n_all - 1; i++) {
        const struct ggml_tensor *t = i < 0 ? m->logits : m->all[i];
        int32_t n_uses = 0;
        for (int32_t j = 0; j < m->n_all; j++)
            for (int k = 0; k < GGML_MAX_SRC; k++)
                n_uses += m->all[j]->src[k] && el_base_of(m->all[j]->src[k]) == t;
        if (n_uses != el_info_of(p, t)->n_uses)
            return false;
    }
    return true;
}

static bool can_compute(const el_planner *p, const nodes *m)
{
    const struct ggml_tensor *gate = m->gate ? m->gate->src[0] : m->up->src[0], *up = m->up->src[0];
    el_act_format a, b;

    if (!el_is_weight(p, gate) || !el_is_weight(p, up) || !el_is_weight(p, m->down->src[0]) ||
        !ggml_are_same_shape(gate, up))
        return false;
    a = el_format_for(p, gate);
    b = el_format_for(p, up);
    return a.own == b.own && a.kind == b.kind;
}

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static void size_chunks(el_planner *p, el_experts_job *job)
{
    const int64_t n_ff = job->up->ne[1], n_embd = job->down->ne[1],
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

static const struct ggml_tensor *weight_of(const struct ggml_tensor *product)
{
    return product ? product->src[0] : NULL;
}

static const struct ggml_tensor *bias_of(const struct ggml_tensor *biased) { return biased ? biased->src[1] : NULL; }

static void describe(el_experts_job *job, const nodes *m, const struct ggml_tensor *x)
{
    job->grouping =
        (el_grouping){.ids = m->sorted, .n_rows = x->ne[1], .n_expert = (int32_t)m->logits->ne[0], .n_used = m->n_used};
    job->logits = m->logits;
    job->gating = m->gating;
    job->choice_bias = bias_of(m->score);
    job->weights = weights_of(m);
    job->softmax_chosen = m->softened != NULL;
    job->normalise = m->divided != NULL;
    job->min_sum = m->at_least ? el_param(m->at_least, 0) : 0;
    job->factor = m->scaled ? el_param(m->scaled, 0) : 1;
    job->input = (el_row_program){.width = x->ne[0], .n_rows = x->ne[1]};
    job->gate = weight_of(m->gate);
    job->up = weight_of(m->up);
    job->down = weight_of(m->down);
    job->gate_bias = bias_of(m->gate_biased);
    job->up_bias = bias_of(m->up_biased);
    job->down_bias = bias_of(m->down_biased);
    job->map = m->map;
    memcpy(job->params, m->params, sizeof job->params);
    job->hidden = m->hidden;
    job->products = m->down;
    job->out = m->out;
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
    job->plan = p->plan;
    describe(job, &m, x);
    job->format = el_format_for(p, job->up);
    job->hidden_format = el_format_for(p, job->down);
    for (int32_t i = 0; i < m.n_all; i++) /* so that the router's product does not take them in; its bias it may */
        el_info_of(p, m.all[i])->state = m.all[i] == m.logits ? EL_NODE_NEW : EL_NODE_FUSED;
    el_plan_products(p, router);
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
    if (job->gate)
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
