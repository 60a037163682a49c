/* cpu_plan.c - from a ggml graph to regions. Nodes are visited in order. Row operations (sums, norms, row gathers) are
 * left pending until something needs their result: a product takes them in as the preparation of its input, and what
 * follows the product (bias, rope, gate, residual, cache write) is taken in as its epilogue. Whatever has more than one
 * reader is stored. */
#include "cpu_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu_internal.h"
#include "ggml-impl.h"

enum {
    SMALL_ROWS =
        8, /* up to here every worker prepares the input rows itself instead of waiting for a region that does */
    SHARED_ROWS = 16, /* up to here no memory is reused within a run, so no region waits for stragglers */
    LOOK_AHEAD = 48,  /* nodes between products that share their input */
    ALIGN = 64,
    CHUNKS_PER_WORKER = 6,
    MAX_HEADS_PER_CHUNK = 32, /* queries of one attention chunk */
    BIG_OUT = 128,
    BIG_ROWS = 32 /* outputs and rows of a chunk when there are many rows */
};

typedef enum node_state { NEW, PENDING, FUSED, DONE } node_state;

typedef struct node_info {
    node_state state;
    int32_t n_uses;
    int32_t user; /* the last node that reads it */
    int32_t first_region, last_region;
} node_info;

typedef struct planner {
    el_cpu_plan *plan;
    struct ggml_cgraph *graph;
    node_info *info; /* by node, then by leaf */
    struct ggml_tensor **keys;
    int32_t *values;
    size_t n_slots;
    size_t act_bytes, row_floats, tile_floats, query_floats, kernel_bytes;
    int64_t max_rows;
    edgellm_status status;
} planner;

