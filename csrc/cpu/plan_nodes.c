/* plan_nodes.c - nodes that become a region each, because nothing around them can be fused with them. */
#include <string.h>

#include "cpu_planner.h"
#include "ggml-impl.h"

enum {
    FLOATS_PER_CHUNK = 4096, /* of rows; below that, claiming a chunk would cost more than the work */
    CHUNKS_PER_WORKER = 6,
    BLOCK_ROWS = 32, /* activations of a chunk */
    LEAST_OUT = 32
};

/* ---- sources ------------------------------------------------------------------------------ */

/* Whether t changes memory that other tensors show: its result lies in one of them, or it is an operation of ours. */
bool el_writes_in_place(const struct ggml_tensor *t) { return (t->view_src && !el_is_alias(t)) || el_op_of(t); }

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
    for (int k = 0; k < GGML_MAX_SRC && el_writes_in_place(t); k++)
        for (int32_t i = 0; t->src[k] && i < p->graph->n_nodes && p->graph->nodes[i] != t; i++)
            if (p->info[i].state == EL_NODE_PENDING && reads(p->graph->nodes[i], el_base_of(t->src[k])))
                el_store_rows(p, p->graph->nodes[i]);
}

/* ---- operations of our own ---------------------------------------------------------------- */

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

/* ---- row by row --------------------------------------------------------------------------- */

/* Rows that the jobs can turn into floats, or make from floats. */
static bool readable(const struct ggml_tensor *t)
{
    return t->type == GGML_TYPE_F32 ||
           (t->nb[0] == ggml_type_size(t->type) && ggml_get_type_traits(t->type)->to_float != NULL);
}

static bool writable(const el_planner *p, const struct ggml_tensor *t)
{
    return t->type == GGML_TYPE_F32 ||
           (t->nb[0] == ggml_type_size(t->type) && p->plan->ggml->type_traits(t->type)->from_float != NULL);
}

static bool are_floats(const struct ggml_tensor *t)
{
    return t->type == GGML_TYPE_F32 && readable(t->src[0]) && (!t->src[1] || readable(t->src[1]));
}

/* Elements only move: integers of four bytes pass for floats. */
static bool can_move(const el_planner *p, const struct ggml_tensor *t)
{
    const bool integers = t->type == GGML_TYPE_I32 && t->src[0]->type == GGML_TYPE_I32;

    return integers || (readable(t->src[0]) && writable(p, t));
}

static int unary_map(const struct ggml_tensor *t)
{
    static const struct {
        enum ggml_unary_op op;
        el_map map;
    } known[] = {{GGML_UNARY_OP_ABS, EL_MAP_ABS},
                 {GGML_UNARY_OP_SGN, EL_MAP_SIGN},
                 {GGML_UNARY_OP_NEG, EL_MAP_NEG},
                 {GGML_UNARY_OP_STEP, EL_MAP_STEP},
                 {GGML_UNARY_OP_TANH, EL_MAP_TANH},
                 {GGML_UNARY_OP_ELU, EL_MAP_ELU},
                 {GGML_UNARY_OP_RELU, EL_MAP_RELU},
                 {GGML_UNARY_OP_SIGMOID, EL_MAP_SIGMOID},
                 {GGML_UNARY_OP_GELU, EL_MAP_GELU},
                 {GGML_UNARY_OP_GELU_QUICK, EL_MAP_GELU_QUICK},
                 {GGML_UNARY_OP_SILU, EL_MAP_SILU},
                 {GGML_UNARY_OP_HARDSWISH, EL_MAP_HARD_SWISH},
                 {GGML_UNARY_OP_HARDSIGMOID, EL_MAP_HARD_SIGMOID},
                 {GGML_UNARY_OP_EXP, EL_MAP_EXP},
                 {GGML_UNARY_OP_EXPM1, EL_MAP_EXPM1},
                 {GGML_UNARY_OP_SOFTPLUS, EL_MAP_SOFTPLUS},
                 {GGML_UNARY_OP_GELU_ERF, EL_MAP_GELU_ERF},
                 {GGML_UNARY_OP_XIELU, EL_MAP_XIELU}};

    for (size_t i = 0; i < EL_COUNT(known); i++)
        if (known[i].op == ggml_get_unary_op(t))
            return (int)known[i].map;
    return -1;
}

static int glu_map(const struct ggml_tensor *t)
{
    static const el_map maps[] = {
        [GGML_GLU_OP_REGLU] = EL_MAP_REGLU,         [GGML_GLU_OP_GEGLU] = EL_MAP_GEGLU,
        [GGML_GLU_OP_SWIGLU] = EL_MAP_SWIGLU,       [GGML_GLU_OP_SWIGLU_OAI] = EL_MAP_SWIGLU_OAI,
        [GGML_GLU_OP_GEGLU_ERF] = EL_MAP_GEGLU_ERF, [GGML_GLU_OP_GEGLU_QUICK] = EL_MAP_GEGLU_QUICK};

    return t->op_params[0] < (int)EL_COUNT(maps) ? (int)maps[t->op_params[0]] : -1;
}

