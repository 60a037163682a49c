/* plan_products.c - products that share their input become one region, with the nodes that follow them. */
#include <string.h>

#include "cpu_planner.h"
#include "ggml-impl.h"

enum {
    LOOK_AHEAD = 48, /* nodes between products that share their input */
    CHUNKS_PER_WORKER = 6,
    BIG_OUT = 256,
    BIG_ROWS = 64, /* outputs and rows of a chunk when there are many rows, at most */
    LEAST_OUT = 32,
    BIG_CHUNKS_PER_WORKER = 12
};

/* Our kernel where this CPU has a fast one, else ggml's dot product inside our driver: a plain C kernel of ours is only
 * quicker than that where nothing else is fast either. */
static bool has_kernel(const el_planner *p, enum ggml_type type)
{
    const el_kernels *k = p->plan->kernels, *ref = el_kernels_named("ref");

    return (int)type < EL_KERNELS_N_TYPES && k->matmul[type] && (k == ref || k->matmul[type] != ref->matmul[type]);
}

el_act_format el_format_for(const el_planner *p, const struct ggml_tensor *w)
{
    const int kind = has_kernel(p, w->type) ? el_kernels_act_kind(w->type) : -1;
    el_act_format f = {.own = kind >= 0, .kind = kind};

    if (f.own) {
        f.stride = el_act_row_bytes((el_act_kind)kind, w->ne[0]);
    } else {
        f.kind = p->plan->ggml->type_traits(w->type)->vec_dot_type;
        f.stride = el_aligned(ggml_row_size((enum ggml_type)f.kind, w->ne[0]));
    }
    return f;
}

bool el_is_weight(const el_planner *p, const struct ggml_tensor *w)
{
    const struct ggml_type_traits_cpu *traits = p->plan->ggml->type_traits(w->type);

    return w->op == GGML_OP_NONE && w->data && w->ne[3] == 1 && traits->vec_dot &&
           (traits->vec_dot_type == GGML_TYPE_F32 || p->plan->ggml->type_traits(traits->vec_dot_type)->from_float);
}

bool el_is_product(const el_planner *p, const struct ggml_tensor *t)
{
    return t->op == GGML_OP_MUL_MAT && el_is_weight(p, t->src[0]) && t->src[0]->ne[2] == 1 && el_is_rows(t->src[1]) &&
           el_is_rows(t);
}

const struct ggml_tensor *el_act_rows(el_planner *p, const el_act_format *format, int64_t n_rows)
{
    struct ggml_tensor *act = el_own(p, sizeof *act);

    if (act)
        *act = (struct ggml_tensor){.type = GGML_TYPE_I8,
                                    .ne = {(int64_t)format->stride, n_rows, 1, 1},
                                    .nb = {1, format->stride, format->stride * (size_t)n_rows, 0}};
    return act;
}

static int64_t lcm(int64_t a, int64_t b)
{
    int64_t x = a, y = b;

    while (y) {
        const int64_t t = x % y;
        x = y;
        y = t;
    }
    return a / x * b;
}

static bool add_epilogue(el_product *product, el_epilogue e)
{
    if (product->n_epilogue == EL_EPILOGUE_OPS)
        return false;
    product->epilogue[product->n_epilogue++] = e;
    return true;
}

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

/* Whether t reads all of that tensor, in its order. */
static bool takes_whole(const struct ggml_tensor *t, const struct ggml_tensor *of)
{
    for (int k = 0; k < GGML_MAX_SRC; k++)
        if (t->src[k] && el_base_of(t->src[k]) == of && !el_is_whole(t->src[k]))
            return false;
    return !t->view_src || t->op == GGML_OP_SET_ROWS; /* no operations in place */
}

/* Takes in what follows the product, as far as it can. Returns the last tensor taken in; *gate is the gating node that
 * comes next, if one does. */