static size_t aligned(size_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

/* ---- bookkeeping -------------------------------------------------------------------------- */

static bool is_alias(const struct ggml_tensor *t)
{
    return t->op == GGML_OP_RESHAPE || t->op == GGML_OP_VIEW || t->op == GGML_OP_PERMUTE || t->op == GGML_OP_TRANSPOSE;
}

static struct ggml_tensor *base_of(const struct ggml_tensor *t)
{
    while (is_alias(t))
        t = t->src[0];
    return (struct ggml_tensor *)(uintptr_t)t;
}

static size_t slot_of(const planner *p, const struct ggml_tensor *t)
{
    size_t at = ((uintptr_t)t >> 4) * 0x9E3779B97F4A7C15u % p->n_slots;

    while (p->keys[at] && p->keys[at] != t)
        at = (at + 1) % p->n_slots;
    return at;
}

static node_info *info_of(const planner *p, const struct ggml_tensor *t)
{
    const size_t at = slot_of(p, base_of(t));

    return p->keys[at] ? &p->info[p->values[at]] : NULL;
}

/* Has its data, or will have when the next region runs. */
static bool ready(const planner *p, const struct ggml_tensor *t)
{
    const struct ggml_tensor *base = base_of(t);

    return base->op == GGML_OP_NONE || info_of(p, base)->state == DONE;
}

static void *own(planner *p, size_t n_bytes)
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

static int32_t emit(planner *p, el_chunk_fn *run, const void *job, int32_t n_chunks, bool exclusive)
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

/* ---- row programs ------------------------------------------------------------------------- */

static bool is_rows(const struct ggml_tensor *t)
{
    return t->type == GGML_TYPE_F32 && t->ne[2] == 1 && t->ne[3] == 1 && t->nb[0] == sizeof(float);
}

static bool is_vector(const struct ggml_tensor *t, int64_t n)
{
    return t->op == GGML_OP_NONE && t->data && t->type == GGML_TYPE_F32 && t->ne[0] == n && ggml_nelements(t) == n;
}

static bool can_pend(const struct ggml_tensor *t)
{
    float bias;

    if (!is_rows(t))
        return false;
    switch (t->op) {
    case GGML_OP_RMS_NORM:
        return is_rows(t->src[0]);
    case GGML_OP_MUL:
        return is_rows(t->src[0]) && is_vector(t->src[1], t->ne[0]);
    case GGML_OP_ADD:
        return is_rows(t->src[0]) &&
               (is_vector(t->src[1], t->ne[0]) || (is_rows(t->src[1]) && ggml_are_same_shape(t->src[0], t->src[1])));
    case GGML_OP_SCALE:
        memcpy(&bias, t->op_params + 1, sizeof bias);
        return is_rows(t->src[0]) && bias == 0;
    case GGML_OP_GET_ROWS:
        return t->src[1]->type == GGML_TYPE_I32 && t->src[1]->ne[1] == 1 && t->src[0]->ne[2] == 1 &&
               ((t->src[0]->op == GGML_OP_NONE && t->src[0]->data &&
                 (t->src[0]->type == GGML_TYPE_F32 || ggml_get_type_traits(t->src[0]->type)->to_float)) ||
                is_rows(t->src[0]));
    default:
        return false;
    }
}

static void push(planner *p, el_row_program *program, el_row_op op)
{
    if (program->n_ops < EL_ROW_OPS)
        program->ops[program->n_ops++] = op;
    else if (p->status == EDGELLM_OK)
        p->status = el_fail(EDGELLM_EUNSUPPORTED, "a row program is longer than %d operations", EL_ROW_OPS);
}

static void store_rows(planner *p, const struct ggml_tensor *t);

static float param(const struct ggml_tensor *t, int i)
{
    float f;

    memcpy(&f, t->op_params + i, sizeof f);
    return f;
}

/* A gather of rows that exist: can be added or loaded without a region of its own. */
static bool is_gather(const planner *p, const struct ggml_tensor *t)
{
    return t->op == GGML_OP_GET_ROWS && info_of(p, t)->state == PENDING && info_of(p, t)->n_uses == 1 &&
           t->src[0]->op != GGML_OP_NONE && ready(p, t->src[0]);
}

/* Appends what makes row r of t; afterwards t is fused or, if others read it too, stored. */
static void make_rows(planner *p, el_row_program *program, const struct ggml_tensor *t)
{
    node_info *info = info_of(p, t);
    const struct ggml_tensor *a, *b;

    if (ready(p, t)) {
        push(p, program, (el_row_op){.kind = EL_ROW_LOAD, .a = t});
        return;
    }
    t = base_of(t);
    a = t->src[0];
    b = t->src[1];
    switch (t->op) {
    case GGML_OP_RMS_NORM:
        make_rows(p, program, a);
        push(p, program, (el_row_op){.kind = EL_ROW_NORM, .f = param(t, 0)});
        break;
    case GGML_OP_MUL: {
        el_row_op *norm;
        make_rows(p, program, a);
        norm = program->n_ops > 0 ? &program->ops[program->n_ops - 1] : NULL;
        if (norm && norm->kind == EL_ROW_NORM && !norm->a)
            norm->a = b; /* one pass over the row */
        else
            push(p, program, (el_row_op){.kind = EL_ROW_MUL_VECTOR, .a = b});
        break;
    }
    case GGML_OP_SCALE:
        make_rows(p, program, a);
        push(p, program, (el_row_op){.kind = EL_ROW_SCALE, .f = param(t, 0)});
        break;
    case GGML_OP_ADD:
        if (is_vector(b, t->ne[0])) {
            make_rows(p, program, a);
            push(p, program, (el_row_op){.kind = EL_ROW_SUM_VECTOR, .a = b});
            break;
        }
        if (!ready(p, b) && !is_gather(p, b) && (ready(p, a) || is_gather(p, a))) {
            const struct ggml_tensor *swap = a;
            a = b;
            b = swap;
        }
        if (!ready(p, b) && !is_gather(p, b))
            store_rows(p, b);
        make_rows(p, program, a);
        if (is_gather(p, b)) {
            info_of(p, b)->state = FUSED;
            push(p, program, (el_row_op){.kind = EL_ROW_ADD, .a = b->src[0], .ids = b->src[1]});
        } else {
            push(p, program, (el_row_op){.kind = EL_ROW_ADD, .a = b});
        }
        break;
    case GGML_OP_GET_ROWS:
        if (a->op != GGML_OP_NONE && !ready(p, a))
            store_rows(p, a);
        push(p, program, (el_row_op){.kind = a->op == GGML_OP_NONE ? EL_ROW_EMBED : EL_ROW_LOAD, .a = a, .ids = b});
        break;
    default:
        if (p->status == EDGELLM_OK)
            p->status = el_fail(EDGELLM_EUNSUPPORTED, "%s is not a row operation", ggml_op_name(t->op));
        return;
    }
    info->state = FUSED;
    if (info->n_uses > 1) {
        push(p, program, (el_row_op){.kind = EL_ROW_STORE, .a = t});
        info->state = DONE;
    }
}

/* A region that computes t and writes it. */
static void store_rows(planner *p, const struct ggml_tensor *t)
{
    el_rows_job *job;

    t = base_of(t);
    if (ready(p, t) || p->status != EDGELLM_OK)
        return;
    job = own(p, sizeof *job);
    if (!job)
        return;
    *job = (el_rows_job){.plan = p->plan, .program = {.width = t->ne[0], .n_rows = t->ne[1]}, .rows_per_chunk = 4};
    info_of(p, t)->n_uses = EL_MAX(2, info_of(p, t)->n_uses); /* so that make_rows stores it */
    make_rows(p, &job->program, t);
    p->row_floats = EL_MAX(p->row_floats, (size_t)t->ne[0]);
    emit(p, el_rows_chunk, job, (int32_t)((t->ne[1] + 3) / 4), false);
}

/* ---- products ----------------------------------------------------------------------------- */

/* Our kernel where this CPU has a fast one, else ggml's dot product inside our driver: a plain C kernel of ours is only
 * quicker than that where nothing else is fast either. */
static bool has_kernel(const planner *p, enum ggml_type type)
{
    const el_kernels *k = p->plan->kernels, *ref = el_kernels_named("ref");

    return (int)type < EL_KERNELS_N_TYPES && k->matmul[type] && (k == ref || k->matmul[type] != ref->matmul[type]);
}

static el_act_format format_for(const planner *p, const struct ggml_tensor *w)
{
    const int kind = has_kernel(p, w->type) ? el_kernels_act_kind(w->type) : -1;
    el_act_format f = {.own = kind >= 0, .kind = kind};

    if (f.own) {
        f.stride = el_act_row_bytes((el_act_kind)kind, w->ne[0]);
    } else {
        f.kind = p->plan->ggml->type_traits(w->type)->vec_dot_type;
        f.stride = aligned(ggml_row_size((enum ggml_type)f.kind, w->ne[0]));
    }
    return f;
}

static bool is_product(const planner *p, const struct ggml_tensor *t)
{
    const struct ggml_type_traits_cpu *traits;

    if (t->op != GGML_OP_MUL_MAT || t->src[0]->op != GGML_OP_NONE || !t->src[0]->data || t->src[0]->ne[2] != 1 ||
        t->src[0]->ne[3] != 1 || !is_rows(t->src[1]) || !is_rows(t))
        return false;
    traits = p->plan->ggml->type_traits(t->src[0]->type);
    return traits->vec_dot &&
           (traits->vec_dot_type == GGML_TYPE_F32 || p->plan->ggml->type_traits(traits->vec_dot_type)->from_float);
}

/* The one node that reads t, or NULL. */
static struct ggml_tensor *only_user(const planner *p, const struct ggml_tensor *t)
{
    const node_info *info = info_of(p, t);

    return info->n_uses == 1 && info->user >= 0 ? p->graph->nodes[info->user] : NULL;
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

/* The region that computes the angles of that rope node, made unless an earlier layer has it. */
static const el_rope_job *rope_for(planner *p, const struct ggml_tensor *node)
{
    const int64_t n_rows = node->ne[2];
    el_rope_job *job;

    for (int32_t r = 0; r < p->plan->n_regions; r++)
        if (p->plan->regions[r].run == el_rope_chunk &&
            same_angles(((const el_rope_job *)p->plan->regions[r].job)->node, node))
            return p->plan->regions[r].job;
    job = own(p, sizeof *job);
    if (!job)
        return NULL;
    *job = (el_rope_job){.positions = node->src[1],
                         .factors = node->src[2],
                         .node = node,
                         .n_rows = n_rows,
                         .n_rot = node->op_params[1],
                         .halves = node->op_params[2] == GGML_ROPE_TYPE_NEOX};
    job->cosines = own(p, (size_t)(n_rows * job->n_rot) * sizeof(float));
    if (!job->cosines)
        return NULL;
    job->sines = job->cosines + n_rows * (job->n_rot / 2);
    emit(p, el_rope_chunk, job, (int32_t)n_rows, false);
    return job;
}

/* Takes in what follows the product, as far as it can. Returns the last tensor taken in; *gate is the gating node that
 * comes next, if one does. */
static const struct ggml_tensor *follow(planner *p, el_product *product, const struct ggml_tensor *mm,
                                        const struct ggml_tensor **gate)
{
    const int64_t n = product->w->ne[1];
    const struct ggml_tensor *cur = mm, *next;

    while ((next = only_user(p, cur)) != NULL && product->n_epilogue < EL_EPILOGUE_OPS - 1) {
        el_epilogue e = {.a = next->src[1]};
        const struct ggml_tensor *after;
        if (next->op == GGML_OP_ADD && base_of(next->src[0]) == cur && is_vector(next->src[1], n)) {
            e.kind = EL_EPI_BIAS;
        } else if (next->op == GGML_OP_ADD && is_rows(next) && next->ne[0] == n) {
            const struct ggml_tensor *other = base_of(next->src[0]) == cur ? next->src[1] : next->src[0];
            if (!ready(p, other) || !is_rows(other) || !ggml_are_same_shape(next->src[0], next->src[1]))
                break;
            e.kind = EL_EPI_RESIDUAL;
            e.a = other;
        } else if (next->op == GGML_OP_RMS_NORM && next->ne[2] == mm->ne[1] && next->ne[0] * next->ne[1] == n) {
            after = only_user(p, next);
            if (!after || after->op != GGML_OP_MUL || !is_vector(after->src[1], next->ne[0]))
                break;
            e = (el_epilogue){.kind = EL_EPI_NORM, .a = after->src[1], .f = param(next, 0)};
            product->head = lcm(product->head, next->ne[0]);
            if (product->head != next->ne[0])
                break;
            info_of(p, next)->state = FUSED;
            next = after;
        } else if (next->op == GGML_OP_ROPE && next->ne[2] == mm->ne[1] && next->ne[0] * next->ne[1] == n &&
                   (product->head == 1 || product->head == next->ne[0]) &&
                   (next->op_params[2] == GGML_ROPE_TYPE_NORMAL || next->op_params[2] == GGML_ROPE_TYPE_NEOX)) {
            e = (el_epilogue){.kind = EL_EPI_ROPE, .rope = rope_for(p, next)};
            if (!e.rope)
                break;
            product->head = next->ne[0];
        } else if (next->op == GGML_OP_MUL && next->src[1]->op == GGML_OP_NONE && next->src[1]->ne[0] == 1 &&
                   next->src[1]->ne[1] == 1 && next->src[1]->ne[2] == mm->ne[1] && next->ne[2] == mm->ne[1]) {
            e.kind = EL_EPI_SCALE;
        } else if (next->op == GGML_OP_SET_ROWS && base_of(next->src[0]) == cur &&
                   next->src[1]->type == GGML_TYPE_I64 && next->src[0]->ne[0] == n &&
                   next->src[0]->ne[1] == mm->ne[1]) {
            product->out = next->src[2];
            product->slots = next->src[1];
            info_of(p, cur)->state = FUSED;
            info_of(p, next)->state = DONE;
            return NULL;
        } else {
            if (next->op == GGML_OP_GLU && next->src[1] && next->op_params[1] == 0 && ggml_are_same_shape(next, mm) &&
                (next->op_params[0] == GGML_GLU_OP_SWIGLU || next->op_params[0] == GGML_GLU_OP_GEGLU))
                *gate = next;
            break;
        }
        if (!add_epilogue(product, e))
            break;
        info_of(p, cur)->state = FUSED;
        cur = next;
        info_of(p, cur)->state = FUSED;
    }
    return cur;
}

/* Pairs the products whose results a gating node multiplies; the others write where following ended. */
static void pair_gates(planner *p, el_matmul_job *job, const struct ggml_tensor **last,
                       const struct ggml_tensor **gates)
{
    for (int32_t i = 0; i < job->n_products; i++) {
        el_product *a = &job->products[i];
        for (int32_t k = 0; gates[i] && k < job->n_products; k++) {
            el_product *b = &job->products[k];
            if (k == i || gates[k] != gates[i] || base_of(gates[i]->src[0]) != last[i] ||
                base_of(gates[i]->src[1]) != last[k])
                continue;
            a->glu = k;
            a->gelu = gates[i]->op_params[0] == GGML_GLU_OP_GEGLU;
            b->gated = true;
            info_of(p, last[i])->state = info_of(p, last[k])->state = FUSED;
            last[k] = NULL;
            last[i] = gates[i];
        }
    }
    for (int32_t i = 0; i < job->n_products; i++) {
        if (last[i]) {
            job->products[i].out = last[i];
            info_of(p, last[i])->state = DONE;
        }
    }
}

static void cut_into_chunks(planner *p, el_matmul_job *job)
{
    const bool big = job->n_rows > SMALL_ROWS;
    int64_t total = 0, per_chunk;
    int32_t n_chunks = 0;

    for (int32_t i = 0; i < job->n_products; i++)
        total += job->products[i].gated ? 0 : job->products[i].w->ne[1];
    per_chunk = big ? BIG_OUT : EL_MIN(total / (p->plan->n_threads * CHUNKS_PER_WORKER) + 1, (int64_t)1024);
    job->rows_per_block = big ? BIG_ROWS : job->n_rows;
    job->n_blocks = (int32_t)((job->n_rows + job->rows_per_block - 1) / job->rows_per_block);
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
        emit(p, el_quantize_chunk, job, (int32_t)((job->n_rows + 3) / 4), false);
    emit(p, el_matmul_chunk, job, n_chunks * job->n_blocks, false);
}

static void plan_products(planner *p, int32_t first)
{
    const struct ggml_tensor *x = p->graph->nodes[first]->src[1];
    const struct ggml_tensor *last[EL_GROUP], *gates[EL_GROUP] = {NULL};
    el_matmul_job *job = own(p, sizeof *job);
    struct ggml_tensor *act;

    if (!job)
        return;
    *job = (el_matmul_job){.plan = p->plan, .n_rows = x->ne[1], .input = {.width = x->ne[0], .n_rows = x->ne[1]}};
    job->format = format_for(p, p->graph->nodes[first]->src[0]);
    make_rows(p, &job->input, x);
    for (int32_t i = first; i < p->graph->n_nodes && i < first + LOOK_AHEAD && job->n_products < EL_GROUP; i++) {
        struct ggml_tensor *mm = p->graph->nodes[i];
        el_act_format format;
        if (!is_product(p, mm) || base_of(mm->src[1]) != base_of(x) || info_of(p, mm)->state != NEW)
            continue;
        format = format_for(p, mm->src[0]);
        if (format.own != job->format.own || format.kind != job->format.kind)
            continue;
        p->kernel_bytes = EL_MAX(p->kernel_bytes, format.own ? el_matmul_scratch(mm->src[0]->type, x->ne[0]) : 0);
        job->products[job->n_products] = (el_product){.w = mm->src[0], .head = 1, .glu = -1};
        last[job->n_products] = mm;
        info_of(p, mm)->state = FUSED;
        job->n_products++;
    }
    for (int32_t i = 0; i < job->n_products; i++)
        last[i] = follow(p, &job->products[i], last[i], &gates[i]);
    pair_gates(p, job, last, gates);
    p->row_floats = EL_MAX(p->row_floats, (size_t)x->ne[0]);
    if (p->status != EDGELLM_OK)
        return;
    if (job->n_rows > SMALL_ROWS) {
        act = own(p, sizeof *act);
        if (act)
            *act = (struct ggml_tensor){.type = GGML_TYPE_I8,
                                        .ne = {(int64_t)job->format.stride, job->n_rows, 1, 1},
                                        .nb = {1, job->format.stride, job->format.stride * (size_t)job->n_rows, 0}};
        job->act = act;
    } else {
        p->act_bytes = EL_MAX(p->act_bytes, job->format.stride * (size_t)job->n_rows);
    }
    cut_into_chunks(p, job);
}

/* ---- attention ---------------------------------------------------------------------------- */

static int kv_kind(enum ggml_type type)
{
    return type == GGML_TYPE_F32    ? EL_KV_F32
           : type == GGML_TYPE_F16  ? EL_KV_F16
           : type == GGML_TYPE_Q8_0 ? EL_KV_Q8_0
                                    : -1;
}

static bool is_attention(const planner *p, const struct ggml_tensor *t)
{
    const struct ggml_tensor *k = t->src[1], *v = t->src[2];

    return t->op == GGML_OP_FLASH_ATTN_EXT && t->src[EL_ATTN_RANGES] && t->src[EL_ATTN_TABLES] && !t->src[4] &&
           param(t, 1) == 0 && ready(p, t->src[0]) && kv_kind(k->type) >= 0 && kv_kind(v->type) >= 0 && k->ne[3] == 1;
}

static void plan_attention(planner *p, struct ggml_tensor *t)
{
    const struct ggml_tensor *q = t->src[0], *k = t->src[1], *v = t->src[2];
    const int64_t group = q->ne[2] / k->ne[2];
    el_attention_job *job = own(p, sizeof *job);
    int64_t n_chunks, n_queries;

    if (!job)
        return;
    *job = (el_attention_job){.plan = p->plan,
                              .q = q,
                              .k = k,
                              .v = v,
                              .ranges = t->src[EL_ATTN_RANGES],
                              .tables = t->src[EL_ATTN_TABLES],
                              .out = t,
                              .n_head = q->ne[2],
                              .n_head_kv = k->ne[2],
                              .n_rows = q->ne[1],
                              .rows_per_chunk = 1};
    job->shape = (el_attn){.head_k = (int32_t)k->ne[0],
                           .head_v = (int32_t)v->ne[0],
                           .k_type = (el_kv_type)kv_kind(k->type),
                           .v_type = (el_kv_type)kv_kind(v->type),
                           .k_stride = k->nb[1],
                           .v_stride = v->nb[1],
                           .scale = param(t, 0),
                           .softcap = param(t, 2)};
    job->n_segments = (int32_t)((k->ne[1] + EL_ATTN_SEGMENT - 1) / EL_ATTN_SEGMENT);
    job->partial_floats = el_attn_partial_floats(job->shape.head_v);
    job->heads_per_chunk = group;
    while (job->heads_per_chunk > MAX_HEADS_PER_CHUNK || group % job->heads_per_chunk != 0)
        job->heads_per_chunk--;
    if (job->n_rows > SMALL_ROWS) {
        job->rows_per_chunk = EL_MAX(1, MAX_HEADS_PER_CHUNK / job->heads_per_chunk);
    } else {
        job->split = job->n_segments > 1;
        if (job->n_rows * job->n_head / job->heads_per_chunk * job->n_segments < 2 * p->plan->n_threads)
            job->heads_per_chunk = 1;
        if (job->split)
            job->partials =
                own(p, (size_t)(job->n_rows * job->n_segments * job->n_head) * job->partial_floats * sizeof(float));
    }
    n_queries = job->rows_per_chunk * job->heads_per_chunk;
    p->tile_floats = EL_MAX(p->tile_floats, (size_t)(job->n_segments * n_queries) * job->partial_floats);
    p->row_floats = EL_MAX(p->row_floats, (size_t)job->shape.head_v);
    p->query_floats = EL_MAX(p->query_floats, (size_t)(n_queries * job->shape.head_k));
    p->kernel_bytes =
        EL_MAX(p->kernel_bytes, el_attn_scratch((int32_t)n_queries, job->shape.head_k, job->shape.head_v));
    n_chunks = (job->n_rows + job->rows_per_chunk - 1) / job->rows_per_chunk * (job->n_head / job->heads_per_chunk);
    emit(p, el_attention_chunk, job, (int32_t)(n_chunks * (job->split ? job->n_segments : 1)), false);
    if (job->split)
        emit(p, el_combine_chunk, job, (int32_t)(job->n_rows * job->n_head), false);
    info_of(p, t)->state = DONE;
}

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

static void plan_fallback(planner *p, int32_t i)
{
    struct ggml_tensor *t = p->graph->nodes[i];
    el_fallback_job *job = own(p, sizeof *job);
    struct ggml_cgraph *one = own(p, sizeof *one);
    struct ggml_cplan plan;

    if (!job || !one)
        return;
    for (int k = 0; k < GGML_MAX_SRC; k++)
        if (t->src[k] && !ready(p, t->src[k]))
            store_rows(p, t->src[k]);
    *one = ggml_graph_view(p->graph, i, i + 1);
    *job = (el_fallback_job){.plan = p->plan, .nodes = one};
    plan = p->plan->ggml->graph_plan(one, 1, NULL);
    p->plan->work_bytes = EL_MAX(p->plan->work_bytes, plan.work_size);
    p->plan->n_fallback++;
    emit(p, el_fallback_chunk, job, 1, true);
    info_of(p, t)->state = DONE;
}

/* ---- memory ------------------------------------------------------------------------------- */

static void touch(planner *p, const struct ggml_tensor *t, int32_t region)
{
    node_info *info;

    if (!t)
        return;
    info = info_of(p, t);
    if (!info)
        return;
    if (info->first_region < 0)
        info->first_region = region;
    info->last_region = region;
}

static void touch_program(planner *p, const el_row_program *program, int32_t region)
{
    for (int32_t i = 0; i < program->n_ops; i++) {
        touch(p, program->ops[i].a, region);
        touch(p, program->ops[i].ids, region);
    }
}

static void touch_region(planner *p, int32_t region)
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
    } else if (r->run == el_rope_chunk) {
        touch(p, ((const el_rope_job *)r->job)->positions, region);
    } else {
        const struct ggml_tensor *t = ((const el_fallback_job *)r->job)->nodes->nodes[0];
        touch(p, t, region);
        for (int k = 0; k < GGML_MAX_SRC; k++)
            touch(p, t->src[k], region);
    }
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

/* Room for size bytes in region `at`, from a hole if one is large enough; then the region has to wait for stragglers.
 */
static size_t place(planner *p, arena *a, size_t size, int32_t at)
{
    size_t offset;

    for (int32_t i = 0; i < a->n_holes; i++) {
        hole *h = &a->holes[i];
        if (h->size < size)
            continue;
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

/* Gives every tensor that regions read or write a place. Offsets are kept in data until the arena exists. */
static void place_all(planner *p)
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
    for (int32_t r = 0; r < p->plan->n_regions; r++)
        touch_region(p, r);
    for (int32_t i = 0; i < n; i++) { /* inputs and outputs live throughout */
        struct ggml_tensor *t = i < g->n_nodes ? g->nodes[i] : g->leafs[i - g->n_nodes];
        const bool is_input = t->op == GGML_OP_NONE && !t->data && p->info[i].first_region >= 0;
        const bool kept =
            i < g->n_nodes && (t->flags & GGML_TENSOR_FLAG_OUTPUT) && !is_alias(t) && p->info[i].state == DONE;
        if (!t->view_src && (is_input || kept)) {
            offsets[i] = a.used + 1;
            a.used += aligned(ggml_nbytes(t));
        }
    }
    for (int32_t r = 0; r < p->plan->n_regions; r++) {
        const el_region *region = &p->plan->regions[r];
        for (int32_t i = 0; i < g->n_nodes; i++)
            if (p->info[i].first_region == r && !offsets[i] && p->info[i].state == DONE && !g->nodes[i]->view_src &&
                !g->nodes[i]->data)
                offsets[i] = place(p, &a, aligned(ggml_nbytes(g->nodes[i])), r) + 1;
        if (region->run == el_quantize_chunk) {
            const struct ggml_tensor *act = ((const el_matmul_job *)region->job)->act;
            act_offsets[r] = place(p, &a, aligned(act->nb[2]), r) + 1;
        }
        if (p->max_rows <= SHARED_ROWS)
            continue;
        for (int32_t i = 0; i < g->n_nodes; i++)
            if (p->info[i].last_region == r && offsets[i] && !(g->nodes[i]->flags & GGML_TENSOR_FLAG_OUTPUT))
                release(&a, offsets[i] - 1, aligned(ggml_nbytes(g->nodes[i])), r);
        if (r > 0 && act_offsets[r - 1])
            release(&a, act_offsets[r - 1] - 1, aligned(((const el_matmul_job *)region->job)->act->nb[2]), r);
    }
    p->plan->arena_bytes = a.used;
    p->plan->arena = el_alloc(1, a.used + ALIGN);
    if (!p->plan->arena) {
        p->status = el_no_memory(a.used);
        goto done;
    }
    {
        char *base = (char *)(((uintptr_t)p->plan->arena + ALIGN - 1) / ALIGN * ALIGN);
        for (int32_t i = 0; i < n; i++)
            if (offsets[i])
                (i < g->n_nodes ? g->nodes[i] : g->leafs[i - g->n_nodes])->data = base + offsets[i] - 1;
        for (int32_t r = 0; r < p->plan->n_regions; r++)
            if (act_offsets[r])
                ((struct ggml_tensor *)(uintptr_t)((const el_matmul_job *)p->plan->regions[r].job)->act)->data =
                    base + act_offsets[r] - 1;
        for (int32_t i = 0; i < g->n_nodes; i++)
            if (g->nodes[i]->view_src && g->nodes[i]->view_src->data)
                g->nodes[i]->data = (char *)g->nodes[i]->view_src->data + g->nodes[i]->view_offs;
    }
done:
    el_free(a.holes);
    el_free(offsets);
    el_free(act_offsets);
}

static void make_scratch(planner *p)
{
    el_cpu_plan *plan = p->plan;
    const size_t act = aligned(p->act_bytes), row = aligned(p->row_floats * 4), tile = aligned(p->tile_floats * 4);
    const size_t queries = aligned(p->query_floats * 4), kernel = aligned(p->kernel_bytes);
    const size_t each = act + row + 2 * tile + queries + kernel + ALIGN;
    char *at;

    plan->scratch = el_alloc((size_t)plan->n_threads, sizeof *plan->scratch);
    plan->scratch_memory = el_alloc((size_t)plan->n_threads, each + ALIGN);
    plan->work = plan->work_bytes ? el_alloc(1, plan->work_bytes) : NULL;
    if (!plan->scratch || !plan->scratch_memory || (plan->work_bytes && !plan->work)) {
        p->status = el_no_memory((size_t)plan->n_threads * each + plan->work_bytes);
        return;
    }
    at = (char *)(((uintptr_t)plan->scratch_memory + ALIGN - 1) / ALIGN * ALIGN);
    for (int32_t w = 0; w < plan->n_threads; w++, at += each)
        plan->scratch[w] = (el_worker_scratch){.act = at,
                                               .row = (float *)(void *)(at + act),
                                               .tile = (float *)(void *)(at + act + row),
                                               .tile2 = (float *)(void *)(at + act + row + tile),
                                               .queries = (float *)(void *)(at + act + row + 2 * tile),
                                               .kernel = at + act + row + 2 * tile + queries};
}

/* ---- the plan ----------------------------------------------------------------------------- */

static edgellm_status index_graph(planner *p)
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
        p->info[i] = (node_info){.user = -1, .first_region = -1, .last_region = -1};
    }
    for (int32_t i = 0; i < g->n_nodes; i++) {
        struct ggml_tensor *t = g->nodes[i];
        p->max_rows = EL_MAX(p->max_rows, t->op == GGML_OP_MUL_MAT ? t->ne[1] : 1);
        if (t->flags & GGML_TENSOR_FLAG_OUTPUT)
            info_of(p, t)->n_uses += 2;
        if (is_alias(t))
            continue;
        for (int k = 0; k < GGML_MAX_SRC; k++) {
            node_info *info = t->src[k] ? info_of(p, t->src[k]) : NULL;
            if (info) {
                info->n_uses++;
                info->user = i;
            }
        }
    }
    return EDGELLM_OK;
}