int el_map_of(const struct ggml_tensor *t, float params[4])
{
    static const struct {
        enum ggml_op op;
        el_map map;
        int first; /* of its parameters in op_params */
    } known[] = {{GGML_OP_ADD, EL_MAP_ADD, 0},   {GGML_OP_ADD1, EL_MAP_ADD, 0},    {GGML_OP_SUB, EL_MAP_SUB, 0},
                 {GGML_OP_MUL, EL_MAP_MUL, 0},   {GGML_OP_DIV, EL_MAP_DIV, 0},     {GGML_OP_SQR, EL_MAP_SQR, 0},
                 {GGML_OP_SQRT, EL_MAP_SQRT, 0}, {GGML_OP_SCALE, EL_MAP_SCALE, 0}, {GGML_OP_CLAMP, EL_MAP_CLAMP, 0},
                 {GGML_OP_UNARY, EL_MAP_EXP, 1}, {GGML_OP_GLU, EL_MAP_REGLU, 2}};

    for (size_t i = 0; i < EL_COUNT(known); i++) {
        if (known[i].op != t->op)
            continue;
        for (int k = 0; k < 4; k++)
            params[k] = el_param(t, known[i].first + k);
        return t->op == GGML_OP_UNARY ? unary_map(t) : t->op == GGML_OP_GLU ? glu_map(t) : (int)known[i].map;
    }
    return -1;
}

static bool is_plain_rope(const struct ggml_tensor *t)
{
    return (t->op_params[2] == GGML_ROPE_TYPE_NORMAL || t->op_params[2] == GGML_ROPE_TYPE_NEOX) && t->ne[3] == 1 &&
           t->src[1]->ne[0] == t->ne[2] && t->type == GGML_TYPE_F32 && readable(t->src[0]);
}

/* How t is computed row by row; false: it is not. */
static bool describe(el_planner *p, const struct ggml_tensor *t, el_node_job *job)
{
    const int map = el_map_of(t, job->params);

    if (map >= 0) {
        job->row = el_map_row;
        job->map = (el_map)map;
        job->halves = t->op == GGML_OP_GLU && !t->src[1];
        job->swapped = job->halves && t->op_params[1];
        return are_floats(t);
    }
    job->params[0] = el_param(t, 0);
    switch (t->op) {
    case GGML_OP_NORM:
    case GGML_OP_RMS_NORM:
    case GGML_OP_L2_NORM:
        job->row = el_norm_row;
        return are_floats(t);
    case GGML_OP_SUM_ROWS:
    case GGML_OP_MEAN:
        job->row = el_sum_row;
        return are_floats(t);
    case GGML_OP_SOFT_MAX:
        job->row = el_softmax_row;
        return are_floats(t) && !t->src[2] && el_param(t, 1) == 0;
    case GGML_OP_ARGSORT:
        job->row = el_sort_row;
        job->swapped = t->op_params[0] == GGML_SORT_ORDER_ASC;
        return readable(t->src[0]);
    case GGML_OP_TOP_K:
        job->row = el_sort_row;
        return readable(t->src[0]);
    case GGML_OP_DUP:
    case GGML_OP_CPY:
    case GGML_OP_CONT:
        job->row = el_copy_row;
        return can_move(p, t);
    case GGML_OP_REPEAT:
        job->row = el_repeat_row;
        return can_move(p, t);
    case GGML_OP_CONCAT:
        job->row = el_concat_row;
        return can_move(p, t) && t->type == t->src[1]->type && ggml_blck_size(t->type) == 1;
    case GGML_OP_GET_ROWS:
        job->row = el_gather_row;
        return can_move(p, t);
    case GGML_OP_SET_ROWS:
        job->row = el_scatter_row;
        job->n_rows = ggml_nrows(t->src[0]);
        return can_move(p, t);
    case GGML_OP_FILL:
        job->row = el_fill_row;
        return t->type == GGML_TYPE_F32;
    case GGML_OP_ADD_ID:
        job->row = el_add_id_row;
        return are_floats(t);
    case GGML_OP_ROPE:
        job->row = el_rope_row;
        if (is_plain_rope(t))
            job->rope = el_rope_for(p, t);
        return job->rope != NULL;
    default:
        return false;
    }
}

static int64_t widest(const struct ggml_tensor *t)
{
    int64_t n = t->ne[0];

    for (int k = 0; k < GGML_MAX_SRC; k++)
        n = t->src[k] ? EL_MAX(n, t->src[k]->ne[0]) : n;
    return n;
}

