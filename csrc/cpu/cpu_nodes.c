/* cpu_nodes.c - nodes computed row by row with ggml's meaning, whatever the strides of their sources: what plan_rows.c
 * and plan_products.c could not make part of something else. A row is built in the worker's memory and copied out
 * whole, since others may do it again while it is read. */
#include <math.h>
#include <string.h>

#include "cpu_internal.h"

typedef struct place { /* of a row, in dimensions 1 to 3 */
    int64_t i[3];
} place;

static place place_of(const struct ggml_tensor *t, int64_t r)
{
    return (place){{r % t->ne[1], r / t->ne[1] % t->ne[2], r / t->ne[1] / t->ne[2]}};
}

/* Of the row that is broadcast to that place. */
static char *row_at(const struct ggml_tensor *t, place at)
{
    return (char *)t->data + (size_t)(at.i[0] % t->ne[1]) * t->nb[1] + (size_t)(at.i[1] % t->ne[2]) * t->nb[2] +
           (size_t)(at.i[2] % t->ne[3]) * t->nb[3];
}

static void to_floats(const el_kernels *k, enum ggml_type type, float *to, const char *from, size_t step, int64_t n)
{
    if (type == GGML_TYPE_F16 && step == 2)
        k->f16_to_f32(to, (const uint16_t *)(const void *)from, n);
    else if (type == GGML_TYPE_F32 || type == GGML_TYPE_I32)
        for (int64_t i = 0; i < n; i++)
            memcpy(to + i, from + (size_t)i * step, sizeof *to);
    else
        ggml_get_type_traits(type)->to_float(from, to, n);
}

/* n floats of the row of t at that place: where they lie, or in room. A shorter row is repeated. */
static const float *floats_at(const el_node_job *job, const struct ggml_tensor *t, place at, float *room, int64_t n)
{
    const char *from = row_at(t, at);

    if (t->ne[0] >= n && ggml_type_size(t->type) == sizeof(float) && t->nb[0] == sizeof(float))
        return (const float *)(const void *)from;
    to_floats(job->plan->kernels, t->type, room, from, t->nb[0], EL_MIN(n, t->ne[0]));
    for (int64_t i = t->ne[0]; i < n; i++)
        room[i] = room[i - t->ne[0]];
    return room;
}

/* n elements of dst's row, from element i0 on. */
static void put_part(const el_node_job *job, const struct ggml_tensor *dst, char *row, int64_t i0, const float *y,
                     int64_t n)
{
    const el_kernels *k = job->plan->kernels;
    char *to = row + (size_t)(i0 / ggml_blck_size(dst->type)) * dst->nb[0];

    if (ggml_type_size(dst->type) == sizeof(float) && dst->nb[0] == sizeof(float))
        memcpy(to, y, (size_t)n * sizeof *y);
    else if (ggml_type_size(dst->type) == sizeof(float))
        for (int64_t i = 0; i < n; i++)
            memcpy(to + (size_t)i * dst->nb[0], y + i, sizeof *y);
    else if (dst->type == GGML_TYPE_F16)
        k->f32_to_f16((uint16_t *)(void *)to, y, n);
    else if (dst->type == GGML_TYPE_Q8_0)
        k->f32_to_q8_0(to, y, n);
    else
        job->plan->ggml->type_traits(dst->type)->from_float(y, to, n);
}

static void put_row(const el_node_job *job, place at, const float *y)
{
    put_part(job, job->node, row_at(job->node, at), 0, y, job->node->ne[0]);
}

/* ---- the rows ----------------------------------------------------------------------------- */

void el_map_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    const struct ggml_tensor *t = job->node, *a = t->src[0], *b = t->src[1];
    const place at = place_of(t, r);
    const int64_t n = t->ne[0];
    const float *x = floats_at(job, a, at, s->tile, job->halves ? 2 * n : n), *u = NULL;

    if (job->halves) { /* gate and value in one row */
        u = x + (job->swapped ? 0 : n);
        x += job->swapped ? n : 0;
    } else if (b) {
        u = floats_at(job, b, at, s->tile2, n);
    }
    job->plan->kernels->map(job->map, s->row, x, u, n, job->params);
    put_row(job, at, s->row);
}

void el_norm_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    const struct ggml_tensor *t = job->node;
    const el_kernels *k = job->plan->kernels;
    const place at = place_of(t, r);
    const int64_t n = t->ne[0];
    const float *x = floats_at(job, t->src[0], at, s->tile, n), eps = job->params[0];

    if (t->op == GGML_OP_NORM)
        k->layer_norm(s->row, x, NULL, NULL, n, eps);
    else if (t->op == GGML_OP_RMS_NORM)
        k->rms_norm(s->row, x, NULL, n, eps);
    else
        k->scale(s->row, x, 1.0f / fmaxf(sqrtf(k->dot(x, x, n)), eps), n);
    put_row(job, at, s->row);
}

/* Sums as kernels.h has them: 16 partial ones, then the fold. */
void el_sum_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    const struct ggml_tensor *t = job->node;
    const place at = place_of(t, r);
    const int64_t n = t->src[0]->ne[0];
    const float *x = floats_at(job, t->src[0], at, s->tile, n);
    float p[16] = {0};

    for (int64_t i = 0; i < n; i++)
        p[i % 16] += x[i];
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            p[i] += p[i + width];
    if (t->op == GGML_OP_MEAN)
        p[0] /= (float)n;
    put_row(job, at, p);
}

