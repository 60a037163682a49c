/* plan_epilogues.c - what follows a product and is done before its result is written: bias, norms of heads, rope,
 * activations, residual sums, the way into the cache. Each gives the bits that its node would give as a region of its
 * own, so that what is taken in may depend on anything. */
#include <string.h>

#include "cpu_planner.h"
#include "ggml-impl.h"

enum {
    MOST_HEAD = 1024, /* floats that one chunk has to hold */
    LONE_HEAD = 256   /* of a row that may be one head, or a whole row whose norm would leave one chunk */
};

static bool same_angles(const struct ggml_tensor *a, const struct ggml_tensor *b)
{
    return a->src[1] == b->src[1] && a->src[2] == b->src[2] &&
           memcmp(a->op_params, b->op_params, sizeof a->op_params) == 0;
}

const el_rope_job *el_rope_for(el_planner *p, const struct ggml_tensor *node)
{
    const int64_t n_rows = node->ne[2];
    el_rope_job *job;

    for (int32_t r = 0; r < p->plan->n_regions; r++)
        if (p->plan->regions[r].run == el_rope_chunk &&
            same_angles(((const el_rope_job *)p->plan->regions[r].job)->node, node))
            return p->plan->regions[r].job;
    job = el_own(p, sizeof *job);
    if (!job)
        return NULL;
    *job = (el_rope_job){.positions = node->src[1],
                         .factors = node->src[2],
                         .node = node,
                         .n_rows = n_rows,
                         .n_rot = node->op_params[1],
                         .halves = node->op_params[2] == GGML_ROPE_TYPE_NEOX};
    job->cosines = el_own(p, (size_t)(n_rows * job->n_rot) * sizeof(float));
    if (!job->cosines)
        return NULL;
    job->sines = job->cosines + n_rows * (job->n_rot / 2);
    el_emit(p, el_rope_chunk, job, (int32_t)n_rows, false);
    return job;
}

bool el_add_epilogue(el_product *product, el_epilogue e)
{
    if (product->n_epilogue == EL_EPILOGUE_OPS)
        return false;
    product->epilogue[product->n_epilogue++] = e;
    return true;
}

/* scale by 1 / c, tanh, scale by c, starting at that node: one epilogue. Returns the last of the three, or NULL. */
static const struct ggml_tensor *softcapped(el_planner *p, const struct ggml_tensor *first, el_epilogue *e)
{
    const struct ggml_tensor *tanh_node, *last;

    if (first->op != GGML_OP_SCALE || el_param(first, 1) != 0)
        return NULL;
    tanh_node = el_only_user(p, first);
    if (!tanh_node || tanh_node->op != GGML_OP_UNARY || ggml_get_unary_op(tanh_node) != GGML_UNARY_OP_TANH)
        return NULL;
    last = el_only_user(p, tanh_node);
    if (!last || last->op != GGML_OP_SCALE || el_param(last, 1) != 0 || 1.0f / el_param(last, 0) != el_param(first, 0))
        return NULL;
    *e = (el_epilogue){.kind = EL_EPI_SOFTCAP, .f = el_param(last, 0)};
    el_info_of(p, first)->state = el_info_of(p, tanh_node)->state = EL_NODE_FUSED;
    return last;
}

/* Whether t is only being stored by the region whose input that is: not to be read within it. */
static bool stores(const el_row_program *input, const struct ggml_tensor *t)
{
    for (int32_t i = 0; i < input->n_ops; i++)
        if (input->ops[i].kind == EL_ROW_STORE && input->ops[i].a == el_base_of(t))
            return true;
    return false;
}

bool el_takes_whole(const struct ggml_tensor *t, const struct ggml_tensor *of)
{
    for (int k = 0; k < GGML_MAX_SRC; k++)
        if (t->src[k] && el_base_of(t->src[k]) == of && !el_is_whole(t->src[k]))
            return false;
    /* Of operations in place only those whose own source nobody else reads: ggml_clamp has no other form. */
    return !t->view_src || t->op == GGML_OP_SET_ROWS || t->op == GGML_OP_CLAMP;
}