bool el_plan_node(el_planner *p, struct ggml_tensor *t)
{
    el_node_job job = {.node = t, .plan = p->plan, .n_rows = ggml_nrows(t)}, *kept;
    const int64_t width = widest(t);

    if (!describe(p, t, &job))
        return false;
    kept = el_own(p, sizeof *kept);
    if (!kept)
        return true; /* planning ends with the error */
    el_store_sources(p, t);
    job.rows_per_chunk = EL_MAX(1, FLOATS_PER_CHUNK / width);
    p->row_floats = EL_MAX(p->row_floats, (size_t)width);
    p->tile_floats = EL_MAX(p->tile_floats, (size_t)width);
    *kept = job;
    el_emit(p, el_node_chunk, kept, (int32_t)((job.n_rows + job.rows_per_chunk - 1) / job.rows_per_chunk),
            el_writes_in_place(t));
    el_info_of(p, t)->state = EL_NODE_DONE;
    return true;
}

/* ---- products of any shape ---------------------------------------------------------------- */

static bool can_multiply(const el_planner *p, const struct ggml_tensor *w, const struct ggml_tensor *x)
{
    const struct ggml_type_traits_cpu *traits = p->plan->ggml->type_traits(w->type);

    return w->nb[0] == ggml_type_size(w->type) && traits->vec_dot &&
           (traits->vec_dot_type == GGML_TYPE_F32 || p->plan->ggml->type_traits(traits->vec_dot_type)->from_float) &&
           (x->type == GGML_TYPE_F32 || (x->type == GGML_TYPE_F16 && x->nb[0] == 2));
}

static void size_blocks(el_planner *p, el_batched_job *job, int64_t n_rows, int64_t n_matrices)
{
    const struct ggml_tensor *t = job->node, *w = t->src[0];
    const int64_t wanted = (int64_t)p->plan->n_threads * CHUNKS_PER_WORKER;

    job->rows_per_chunk = EL_MIN((int64_t)BLOCK_ROWS, n_rows);
    job->row_blocks = (n_rows + job->rows_per_chunk - 1) / job->rows_per_chunk;
    job->out_per_chunk = EL_MIN((int64_t)1024, t->ne[0] * n_matrices * job->row_blocks / wanted + 1);
    job->out_per_chunk = (job->out_per_chunk + LEAST_OUT - 1) / LEAST_OUT * LEAST_OUT;
    job->out_blocks = (t->ne[0] + job->out_per_chunk - 1) / job->out_per_chunk;
    p->row_floats = EL_MAX(p->row_floats, (size_t)w->ne[0]);
    p->tile_floats = EL_MAX(p->tile_floats, (size_t)(job->out_per_chunk * job->rows_per_chunk));
    p->act_bytes = EL_MAX(p->act_bytes, (size_t)job->rows_per_chunk * job->format.stride);
    p->kernel_bytes = EL_MAX(p->kernel_bytes, job->format.own ? el_matmul_scratch(w->type, w->ne[0]) : 0);
}

static void plan_batched(el_planner *p, el_batched_job *job)
{
    const struct ggml_tensor *t = job->node;

    size_blocks(p, job, t->ne[1], t->ne[2] * t->ne[3]);
    el_emit(p, el_batched_chunk, job, (int32_t)(job->out_blocks * job->row_blocks * t->ne[2] * t->ne[3]), false);
}

static void plan_by_id(el_planner *p, el_batched_job *job)
{
    const struct ggml_tensor *t = job->node, *ids = t->src[2];
    const int64_t n_entries = t->ne[1] * t->ne[2];

    job->grouping = (el_grouping){.ids = ids,
                                  .n_rows = t->ne[2],
                                  .n_used = (int32_t)t->ne[1],
                                  .n_expert = (int32_t)t->src[0]->ne[2],
                                  .n_slots = (int32_t)EL_MIN(t->src[0]->ne[2], n_entries)};
    size_blocks(p, job, EL_MIN((int64_t)BLOCK_ROWS, t->ne[2]), job->grouping.n_slots);
    p->group_ints = EL_MAX(p->group_ints, el_grouping_ints(&job->grouping));
    el_emit(p, el_by_id_chunk, job, (int32_t)(job->grouping.n_slots * job->out_blocks), false);
}

bool el_plan_any_product(el_planner *p, struct ggml_tensor *t)
{
    el_batched_job *job;

    if ((t->op != GGML_OP_MUL_MAT && t->op != GGML_OP_MUL_MAT_ID) || !can_multiply(p, t->src[0], t->src[1]))
        return false;
    job = el_own(p, sizeof *job);
    if (!job)
        return true;
    *job = (el_batched_job){.node = t, .plan = p->plan, .format = el_format_for(p, t->src[0])};
    el_store_sources(p, t);
    (t->op == GGML_OP_MUL_MAT ? plan_batched : plan_by_id)(p, job);
    el_info_of(p, t)->state = EL_NODE_DONE;
    return true;
}