/* The k best of a row as their places, best first; equal ones by place. */
void el_sort_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    const struct ggml_tensor *t = job->node;
    const el_kernels *k = job->plan->kernels;
    const place at = place_of(t, r);
    const int64_t n = t->src[0]->ne[0];
    const float *x = floats_at(job, t->src[0], at, s->tile, n);

    if (job->swapped) { /* ascending */
        k->scale(s->tile, x, -1.0f, n);
        x = s->tile;
    }
    k->top_k((int32_t *)(void *)s->row, s->tile2, t->ne[0], x, n);
    put_row(job, at, s->row);
}

/* scale, mask, softmax; the mask has a row per row of the result, or is NULL. */
void el_softmax_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    const struct ggml_tensor *t = job->node;
    const el_kernels *k = job->plan->kernels;
    const place at = place_of(t, r);
    const int64_t n = t->ne[0];

    k->scale(s->row, floats_at(job, t->src[0], at, s->tile, n), job->params[0], n);
    if (t->src[1])
        k->add(s->row, s->row, floats_at(job, t->src[1], at, s->tile2, n), n);
    k->softmax(s->row, s->row, n);
    put_row(job, at, s->row);
}

/* Elements in order, into a shape that may be another: runs of whole or part rows of the source. */
void el_copy_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    const struct ggml_tensor *t = job->node, *a = t->src[0];
    const int64_t n = t->ne[0];
    float *y = s->row;

    for (int64_t i = 0, from = r * n, some; i < n; i += some, from += some) {
        const int64_t i0 = from % a->ne[0];
        const char *row = row_at(a, place_of(a, from / a->ne[0])) + (size_t)i0 * a->nb[0];
        some = EL_MIN(n - i, a->ne[0] - i0);
        to_floats(job->plan->kernels, a->type, y + i, row, a->nb[0], some);
    }
    put_row(job, place_of(t, r), y);
}

/* The same number everywhere. */
void el_fill_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    for (int64_t i = 0; i < job->node->ne[0]; i++)
        s->row[i] = job->params[0];
    put_row(job, place_of(job->node, r), s->row);
}

void el_repeat_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    const place at = place_of(job->node, r);

    put_row(job, at, floats_at(job, job->node->src[0], at, s->tile, job->node->ne[0]));
}

void el_concat_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    const struct ggml_tensor *t = job->node, *a = t->src[0], *b = t->src[1];
    const int32_t dim = t->op_params[0];
    place at = place_of(t, r);
    char *to = row_at(t, at);

    if (dim == 0) {
        put_part(job, t, to, 0, floats_at(job, a, at, s->tile, a->ne[0]), a->ne[0]);
        put_part(job, t, to, a->ne[0], floats_at(job, b, at, s->tile2, b->ne[0]), b->ne[0]);
        return;
    }
    if (at.i[dim - 1] >= a->ne[dim]) {
        at.i[dim - 1] -= a->ne[dim];
        a = b;
    }
    put_part(job, t, to, 0, floats_at(job, a, at, s->tile, t->ne[0]), t->ne[0]);
}

static int64_t id_at(const struct ggml_tensor *ids, int64_t i0, int64_t i1, int64_t i2)
{
    const char *at = (const char *)ids->data + (size_t)i0 * ids->nb[0] + (size_t)(i1 % ids->ne[1]) * ids->nb[1] +
                     (size_t)(i2 % ids->ne[2]) * ids->nb[2];

    return ids->type == GGML_TYPE_I64 ? *(const int64_t *)(const void *)at : *(const int32_t *)(const void *)at;
}

void el_gather_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    const struct ggml_tensor *t = job->node;
    const place at = place_of(t, r);
    const place from = {{id_at(t->src[1], at.i[0], at.i[1], at.i[2]), at.i[1], at.i[2]}};

    put_row(job, at, floats_at(job, t->src[0], from, s->tile, t->ne[0]));
}

/* Row r of the source, to where its id says. */
void el_scatter_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    const struct ggml_tensor *t = job->node, *x = t->src[0];
    const place at = place_of(x, r);
    const place to = {{id_at(t->src[1], at.i[0], at.i[1], at.i[2]), at.i[1], at.i[2]}};

    put_part(job, t, row_at(t, to), 0, floats_at(job, x, at, s->tile, x->ne[0]), x->ne[0]);
}

/* a's row plus the row of b that an id names. */
void el_add_id_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    const struct ggml_tensor *t = job->node;
    const place at = place_of(t, r), from = {{id_at(t->src[2], at.i[0], at.i[1], 0), 0, 0}};
    const int64_t n = t->ne[0];

    job->plan->kernels->add(s->row, floats_at(job, t->src[0], at, s->tile, n),
                            floats_at(job, t->src[1], from, s->tile2, n), n);
    put_row(job, at, s->row);
}

/* Rows are heads; dimension 2 is the step's rows, which have the angles. */
void el_rope_row(const el_node_job *job, int64_t r, const el_worker_scratch *s)
{
    const struct ggml_tensor *t = job->node;
    const el_kernels *k = job->plan->kernels;
    const el_rope_job *rope = job->rope;
    const place at = place_of(t, r);
    const int64_t angles = at.i[1] * (rope->n_rot / 2);

    (rope->halves ? k->rope_halves : k->rope_adjacent)(s->row, floats_at(job, t->src[0], at, s->tile, t->ne[0]),
                                                       rope->cosines + angles, rope->sines + angles, rope->n_rot,
                                                       t->ne[0]);
    put_row(job, at, s->row);
}

void el_node_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_node_job *job = job_;
    const int64_t first = chunk * job->rows_per_chunk, end = EL_MIN(first + job->rows_per_chunk, job->n_rows);

    for (int64_t r = first; r < end; r++)
        job->row(job, r, &job->plan->scratch[worker]);
}
