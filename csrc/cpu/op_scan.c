/* op_scan.c - the selective scan, in parts of a few heads of one sequence. */
#include "op_scan.h"

#include <string.h>

#include "cpu_op.h"
#include "kernels.h"
#include "mem.h"
#include "op_runs.h"

enum { X, DT, DT_BIAS, A, B, C, D, MEMORY, RUNS, N_SRCS };
enum { CHANNELS = 64 }; /* of a part: heads of Mamba 1, or the rows for which Mamba 2 takes exp at once */

typedef struct part {
    const struct ggml_tensor *node;
    el_run run;
    int64_t head, n_heads; /* the part's */
    int64_t width;         /* channels of a head */
    int64_t d_state;
    int64_t group; /* heads that share b and c */
    float *state;  /* of the part's first head */
} part;

static bool decays_by_element(const struct ggml_tensor *node)
{
    return ggml_nelements(node->src[A]) > node->src[DT]->ne[0];
}

static int64_t heads_of_part(const struct ggml_tensor *node) { return decays_by_element(node) ? CHANNELS : 1; }

static int64_t n_parts(const struct ggml_tensor *node)
{
    const int64_t each = heads_of_part(node);

    return (node->src[DT]->ne[0] + each - 1) / each;
}

static int32_t scan_chunks(const struct ggml_tensor *node) { return (int32_t)(n_parts(node) * node->src[RUNS]->ne[1]); }

/* One row, whose elements all decay alike. */
static void advance_head(const part *p, int64_t row, float dt, float decay, float d)
{
    const int64_t at = p->head / p->group * p->d_state;
    const float *x = el_row_of(p->node->src[X], row, p->head * p->width);
    float *y = el_row_of(p->node, row, p->head * p->width);
    float decays[EL_SCAN_MAX_STATE], in[CHANNELS];
    el_state_step step = {.n_key = p->d_state,
                          .decay = decays,
                          .key = el_row_of(p->node->src[B], row, at),
                          .query = el_row_of(p->node->src[C], row, at),
                          .value = in};

    for (int64_t k = 0; k < p->d_state; k++)
        decays[k] = decay;
    for (int64_t i = 0; i < p->width; i += CHANNELS) {
        step.n_value = EL_MIN(p->width - i, (int64_t)CHANNELS);
        for (int64_t k = 0; k < step.n_value; k++)
            in[k] = x[i + k] * dt;
        el_kernels_get()->state_step(y + i, p->state + i * p->d_state, &step);
        el_kernels_get()->axpy(y + i, d, x + i, step.n_value);
    }
}

/* Mamba 2: one head, whose elements all decay alike. */
static void scan_head(const part *p)
{
    const struct ggml_tensor *node = p->node;
    const float a = ((const float *)node->src[A]->data)[p->head], d = ((const float *)node->src[D]->data)[p->head];
    const float bias = ((const float *)node->src[DT_BIAS]->data)[p->head];
    float dt[CHANNELS], decay[CHANNELS];

    for (int64_t first = 0; first < p->run.n_rows; first += CHANNELS) {
        const int64_t n = EL_MIN(p->run.n_rows - first, (int64_t)CHANNELS), row = p->run.first_row + first;
        for (int64_t t = 0; t < n; t++)
            dt[t] = *el_row_of(node->src[DT], row + t, p->head) + bias;
        el_kernels_get()->map(EL_MAP_SOFTPLUS, dt, dt, NULL, n, NULL);
        el_kernels_get()->scale(decay, dt, a, n);
        el_kernels_get()->map(EL_MAP_EXP, decay, decay, NULL, n, NULL);
        for (int64_t t = 0; t < n; t++)
            advance_head(p, row + t, dt[t], decay[t], d);
    }
}

/* Mamba 1: heads of one channel, each element with a decay of its own. */
static void scan_channels(const part *p)
{
    const struct ggml_tensor *node = p->node;
    const float *a = (const float *)node->src[A]->data + p->head * p->d_state;
    const float *d = (const float *)node->src[D]->data + p->head;
    const int64_t n = p->d_state, at_once = EL_SCAN_MAX_STATE / n;
    float dt[CHANNELS], decay[EL_SCAN_MAX_STATE];

    for (int64_t row = p->run.first_row; row < p->run.first_row + p->run.n_rows; row++) {
        const float *x = el_row_of(node->src[X], row, p->head);
        float in, *y = el_row_of(node, row, p->head);
        el_state_step step = {.n_key = n,
                              .n_value = 1,
                              .key = el_row_of(node->src[B], row, 0),
                              .query = el_row_of(node->src[C], row, 0),
                              .value = &in};
        el_kernels_get()->add(dt, el_row_of(node->src[DT], row, p->head),
                              (const float *)node->src[DT_BIAS]->data + p->head, p->n_heads);
        el_kernels_get()->map(EL_MAP_SOFTPLUS, dt, dt, NULL, p->n_heads, NULL);
        for (int64_t i = 0; i < p->n_heads; i++) {
            if (i % at_once == 0) { /* exp of many elements at once */
                const int64_t some = EL_MIN(p->n_heads - i, at_once);
                for (int64_t k = 0; k < some; k++)
                    for (int64_t j = 0; j < n; j++)
                        decay[k * n + j] = a[(i + k) * n + j] * dt[i + k];
                el_kernels_get()->map(EL_MAP_EXP, decay, decay, NULL, some * n, NULL);
            }
            in = x[i] * dt[i];
            step.decay = decay + i % at_once * n;
            el_kernels_get()->state_step(y + i, p->state + i * n, &step);
            y[i] += d[i] * x[i];
        }
    }
}

static void scan_run(const struct ggml_tensor *node, int32_t chunk)
{
    const int64_t each = heads_of_part(node), n_head = node->src[DT]->ne[0];
    part p = {.node = node, .run = el_run_at(node->src[RUNS], (int32_t)(chunk / n_parts(node)))};
    size_t n_bytes;

    p.head = chunk % n_parts(node) * each;
    p.n_heads = EL_MIN(n_head - p.head, each);
    p.width = node->ne[0] / n_head;
    p.d_state = node->src[MEMORY]->ne[0] / node->ne[0];
    p.group = n_head / (node->src[B]->ne[0] / p.d_state);
    p.state = el_row_of(node->src[MEMORY], p.run.to, p.head * p.width * p.d_state);
    n_bytes = (size_t)(p.n_heads * p.width * p.d_state) * sizeof(float);
    if (p.run.from < 0)
        memset(p.state, 0, n_bytes);
    else
        memcpy(p.state, el_row_of(node->src[MEMORY], p.run.from, p.head * p.width * p.d_state), n_bytes);
    if (decays_by_element(node))
        scan_channels(&p);
    else
        scan_head(&p);
}

static const el_op scan = {"scan", scan_chunks, scan_run};

struct ggml_tensor *el_op_scan(struct ggml_context *ctx, const el_scan *s)
{
    struct ggml_tensor *srcs[N_SRCS] = {[X] = s->x, [DT] = s->dt, [DT_BIAS] = s->dt_bias, [A] = s->a,      [B] = s->b,
                                        [C] = s->c, [D] = s->d,   [MEMORY] = s->memory,   [RUNS] = s->runs};

    return el_op_new(ctx, &scan, GGML_TYPE_F32, (const int64_t[4]){s->x->ne[0], s->x->ne[1], 1, 1}, srcs, N_SRCS, NULL,
                     0);
}
