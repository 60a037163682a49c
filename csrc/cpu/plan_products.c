/* plan_products.c - products that share their input become one region; what follows each of them is plan_epilogues.c's.
 */
#include <string.h>

#include "cpu_planner.h"
#include "ggml-impl.h"

enum {
    LOOK_AHEAD = 48, /* nodes between products that share their input */
    CHUNKS_PER_WORKER = 6,
    BIG_TILE = 256 * 128, /* outputs times rows of a chunk when there are many rows, at most */
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

static void set_gate(el_product *gate, el_product *value, int32_t at, const struct ggml_tensor *glu)
{
    gate->glu = at;
    gate->glu_map = (el_map)el_map_of(glu, gate->glu_params);
    value->gated = true;
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
            set_gate(a, b, k, gates[i]);
            el_info_of(p, last[i])->state = el_info_of(p, last[k])->state = EL_NODE_FUSED;
            last[k] = NULL;
            last[i] = gates[i];
        }
    }
    for (int32_t i = 0; i < job->n_products; i++) {
        if (last[i]) {
            job->products[i].out = last[i]->view_src ? last[i]->view_src : last[i]; /* a clamp's lies in its source */
            el_info_of(p, last[i])->state = el_info_of(p, job->products[i].out)->state = EL_NODE_DONE;
            if (!p->plan->checked && last[i]->flags & GGML_TENSOR_FLAG_OUTPUT && last[i]->type == GGML_TYPE_F32 &&
                !last[i]->view_src && !job->products[i].slots) {
                p->plan->checked = last[i];
                job->products[i].checked = true;
            }
        }
    }
}

/* Activation rows of a chunk: unpacking a super-block pays for more of them (1.2B, K-quants, 512 rows: 256 are 3 to 5 %
 * faster than 128; blocks of 32, AVX2: 2 % slower). */
static int64_t rows_per_block(const el_matmul_job *job, bool big)
{
    if (!big)
        return job->n_rows;
    return job->format.own && job->format.kind == EL_ACT_Q8_256 ? 256 : 128;
}

/* Outputs of a chunk, about: as many as leave every worker enough chunks. */
static int64_t outputs_per_chunk(const el_planner *p, const el_matmul_job *job, bool big)
{
    int64_t total = 0, n = BIG_TILE / job->rows_per_block;

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

    job->rows_per_block = rows_per_block(job, big);
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

/* The gate of the product's own two halves, when that is what follows (after a bias, perhaps), or NULL. */
static struct ggml_tensor *own_gate(const el_planner *p, const struct ggml_tensor *mm, const struct ggml_tensor **bias)
{
    const struct ggml_tensor *cur = mm;
    struct ggml_tensor *next = el_only_user(p, cur);
    float params[4];

    *bias = NULL;
    if (next && next->op == GGML_OP_ADD && el_is_vector(next->src[1], mm->ne[0]) && el_takes_whole(next, cur)) {
        *bias = next;
        cur = next;
        next = el_only_user(p, cur);
    }
    return next && next->op == GGML_OP_GLU && !next->src[1] && el_takes_whole(next, cur) &&
                   next->ne[0] * 2 == mm->ne[0] && next->ne[1] == mm->ne[1] && el_map_of(next, params) >= 0
               ? next
               : NULL;
}

/* The rows (or elements) of one half of a model's tensor. */
static const struct ggml_tensor *half_of(el_planner *p, const struct ggml_tensor *t, int dim, bool second)
{
    struct ggml_tensor *half = el_own(p, sizeof *half);

    if (!half)
        return NULL;
    *half = *t;
    half->ne[dim] /= 2;
    half->data = (char *)t->data + (second ? (size_t)half->ne[dim] * t->nb[dim] : 0);
    return half;
}

/* Two products of one matrix's halves, gate and value. */
static void add_halves(el_planner *p, el_matmul_job *job, struct ggml_tensor *mm, struct ggml_tensor *glu,
                       const struct ggml_tensor *bias)
{
    el_product *gate = &job->products[job->n_products], *value = gate + 1;

    for (int i = 0; i < 2; i++) {
        const bool second = (i == 1) != (glu->op_params[1] != 0);
        gate[i] = (el_product){.w = half_of(p, mm->src[0], 1, second), .head = 1, .glu = -1, .complete = true};
        if (bias)
            el_add_epilogue(&gate[i], (el_epilogue){.kind = EL_EPI_BIAS, .a = half_of(p, bias->src[1], 0, second)});
    }
    set_gate(gate, value, job->n_products + 1, glu);
    gate->out = glu;
    if (bias)
        el_info_of(p, bias)->state = EL_NODE_FUSED;
    el_info_of(p, mm)->state = EL_NODE_FUSED;
    el_info_of(p, glu)->state = EL_NODE_DONE;
    job->n_products += 2;
}

void el_plan_products(el_planner *p, int32_t first)
{
    const struct ggml_tensor *x = p->graph->nodes[first]->src[1];
    const struct ggml_tensor *last[EL_GROUP] = {NULL}, *gates[EL_GROUP] = {NULL}, *bias;
    struct ggml_tensor *glu;
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
        glu = own_gate(p, mm, &bias);
        if (glu && job->n_products + 2 <= EL_GROUP) {
            add_halves(p, job, mm, glu, bias);
            continue;
        }
        job->products[job->n_products] = (el_product){.w = mm->src[0], .head = 1, .glu = -1};
        last[job->n_products] = mm;
        el_info_of(p, mm)->state = EL_NODE_FUSED;
        job->n_products++;
    }
    for (int32_t i = 0; i < job->n_products && p->status == EDGELLM_OK; i++)
        if (!job->products[i].complete)
            last[i] = el_follow_product(p, &job->input, &job->products[i], last[i], &gates[i]);
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
