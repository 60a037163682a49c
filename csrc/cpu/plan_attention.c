/* plan_attention.c - attention over the paged cache: one region, or two when rows are few and segments many. */
#include <math.h>

#include "cpu_planner.h"

enum {
    MAX_HEADS_PER_CHUNK = 64, /* queries of one attention chunk */
    MOST_PARTIALS = 1 << 18   /* floats of their partial results: 1 MB of a worker's scratch, whatever the context */
};

static int kv_kind(enum ggml_type type)
{
    return type == GGML_TYPE_F32    ? EL_KV_F32
           : type == GGML_TYPE_F16  ? EL_KV_F16
           : type == GGML_TYPE_Q8_0 ? EL_KV_Q8_0
                                    : -1;
}

bool el_is_cache_type(enum ggml_type type) { return kv_kind(type) >= 0; }

static bool is_kept(const struct ggml_tensor *t) { return el_base_of(t)->op == GGML_OP_NONE && t->ne[3] == 1; }

bool el_is_attention(const el_planner *p, const struct ggml_tensor *t)
{
    const struct ggml_tensor *q = t->src[0], *k = t->src[1], *v = t->src[2], *sinks = t->src[4];

    (void)p;
    return t->op == GGML_OP_FLASH_ATTN_EXT && t->src[EL_ATTN_RANGES] && t->src[EL_ATTN_TABLES] &&
           q->type == GGML_TYPE_F32 && q->nb[0] == sizeof(float) && kv_kind(k->type) >= 0 && kv_kind(v->type) >= 0 &&
           is_kept(k) && is_kept(v) && k->ne[2] == v->ne[2] && (!sinks || el_is_vector(sinks, q->ne[2]));
}

/* Heads' slopes: powers of 2^-(max_bias / n) for the first n, the largest power of two within n_head, then every other
 * one of those that 2 n heads would have (Press et al. 2022, and its authors' code). NULL: no memory. */
static const float *slopes_of(el_planner *p, int64_t n_head, float max_bias)
{
    float *slopes = el_own(p, (size_t)n_head * sizeof *slopes);
    int64_t n = 1;

    while (2 * n <= n_head)
        n *= 2;
    for (int64_t h = 0; slopes && h < n_head; h++)
        slopes[h] = h < n ? exp2f(-max_bias * (float)(h + 1) / (float)n)
                          : exp2f(-max_bias * (float)(2 * (h - n) + 1) / (float)(2 * n));
    return slopes;
}

/* How many segments the positions that a row sees may touch. A cache of fewer slots than a sequence has positions holds
 * a window, which need not begin where a segment does. */
static int32_t segments_of_row(int64_t n_slots, int64_t n_positions)
{
    const int64_t n = (n_slots + EL_ATTN_SEGMENT - 1) / EL_ATTN_SEGMENT;

    return (int32_t)(n_slots < n_positions ? n + 1 : n);
}

void el_plan_attention(el_planner *p, struct ggml_tensor *t)
{
    const struct ggml_tensor *q = t->src[0], *k = t->src[1], *v = t->src[2];
    const int64_t group = q->ne[2] / k->ne[2];
    el_attention_job *job = el_own(p, sizeof *job);
    int64_t n_chunks, n_queries;

    if (!job)
        return;
    el_store_sources(p, t);
    *job = (el_attention_job){.plan = p->plan,
                              .q = q,
                              .k = k,
                              .v = v,
                              .ranges = t->src[EL_ATTN_RANGES],
                              .tables = t->src[EL_ATTN_TABLES],
                              .sinks = t->src[4],
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
                           .scale = el_param(t, 0),
                           .softcap = el_param(t, 2)};
    if (el_param(t, 1) != 0) {
        job->slopes = slopes_of(p, job->n_head, el_param(t, 1));
        if (!job->slopes)
            return;
    }
    job->n_segments = segments_of_row(k->ne[1], job->tables->ne[0] * EL_ATTN_BLOCK);
    job->partial_floats = el_attn_partial_floats(job->shape.head_v);
    job->heads_per_chunk = group;
    while (job->heads_per_chunk > MAX_HEADS_PER_CHUNK || group % job->heads_per_chunk != 0)
        job->heads_per_chunk--;
    if (job->n_rows > EL_SMALL_ROWS) {
        const int64_t per_row = job->heads_per_chunk * job->n_segments * (int64_t)job->partial_floats;
        job->rows_per_chunk = EL_MIN(MAX_HEADS_PER_CHUNK / job->heads_per_chunk, MOST_PARTIALS / per_row);
        job->rows_per_chunk = EL_MAX(1, job->rows_per_chunk);
    } else {
        job->split = job->n_segments > 1;
        if (job->n_rows * job->n_head / job->heads_per_chunk * job->n_segments < 2 * p->plan->n_threads)
            job->heads_per_chunk = 1;
        if (job->split)
            job->partials =
                el_own(p, (size_t)(job->n_rows * job->n_segments * job->n_head) * job->partial_floats * sizeof(float));
    }
    n_queries = job->rows_per_chunk * job->heads_per_chunk;
    p->tile_floats = EL_MAX(p->tile_floats, (size_t)(job->n_segments * n_queries) * job->partial_floats);
    p->row_floats = EL_MAX(p->row_floats, (size_t)job->shape.head_v);
    p->query_floats = EL_MAX(p->query_floats, (size_t)(n_queries * job->shape.head_k));
    p->kernel_bytes =
        EL_MAX(p->kernel_bytes, el_attn_scratch((int32_t)n_queries, job->shape.head_k, job->shape.head_v));
    n_chunks = (job->n_rows + job->rows_per_chunk - 1) / job->rows_per_chunk * (job->n_head / job->heads_per_chunk);
    el_emit(p, el_attention_chunk, job, (int32_t)(n_chunks * (job->split ? job->n_segments : 1)), false);
    if (job->split)
        el_emit(p, el_combine_chunk, job, (int32_t)(job->n_rows * job->n_head), false);
    el_info_of(p, t)->state = EL_NODE_DONE;
}
