/* plan_rows.c - row operations wait until something needs their rows, and become a program of that. */
#include <string.h>

#include "cpu_planner.h"

bool el_is_rows(const struct ggml_tensor *t)
{
    return t->type == GGML_TYPE_F32 && t->ne[2] == 1 && t->ne[3] == 1 && t->nb[0] == sizeof(float);
}

bool el_is_vector(const struct ggml_tensor *t, int64_t n)
{
    return t->op == GGML_OP_NONE && t->data && t->type == GGML_TYPE_F32 && t->ne[0] == n && ggml_nelements(t) == n;
}

/* A product with one number per row. */
static bool is_row_scale(const struct ggml_tensor *t)
{
    const struct ggml_tensor *b = t->src[1];

    return t->op == GGML_OP_MUL && el_is_rows(b) && b->ne[0] == 1 && b->ne[1] == t->ne[1];
}

bool el_can_pend(const struct ggml_tensor *t)
{
    float bias;

    if (!el_is_rows(t) || t->view_src) /* changed in place: now */
        return false;
    switch (t->op) {
    case GGML_OP_NORM:
    case GGML_OP_RMS_NORM:
    case GGML_OP_SQR:
        return el_is_rows(t->src[0]);
    case GGML_OP_UNARY: {
        float params[4];
        return el_is_rows(t->src[0]) && el_map_of(t, params) >= 0;
    }
    case GGML_OP_MUL:
        if (el_is_rows(t->src[0]) && is_row_scale(t))
            return true;
        /* fall through */
    case GGML_OP_ADD:
        return el_is_rows(t->src[0]) && (el_is_vector(t->src[1], t->ne[0]) ||
                                         (el_is_rows(t->src[1]) && ggml_are_same_shape(t->src[0], t->src[1])));
    case GGML_OP_GLU: {
        float params[4];
        return t->src[1] && el_is_rows(t->src[0]) && el_is_rows(t->src[1]) && el_map_of(t, params) >= 0;
    }
    case GGML_OP_SCALE:
        memcpy(&bias, t->op_params + 1, sizeof bias);
        return el_is_rows(t->src[0]) && bias == 0;
    case GGML_OP_GET_ROWS:
        return t->src[1]->type == GGML_TYPE_I32 && t->src[1]->ne[1] == 1 && t->src[0]->ne[2] == 1 &&
               ((t->src[0]->op == GGML_OP_NONE && t->src[0]->data &&
                 (t->src[0]->type == GGML_TYPE_F32 || ggml_get_type_traits(t->src[0]->type)->to_float)) ||
                el_is_rows(t->src[0]));
    default:
        return false;
    }
}

/* Leaves t for whoever needs its rows. A program that grows too long is cut where it stands. */
void el_pend(el_planner *p, const struct ggml_tensor *t)
{
    el_node_info *info = el_info_of(p, t);

    info->state = EL_NODE_PENDING;
    info->n_ops = 3; /* load, the operation, store */
    for (int k = 0; k < 2 && t->src[k]; k++) {
        el_node_info *source = el_info_of(p, t->src[k]);
        if (!source || source->state != EL_NODE_PENDING)
            continue;
        if (source->n_ops + 2 > EL_ROW_OPS)
            el_store_rows(p, t->src[k]);
        else
            info->n_ops = EL_MAX(info->n_ops, source->n_ops + 2);
    }
}

static void push(el_planner *p, el_row_program *program, el_row_op op)
{
    if (program->n_ops < EL_ROW_OPS)
        program->ops[program->n_ops++] = op;
    else if (p->status == EDGELLM_OK)
        p->status = el_fail(EDGELLM_EUNSUPPORTED, "a row program is longer than %d operations", EL_ROW_OPS);
}

/* A gather of rows that exist: can be added or loaded without a region of its own. */
static bool is_gather(const el_planner *p, const struct ggml_tensor *t)
{
    return t->op == GGML_OP_GET_ROWS && el_info_of(p, t)->state == EL_NODE_PENDING && el_info_of(p, t)->n_uses == 1 &&
           t->src[0]->op != GGML_OP_NONE && el_ready(p, t->src[0]);
}

/* Row r of `a` joined with row r of b; what is not there yet becomes the program, or is stored. */
static void join(el_planner *p, el_row_program *program, el_row_kind kind, const struct ggml_tensor *a,
                 const struct ggml_tensor *b)
{
    if (!el_ready(p, b) && !is_gather(p, b) && (el_ready(p, a) || is_gather(p, a))) {
        const struct ggml_tensor *swap = a;
        a = b;
        b = swap;
    }
    if (!el_ready(p, b) && !is_gather(p, b))
        el_store_rows(p, b);
    el_make_rows(p, program, a);
    if (is_gather(p, b)) {
        el_info_of(p, b)->state = EL_NODE_FUSED;
        push(p, program, (el_row_op){.kind = kind, .a = b->src[0], .ids = b->src[1]});
    } else {
        push(p, program, (el_row_op){.kind = kind, .a = b});
    }
}