bool el_cpu_own_backend(void)
{
    static _Atomic int known; /* 0: not asked, 1: ggml's, 2: ours */
    int answer = atomic_load(&known);

    if (answer == 0) {
        const char *name = getenv("EDGELLM_CPU_BACKEND");
        answer = name && strcmp(name, "edgellm") == 0 ? 2 : 1;
        atomic_store(&known, answer);
    }
    return answer == 2;
}

edgellm_status el_cpu_plan_new(el_cpu_plan **out, struct ggml_cgraph *graph, const el_ggml_cpu *ggml, int32_t n_threads)
{
    planner p = {.graph = graph, .plan = el_alloc(1, sizeof *p.plan)};

    *out = NULL;
    if (!p.plan)
        return el_no_memory(sizeof *p.plan);
    *p.plan = (el_cpu_plan){.graph = graph, .ggml = ggml, .kernels = el_kernels_get(), .n_threads = n_threads};
    if (!el_cpu_own_backend()) {
        p.status = el_stock_new(&p.plan->stock, graph, ggml, n_threads);
        if (p.status == EDGELLM_OK)
            *out = p.plan;
        else
            el_free(p.plan);
        return p.status;
    }
    p.status = index_graph(&p);
    for (int32_t i = 0; i < graph->n_nodes && p.status == EDGELLM_OK; i++) {
        struct ggml_tensor *t = graph->nodes[i];
        if (is_alias(t) || info_of(&p, t)->state != NEW)
            continue;
        if (is_product(&p, t))
            plan_products(&p, i);
        else if (is_attention(&p, t))
            plan_attention(&p, t);
        else if (can_pend(t))
            info_of(&p, t)->state = PENDING;
        else
            plan_fallback(&p, i);
    }
    for (int32_t i = 0; i < graph->n_nodes && p.status == EDGELLM_OK; i++)
        if (p.info[i].state == PENDING && (graph->nodes[i]->flags & GGML_TENSOR_FLAG_OUTPUT))
            store_rows(&p, graph->nodes[i]);
    if (p.status == EDGELLM_OK)
        place_all(&p);
    if (p.status == EDGELLM_OK)
        make_scratch(&p);
    if (p.status == EDGELLM_OK)
        p.status = el_run_init(&p.plan->run, p.plan->regions, p.plan->n_regions);
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
    el_free(plan->arena);
    el_free(plan->scratch);
    el_free(plan->scratch_memory);
    el_free(plan->work);
    el_free(plan);
}