/* A tensor of the model that is the same for all rows. */
static bool is_param(const struct ggml_tensor *t)
{
    return t->op == GGML_OP_NONE && t->data && t->type == GGML_TYPE_F32 && ggml_is_contiguous(t);
}

/* Whether t has one row per row of mm, cut into heads that an epilogue may take one by one. */
static bool has_heads(const el_product *product, const struct ggml_tensor *mm, const struct ggml_tensor *t)
{
    return t->ne[2] == mm->ne[1] && t->ne[0] * t->ne[1] == mm->ne[0] &&
           t->ne[0] <= (t->ne[1] > 1 ? MOST_HEAD : LONE_HEAD) && (product->head == 1 || product->head == t->ne[0]);
}

/* A sum, product or quotient with a vector over the outputs, or with one over each head. */
static bool with_param(el_product *product, const struct ggml_tensor *mm, const struct ggml_tensor *t, el_epilogue *e)
{
    const struct ggml_tensor *a = t->src[1];
    const bool add = t->op == GGML_OP_ADD;

    if (t->op == GGML_OP_MUL && is_param(a) && ggml_nelements(a) == 1) {
        *e = (el_epilogue){.kind = EL_EPI_FACTOR, .a = a};
        return true;
    }
    if ((!add && t->op != GGML_OP_MUL && t->op != GGML_OP_DIV) || !is_param(a) || a->ne[0] != t->ne[0] ||
        a->ne[2] != 1 || a->ne[3] != 1)
        return false;
    e->a = a;
    if (ggml_nelements(a) == mm->ne[0] && a->ne[1] == (t->ne[0] == mm->ne[0] ? 1 : t->ne[1])) {
        e->kind = add ? EL_EPI_BIAS : t->op == GGML_OP_MUL ? EL_EPI_MUL : EL_EPI_DIV;
        return true;
    }
    if (t->op == GGML_OP_DIV || a->ne[1] != 1 || !has_heads(product, mm, t))
        return false;
    e->kind = add ? EL_EPI_HEAD_BIAS : EL_EPI_HEAD_MUL;
    product->head = t->ne[0];
    return true;
}

/* A sum or product with a row of another tensor. */
static bool with_row(el_planner *p, const el_row_program *input, const struct ggml_tensor *mm,
                     const struct ggml_tensor *cur, const struct ggml_tensor *t, el_epilogue *e)
{
    const struct ggml_tensor *other;

    if ((t->op != GGML_OP_ADD && t->op != GGML_OP_MUL) || !el_is_rows(t) || t->ne[0] != mm->ne[0] ||
        !ggml_are_same_shape(t->src[0], t->src[1]))
        return false;
    other = el_base_of(t->src[0]) == cur ? t->src[1] : t->src[0];
    if (!el_ready(p, other) || stores(input, other) || !el_is_rows(other))
        return false;
    *e = (el_epilogue){.kind = t->op == GGML_OP_ADD ? EL_EPI_RESIDUAL : EL_EPI_ROW_MUL, .a = other};
    return true;
}

/* A norm of each head; with its weight, if one for all heads follows. Returns the last node, or NULL. */
static const struct ggml_tensor *head_norm(el_planner *p, el_product *product, const struct ggml_tensor *mm,
                                           const struct ggml_tensor *t, el_epilogue *e)
{
    const struct ggml_tensor *after;

    if ((t->op != GGML_OP_RMS_NORM && t->op != GGML_OP_NORM) || !has_heads(product, mm, t))
        return NULL;
    product->head = t->ne[0];
    *e = (el_epilogue){.kind = t->op == GGML_OP_NORM ? EL_EPI_LAYER_NORM : EL_EPI_NORM, .f = el_param(t, 0)};
    after = el_only_user(p, t);
    if (t->op == GGML_OP_NORM || !after || after->op != GGML_OP_MUL || !el_takes_whole(after, t) ||
        !el_is_vector(after->src[1], t->ne[0]))
        return t;
    e->a = after->src[1]; /* one pass */
    el_info_of(p, t)->state = EL_NODE_FUSED;
    return after;
}

