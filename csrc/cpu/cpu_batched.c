/* cpu_batched.c - products of any shape: one matrix per head, matrices that are computed, and matrices that ids name
 * (one expert's for each row), when nothing around them could be fused. */
#include <string.h>

#include "cpu_internal.h"

/* ---- a matrix per head -------------------------------------------------------------------- */

static void quantize(const el_batched_job *job, const char *from, char *to, float *row)
{
    const struct ggml_tensor *x = job->node->src[1];

    if (x->type == GGML_TYPE_F16)
        job->plan->kernels->f16_to_f32(row, (const uint16_t *)(const void *)from, x->ne[0]);
    else
        for (int64_t i = 0; i < x->ne[0]; i++)
            memcpy(row + i, from + (size_t)i * x->nb[0], sizeof *row);
    el_act_from_row(job->plan, &job->format, to, row, x->ne[0]);
}

void el_batched_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_batched_job *job = job_;
    const struct ggml_tensor *t = job->node, *w = t->src[0], *x = t->src[1];
    el_worker_scratch *s = &job->plan->scratch[worker];
    const int64_t o0 = chunk % job->out_blocks * job->out_per_chunk;
    const int64_t r0 = chunk / job->out_blocks % job->row_blocks * job->rows_per_chunk;
    const int64_t i2 = chunk / job->out_blocks / job->row_blocks % t->ne[2];
    const int64_t i3 = chunk / job->out_blocks / job->row_blocks / t->ne[2];
    const int64_t n = EL_MIN(job->out_per_chunk, t->ne[0] - o0), m = EL_MIN(job->rows_per_chunk, t->ne[1] - r0);
    const char *rows = (const char *)w->data + (size_t)o0 * w->nb[1] + (size_t)(i2 / (t->ne[2] / w->ne[2])) * w->nb[2] +
                       (size_t)(i3 / (t->ne[3] / w->ne[3])) * w->nb[3];

    s->tag = 0; /* rows prepared for an earlier region are overwritten */
    for (int64_t r = 0; r < m; r++)
        quantize(job,
                 (const char *)x->data + (size_t)(r0 + r) * x->nb[1] + (size_t)i2 * x->nb[2] + (size_t)i3 * x->nb[3],
                 s->act + (size_t)r * job->format.stride, s->row);
    el_multiply(job->plan, &job->format, s->tile, n, w, rows, n, s->act, m, s->kernel);
    for (int64_t r = 0; r < m; r++)
        memcpy((char *)t->data + (size_t)o0 * sizeof(float) + (size_t)(r0 + r) * t->nb[1] + (size_t)i2 * t->nb[2] +
                   (size_t)i3 * t->nb[3],
               s->tile + r * n, (size_t)n * sizeof(float));
}

/* ---- matrices that ids name --------------------------------------------------------------- */

void el_by_id_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_batched_job *job = job_;
    const struct ggml_tensor *t = job->node, *w = t->src[0], *x = t->src[1];
    el_worker_scratch *s = &job->plan->scratch[worker];
    const el_groups g = el_group_entries(&job->grouping, s, el_cpu_tag(job->plan, job));
    const int32_t slot = chunk / (int32_t)job->out_blocks;
    const int64_t o0 = chunk % job->out_blocks * job->out_per_chunk;
    const int64_t n = EL_MIN(job->out_per_chunk, t->ne[0] - o0);
    const char *rows;

    if (slot >= g.n)
        return;
    s->tag = 0;
    rows = (const char *)w->data + (size_t)g.experts[slot] * w->nb[2] + (size_t)o0 * w->nb[1];
    for (int32_t i = g.starts[slot], m; i < g.starts[slot + 1]; i += m) {
        m = (int32_t)EL_MIN(job->rows_per_chunk, (int64_t)(g.starts[slot + 1] - i));
        for (int32_t j = 0; j < m; j++) {
            const int64_t row = g.entries[i + j] / t->ne[1], rank = g.entries[i + j] % t->ne[1];
            quantize(job, (const char *)x->data + (size_t)(rank % x->ne[1]) * x->nb[1] + (size_t)row * x->nb[2],
                     s->act + (size_t)j * job->format.stride, s->row);
        }
        el_multiply(job->plan, &job->format, s->tile, n, w, rows, n, s->act, m, s->kernel);
        for (int32_t j = 0; j < m; j++)
            memcpy((float *)t->data + g.entries[i + j] * t->ne[0] + o0, s->tile + j * n, (size_t)n * sizeof(float));
    }
}