int32_t el_cpu_plan_n_regions(const el_cpu_plan *plan) { return plan->n_regions; }

size_t el_cpu_plan_bytes(const el_cpu_plan *plan)
{
    return plan->stock ? el_stock_bytes(plan->stock) : plan->arena_bytes;
}

void el_cpu_plan_begin(el_cpu_plan *plan)
{
    if (plan->stock) {
        el_stock_begin(plan->stock);
        return;
    }
    el_run_reset(&plan->run);
    plan->serial++;
}

edgellm_status el_cpu_plan_run(el_cpu_plan *plan, int32_t budget_ms, const _Atomic bool *cancel)
{
    if (plan->stock)
        return el_stock_run(plan->stock, budget_ms, cancel);
    return el_workers_run(&plan->run, plan->n_threads, budget_ms, cancel);
}

size_t el_cpu_plan_describe(const el_cpu_plan *plan, char *buf, size_t cap)
{
    size_t used = 0;

#define SAY(...) used += (size_t)snprintf(buf + EL_MIN(used, cap), used < cap ? cap - used : 0, __VA_ARGS__)
    for (int32_t r = 0; r < plan->n_regions; r++) {
        const el_region *region = &plan->regions[r];
        if (region->run == el_matmul_chunk) {
            const el_matmul_job *job = region->job;
            SAY("matmul");
            for (int32_t i = 0; i < job->n_products; i++)
                SAY(" %s", ggml_get_name(job->products[i].w));
            SAY(" rows=%d", (int)job->n_rows);
        } else if (region->run == el_fallback_chunk) {
            SAY("ggml %s", ggml_op_desc(((const el_fallback_job *)region->job)->nodes->nodes[0]));
        } else {
            SAY("%s", region->run == el_rope_chunk        ? "angles"
                      : region->run == el_rows_chunk      ? "rows"
                      : region->run == el_quantize_chunk  ? "quantize"
                      : region->run == el_attention_chunk ? "attention"
                                                          : "combine");
        }
        SAY(" chunks=%d\n", region->n_chunks);
    }
#undef SAY
    return used;
}