static const struct ggml_tensor *follow(el_planner *p, const el_row_program *input, el_product *product,
                                        const struct ggml_tensor *mm, const struct ggml_tensor **gate)
{
    const int64_t n = product->w->ne[1];
    const struct ggml_tensor *cur = mm, *next;

    while ((next = el_only_user(p, cur)) != NULL && product->n_epilogue < EL_EPILOGUE_OPS - 1 &&
           takes_whole(next, cur)) {
        el_epilogue e = {.a = next->src[1]};
        const struct ggml_tensor *after;
        if (next->op == GGML_OP_ADD && el_base_of(next->src[0]) == cur && el_is_vector(next->src[1], n)) {
            e.kind = EL_EPI_BIAS;
        } else if (next->op == GGML_OP_ADD && el_is_rows(next) && next->ne[0] == n) {
            const struct ggml_tensor *other = el_base_of(next->src[0]) == cur ? next->src[1] : next->src[0];
            if (!el_ready(p, other) || stores(input, other) || !el_is_rows(other) ||
                !ggml_are_same_shape(next->src[0], next->src[1]))
                break;
            e.kind = EL_EPI_RESIDUAL;
            e.a = other;
        } else if (next->op == GGML_OP_RMS_NORM && next->ne[2] == mm->ne[1] && next->ne[0] * next->ne[1] == n) {
            after = el_only_user(p, next);
            if (!after || after->op != GGML_OP_MUL || !el_is_vector(after->src[1], next->ne[0]))
                break;
            e = (el_epilogue){.kind = EL_EPI_NORM, .a = after->src[1], .f = el_param(next, 0)};
            product->head = lcm(product->head, next->ne[0]);
            if (product->head != next->ne[0])
                break;
            el_info_of(p, next)->state = EL_NODE_FUSED;
            next = after;
        } else if (next->op == GGML_OP_ROPE && next->ne[2] == mm->ne[1] && next->ne[0] * next->ne[1] == n &&
                   (product->head == 1 || product->head == next->ne[0]) &&
                   (next->op_params[2] == GGML_ROPE_TYPE_NORMAL || next->op_params[2] == GGML_ROPE_TYPE_NEOX)) {
            e = (el_epilogue){.kind = EL_EPI_ROPE, .rope = el_rope_for(p, next)};
            if (!e.rope)
                break;
            product->head = next->ne[0];
        } else if (next->op == GGML_OP_MUL && next->src[1]->op == GGML_OP_NONE && next->src[1]->ne[0] == 1 &&
                   next->src[1]->ne[1] == 1 && next->src[1]->ne[2] == mm->ne[1] && next->ne[2] == mm->ne[1]) {
            e.kind = EL_EPI_SCALE;
        } else if ((after = softcapped(p, next, &e)) != NULL) {
            next = after;
        } else if (next->op == GGML_OP_SET_ROWS && el_base_of(next->src[0]) == cur &&
                   next->src[1]->type == GGML_TYPE_I64 && next->src[0]->ne[0] == n &&
                   next->src[0]->ne[1] == mm->ne[1]) {
            product->out = next->src[2];
            product->slots = next->src[1];
            el_info_of(p, cur)->state = EL_NODE_FUSED;
            el_info_of(p, next)->state = EL_NODE_DONE;
            return NULL;
        } else {
            if (next->op == GGML_OP_GLU && next->src[1] && next->op_params[1] == 0 && ggml_are_same_shape(next, mm) &&
                (next->op_params[0] == GGML_GLU_OP_SWIGLU || next->op_params[0] == GGML_GLU_OP_GEGLU))
                *gate = next;
            break;
        }
        if (!add_epilogue(product, e))
            break;
        el_info_of(p, cur)->state = EL_NODE_FUSED;
        cur = next;
        el_info_of(p, cur)->state = EL_NODE_FUSED;
    }
    return cur;
}

/* Pairs the products whose results a gating node multiplies; the others write where following ended. */
static void pair_gates(el_planner *p, el_matmul_job *job, const struct ggml_tensor **last,
                       const struct ggml_tensor **gates)
{
    for (int32_t i = 0; i < job->n_products; i++) {
        el_product *a = &job->products[i];
        for (int32_t k = 0; gates[i] && k < job->n_products; k++) {
            el_product *b = &job->products[k];
            if (k == i || gates[k] != gates[i] || el_base_of(gates[i]->src[0]) != last[i] ||
                el_base_of(gates[i]->src[1]) != last[k])
                continue;
            a->glu = k;
            a->gelu = gates[i]->op_params[0] == GGML_GLU_OP_GEGLU;
            b->gated = true;
            el_info_of(p, last[i])->state = el_info_of(p, last[k])->state = EL_NODE_FUSED;
            last[k] = NULL;
            last[i] = gates[i];
        }
    }
    for (int32_t i = 0; i < job->n_products; i++) {
        if (last[i]) {
            job->products[i].out = last[i];
            el_info_of(p, last[i])->state = EL_NODE_DONE;
        }
    }
}