static bool is_plain_rope(const struct ggml_tensor *t)
{
    return t->op == GGML_OP_ROPE &&
           (t->op_params[2] == GGML_ROPE_TYPE_NORMAL || t->op_params[2] == GGML_ROPE_TYPE_NEOX);
}

/* A number per row. */
static bool is_row_scale(const struct ggml_tensor *mm, const struct ggml_tensor *t)
{
    const struct ggml_tensor *a = t->src[1];

    return t->op == GGML_OP_MUL && a->op == GGML_OP_NONE && a->ne[0] == 1 && a->ne[1] == 1 && a->ne[2] == mm->ne[1] &&
           t->ne[2] == mm->ne[1];
}

/* The node after cur as an epilogue. Returns the last node that it takes in, or NULL. */
static const struct ggml_tensor *epilogue_of(el_planner *p, const el_row_program *input, el_product *product,
                                             const struct ggml_tensor *mm, const struct ggml_tensor *cur,
                                             const struct ggml_tensor *t, el_epilogue *e)
{
    const struct ggml_tensor *last;
    int map;

    *e = (el_epilogue){.kind = EL_EPI_MAP};
    if (with_param(product, mm, t, e) || with_row(p, input, mm, cur, t, e))
        return t;
    if ((last = head_norm(p, product, mm, t, e)) != NULL)
        return last;
    if (is_plain_rope(t) && has_heads(product, mm, t)) {
        *e = (el_epilogue){.kind = EL_EPI_ROPE, .rope = el_rope_for(p, t)};
        product->head = t->ne[0];
        return e->rope ? t : NULL;
    }
    if (is_row_scale(mm, t)) {
        *e = (el_epilogue){.kind = EL_EPI_SCALE, .a = t->src[1]};
        return t;
    }
    if ((last = softcapped(p, t, e)) != NULL)
        return last;
    map = t->src[1] || t->op == GGML_OP_GLU ? -1 : el_map_of(t, e->params);
    if (map < 0)
        return NULL;
    e->map = (el_map)map;
    return t;
}

/* The cache rows that cur becomes. */
static bool is_cache_write(const struct ggml_tensor *mm, const struct ggml_tensor *cur, const struct ggml_tensor *t)
{
    return t->op == GGML_OP_SET_ROWS && el_base_of(t->src[0]) == cur && t->src[1]->type == GGML_TYPE_I64 &&
           t->src[0]->ne[0] == mm->ne[0] && t->src[0]->ne[1] == mm->ne[1] && el_is_cache_type(t->type);
}

const struct ggml_tensor *el_follow_product(el_planner *p, const el_row_program *input, el_product *product,
                                            const struct ggml_tensor *mm, const struct ggml_tensor **gate)
{
    const struct ggml_tensor *cur = mm, *next, *last;
    el_epilogue e;
    float params[4];

    while ((next = el_only_user(p, cur)) != NULL && product->n_epilogue < EL_EPILOGUE_OPS - 1 &&
           el_takes_whole(next, cur) && el_info_of(p, next)->state == EL_NODE_NEW) {
        if (is_cache_write(mm, cur, next)) {
            product->out = next->src[2];
            product->slots = next->src[1];
            el_info_of(p, cur)->state = EL_NODE_FUSED;
            el_info_of(p, next)->state = EL_NODE_DONE;
            return NULL;
        }
        if (next->op == GGML_OP_GLU && next->src[1] && ggml_are_same_shape(next, mm) && el_map_of(next, params) >= 0)
            *gate = next;
        last = *gate ? NULL : epilogue_of(p, input, product, mm, cur, next, &e);
        if (!last || !el_add_epilogue(product, e))
            break;
        el_info_of(p, cur)->state = EL_NODE_FUSED;
        cur = last;
        el_info_of(p, cur)->state = EL_NODE_FUSED;
    }
    return cur;
}