/* Appends what makes row r of t; afterwards t is fused or, if others read it too, stored. */
void el_make_rows(el_planner *p, el_row_program *program, const struct ggml_tensor *t)
{
    el_node_info *info = el_info_of(p, t);
    const struct ggml_tensor *a, *b;

    if (!el_is_whole(t) || t->ne[0] != el_base_of(t)->ne[0])
        el_store_rows(p, t); /* a part of rows that are computed whole */
    if (el_ready(p, t)) {
        push(p, program, (el_row_op){.kind = EL_ROW_LOAD, .a = t});
        return;
    }
    t = el_base_of(t);
    a = t->src[0];
    b = t->src[1];
    switch (t->op) {
    case GGML_OP_RMS_NORM:
        el_make_rows(p, program, a);
        push(p, program, (el_row_op){.kind = EL_ROW_NORM, .f = el_param(t, 0)});
        break;
    case GGML_OP_NORM:
        el_make_rows(p, program, a);
        push(p, program, (el_row_op){.kind = EL_ROW_LAYER_NORM, .f = el_param(t, 0)});
        break;
    case GGML_OP_SQR:
    case GGML_OP_UNARY: {
        el_row_op op = {.kind = EL_ROW_MAP};
        op.map = (el_map)el_map_of(t, op.params);
        el_make_rows(p, program, a);
        push(p, program, op);
        break;
    }
    case GGML_OP_GLU: {
        el_row_op op = {.kind = EL_ROW_GATE, .a = a};
        op.map = (el_map)el_map_of(t, op.params);
        el_store_rows(p, a);
        el_make_rows(p, program, b);
        push(p, program, op);
        break;
    }
    case GGML_OP_MUL: {
        el_row_op *norm;
        if (is_row_scale(t)) {
            el_store_rows(p, b);
            el_make_rows(p, program, a);
            push(p, program, (el_row_op){.kind = EL_ROW_SCALE_BY, .a = b});
            break;
        }
        if (!el_is_vector(b, t->ne[0])) {
            join(p, program, EL_ROW_MUL, a, b);
            break;
        }
        el_make_rows(p, program, a);
        norm = program->n_ops > 0 ? &program->ops[program->n_ops - 1] : NULL;
        if (norm && norm->kind == EL_ROW_NORM && !norm->a)
            norm->a = b; /* one pass over the row */
        else
            push(p, program, (el_row_op){.kind = EL_ROW_MUL_VECTOR, .a = b});
        break;
    }
    case GGML_OP_SCALE:
        el_make_rows(p, program, a);
        push(p, program, (el_row_op){.kind = EL_ROW_SCALE, .f = el_param(t, 0)});
        break;
    case GGML_OP_ADD:
        if (el_is_vector(b, t->ne[0])) {
            el_make_rows(p, program, a);
            push(p, program, (el_row_op){.kind = EL_ROW_SUM_VECTOR, .a = b});
            break;
        }
        join(p, program, EL_ROW_ADD, a, b);
        break;
    case GGML_OP_GET_ROWS:
        if (a->op != GGML_OP_NONE && !el_ready(p, a))
            el_store_rows(p, a);
        push(p, program, (el_row_op){.kind = a->op == GGML_OP_NONE ? EL_ROW_EMBED : EL_ROW_LOAD, .a = a, .ids = b});
        break;
    default:
        if (p->status == EDGELLM_OK)
            p->status = el_fail(EDGELLM_EUNSUPPORTED, "%s is not a row operation", ggml_op_name(t->op));
        return;
    }
    info->state = EL_NODE_FUSED;
    if (info->n_uses > 1) {
        push(p, program, (el_row_op){.kind = EL_ROW_STORE, .a = t});
        program->stores = true;
        info->state = EL_NODE_DONE;
    }
}

/* A region that computes t and writes it. */
void el_store_rows(el_planner *p, const struct ggml_tensor *t)
{
    el_rows_job *job;

    t = el_base_of(t);
    if (el_ready(p, t) || p->status != EDGELLM_OK)
        return;
    job = el_own(p, sizeof *job);
    if (!job)
        return;
    *job = (el_rows_job){.plan = p->plan, .program = {.width = t->ne[0], .n_rows = t->ne[1]}, .rows_per_chunk = 4};
    el_info_of(p, t)->n_uses = EL_MAX(2, el_info_of(p, t)->n_uses); /* so that make_rows stores it */
    el_make_rows(p, &job->program, t);
    p->row_floats = EL_MAX(p->row_floats, (size_t)t->ne[0]);
    el_emit(p, el_rows_chunk, job, (int32_t)((t->ne[1] + 3) / 4), false);
}