/* Outputs of a chunk, about: as many as leave every worker enough chunks. */
static int64_t outputs_per_chunk(const el_planner *p, const el_matmul_job *job, bool big)
{
    int64_t total = 0, n = BIG_OUT;

    for (int32_t i = 0; i < job->n_products; i++)
        total += job->products[i].gated ? 0 : job->products[i].w->ne[1];
    if (!big)
        return EL_MIN(total / (p->plan->n_threads * CHUNKS_PER_WORKER) + 1, (int64_t)1024);
    while (n > LEAST_OUT && total / n * job->n_blocks < (int64_t)p->plan->n_threads * BIG_CHUNKS_PER_WORKER)
        n /= 2;
    return n;
}

static void cut_into_chunks(el_planner *p, el_matmul_job *job)
{
    const bool big = job->n_rows > EL_SMALL_ROWS;
    int64_t per_chunk;
    int32_t n_chunks = 0, at;

    job->rows_per_block = big ? BIG_ROWS : job->n_rows;
    job->n_blocks = (int32_t)((job->n_rows + job->rows_per_block - 1) / job->rows_per_block);
    per_chunk = outputs_per_chunk(p, job, big);
    for (int32_t i = 0; i < job->n_products; i++) {
        el_product *product = &job->products[i];
        const int64_t granule =
            lcm(32, EL_MAX(product->head, product->glu >= 0 ? job->products[product->glu].head : 1));
        if (product->gated)
            continue;
        product->rows_per_chunk = (per_chunk + granule - 1) / granule * granule;
        product->first_chunk = n_chunks;
        product->n_chunks = (int32_t)((product->w->ne[1] + product->rows_per_chunk - 1) / product->rows_per_chunk);
        n_chunks += product->n_chunks;
        p->tile_floats = EL_MAX(p->tile_floats, (size_t)(product->rows_per_chunk * job->rows_per_block));
    }
    if (big)
        el_emit(p, el_quantize_chunk, job, (int32_t)((job->n_rows + 3) / 4), false);
    at = el_emit(p, el_matmul_chunk, job, n_chunks * job->n_blocks, false);
    if (!big && p->status == EDGELLM_OK)
        p->plan->regions[at].ahead = el_matmul_ahead;
}

void el_plan_products(el_planner *p, int32_t first)
{
    const struct ggml_tensor *x = p->graph->nodes[first]->src[1];
    const struct ggml_tensor *last[EL_GROUP], *gates[EL_GROUP] = {NULL};
    el_matmul_job *job = el_own(p, sizeof *job);

    if (!job)
        return;
    *job = (el_matmul_job){.plan = p->plan, .n_rows = x->ne[1], .input = {.width = x->ne[0], .n_rows = x->ne[1]}};
    job->format = el_format_for(p, p->graph->nodes[first]->src[0]);
    el_make_rows(p, &job->input, x);
    for (int32_t i = first; i < p->graph->n_nodes && i < first + LOOK_AHEAD && job->n_products < EL_GROUP; i++) {
        struct ggml_tensor *mm = p->graph->nodes[i];
        el_act_format format;
        if (!el_is_product(p, mm) || !el_are_same(mm->src[1], x) || el_info_of(p, mm)->state != EL_NODE_NEW)
            continue;
        format = el_format_for(p, mm->src[0]);
        if (format.own != job->format.own || format.kind != job->format.kind)
            continue;
        p->kernel_bytes = EL_MAX(p->kernel_bytes, format.own ? el_matmul_scratch(mm->src[0]->type, x->ne[0]) : 0);
        job->products[job->n_products] = (el_product){.w = mm->src[0], .head = 1, .glu = -1};
        last[job->n_products] = mm;
        el_info_of(p, mm)->state = EL_NODE_FUSED;
        job->n_products++;
    }
    for (int32_t i = 0; i < job->n_products; i++)
        last[i] = follow(p, &job->input, &job->products[i], last[i], &gates[i]);
    pair_gates(p, job, last, gates);
    p->row_floats = EL_MAX(p->row_floats, (size_t)x->ne[0]);
    if (p->status != EDGELLM_OK)
        return;
    if (job->n_rows > EL_SMALL_ROWS) {
        job->act = el_act_rows(p, &job->format, job->n_rows);
    } else {
        p->act_bytes = EL_MAX(p->act_bytes, job->format.stride * (size_t)job->n_rows);
    }
    cut_into_chunks(p, job);
}
