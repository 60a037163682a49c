/* cpu_attention.c - attention over the paged cache, by block table and position. The kernels fix the order of the sums
 * (segments of 256 positions, then segments by index), so nothing here can change a bit: a chunk is some rows times
 * some heads of one key-value head, and with few rows also one segment. */
#include <math.h>
#include <string.h>

#include "cpu_internal.h"

enum { MAX_QUERIES = 64 };

static const int32_t *range_of(const el_attention_job *job, int64_t row)
{
    return (const int32_t *)job->ranges->data + row * 4;
}

static const float *query_of(const el_attention_job *job, int64_t row, int64_t head)
{
    return (const float *)(const void *)((const char *)job->q->data + (size_t)row * job->q->nb[1] +
                                         (size_t)head * job->q->nb[2]);
}

static float *output_of(const el_attention_job *job, int64_t row, int64_t head)
{
    return (float *)job->out->data + (row * job->n_head + head) * job->shape.head_v;
}

/* Segments count from the row's first. */
static float *partial_of(const el_attention_job *job, int64_t row, int64_t head, int32_t segment)
{
    const int64_t at = (row * job->n_segments + segment) * job->n_head + head;

    return job->partials + (size_t)at * job->partial_floats;
}

/* What the kernels want to know of each query. */
typedef struct queries {
    int32_t from[MAX_QUERIES], to[MAX_QUERIES], positions[MAX_QUERIES];
    float slopes[MAX_QUERIES];
} queries;

/* The queries of rows first .. end - 1 (of one sequence) and heads head0 .. head0 + n_heads - 1, row by row. */
static el_attn gather(const el_attention_job *job, int64_t first, int64_t end, int64_t head0, int64_t n_heads,
                      float *room, queries *each)
{
    el_attn a = job->shape;
    const int64_t kv_head = head0 / (job->n_head / job->n_head_kv);
    const int32_t *range = range_of(job, first);

    a.n_q = 0;
    a.q = room;
    a.q_stride = (size_t)a.head_k;
    a.first = each->from;
    a.last = each->to;
    a.slopes = job->slopes ? each->slopes : NULL;
    a.positions = each->positions;
    a.k = (const char *)job->k->data + (size_t)kv_head * job->k->nb[2];
    a.v = (const char *)job->v->data + (size_t)kv_head * job->v->nb[2];
    a.blocks = (const int32_t *)job->tables->data + (int64_t)range[2] * job->tables->ne[0];
    for (int64_t row = first; row < end; row++) {
        range = range_of(job, row);
        for (int64_t h = 0; h < n_heads; h++, a.n_q++) {
            memcpy(room + (size_t)a.n_q * a.q_stride, query_of(job, row, head0 + h), a.q_stride * sizeof *room);
            each->from[a.n_q] = range[0];
            each->to[a.n_q] = range[1];
            each->slopes[a.n_q] = job->slopes ? job->slopes[head0 + h] : 0;
            each->positions[a.n_q] = range[3];
        }
    }
    return a;
}

/* The kernels build their sums where they write, and another worker may do this chunk again while a later region reads
 * its result: so sums are built in the worker's own memory and only whole results are copied out. */
static void combine(const el_attention_job *job, const el_worker_scratch *s, int64_t row, int64_t head,
                    const float *partials, size_t stride, int32_t n)
{
    const float sink = job->sinks ? ((const float *)job->sinks->data)[head] : -INFINITY;

    job->plan->kernels->attn_combine(s->row, partials, stride, n, sink, job->shape.head_v);
    memcpy(output_of(job, row, head), s->row, (size_t)job->shape.head_v * sizeof *s->row);
}

/* All segments of some rows of one sequence, each combined at once. */
static void whole_rows(const el_attention_job *job, int64_t first, int64_t end, int64_t head0,
                       const el_worker_scratch *s)
{
    const el_kernels *k = job->plan->kernels;
    queries each;
    const el_attn a = gather(job, first, end, head0, job->heads_per_chunk, s->queries, &each);
    const size_t stride = job->partial_floats;
    const int32_t seg0 = range_of(job, first)[0] / EL_ATTN_SEGMENT;
    const int32_t n = (range_of(job, end - 1)[1] - 1) / EL_ATTN_SEGMENT - seg0 + 1;

    for (int32_t i = 0; i < n; i++)
        k->attn_segment(&a, seg0 + i, s->tile + (size_t)i * (size_t)a.n_q * stride, s->kernel);
    for (int32_t q = 0; q < a.n_q; q++)
        combine(job, s, first + q / job->heads_per_chunk, head0 + q % job->heads_per_chunk,
                s->tile + (size_t)q * stride, (size_t)a.n_q * stride, n);
}

void el_attention_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_attention_job *job = job_;
    const el_worker_scratch *s = &job->plan->scratch[worker];
    const int64_t n_groups = job->n_head / job->heads_per_chunk;
    const int32_t n_segments = job->split ? job->n_segments : 1;
    const int32_t segment = chunk % n_segments;
    const int64_t head0 = chunk / n_segments % n_groups * job->heads_per_chunk;
    int64_t first = chunk / n_segments / n_groups * job->rows_per_chunk;
    const int64_t end = EL_MIN(first + job->rows_per_chunk, job->n_rows);

    if (job->split) {
        queries each;
        const el_attn a = gather(job, first, first + 1, head0, job->heads_per_chunk, s->queries, &each);
        job->plan->kernels->attn_segment(&a, range_of(job, first)[0] / EL_ATTN_SEGMENT + segment, s->tile, s->kernel);
        memcpy(partial_of(job, first, head0, segment), s->tile, (size_t)a.n_q * job->partial_floats * sizeof *s->tile);
        return;
    }
    while (first < end) { /* a chunk of rows may span sequences */
        int64_t same = first + 1;
        while (same < end && range_of(job, same)[2] == range_of(job, first)[2])
            same++;
        whole_rows(job, first, same, head0, s);
        first = same;
    }
}

void el_combine_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_attention_job *job = job_;
    const int64_t row = chunk / job->n_head, head = chunk % job->n_head;
    const int32_t seg0 = range_of(job, row)[0] / EL_ATTN_SEGMENT;
    const int32_t n = (range_of(job, row)[1] - 1) / EL_ATTN_SEGMENT - seg0 + 1;

    combine(job, &job->plan->scratch[worker], row, head, partial_of(job, row, head, 0),
            (size_t)job->n_head * job->partial_floats, n);
}
