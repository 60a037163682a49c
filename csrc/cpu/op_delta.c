/* op_delta.c - the gated delta rule, in parts of one value head of one sequence. */
#include "op_delta.h"

#include <math.h>
#include <string.h>

#include "cpu_op.h"
#include "kernels.h"
#include "mem.h"
#include "op_runs.h"

enum { Q, K, V, ALPHA, BETA, BIAS, A, MEMORY, RUNS, N_SRCS };

typedef struct delta_params {
    int32_t neighbours;
    float eps, bound;
} delta_params;

/* Of one value head; rows may stand apart. */
typedef struct head {
    const struct ggml_tensor *node;
    const el_kernels *kernels;
    int64_t n, value_head, key_head;
    float eps, bound;
} head;

static const float *floats_at(const struct ggml_tensor *t, int64_t i1, int64_t i2, int64_t i3)
{
    return (const float *)(const void *)((const char *)t->data + (size_t)i1 * t->nb[1] + (size_t)i2 * t->nb[2] +
                                         (size_t)i3 * t->nb[3]);
}

/* The numbers of a value head in a tensor like alpha. */
static const float *gates_at(const struct ggml_tensor *t, int64_t value_head, int64_t row)
{
    return floats_at(t, value_head % t->ne[1], value_head / t->ne[1], row);
}

/* x / sqrt(sum(x^2) + eps) * factor */
static void unit(const head *h, float *y, const float *x, float factor)
{
    h->kernels->rms_norm(y, x, NULL, h->n, h->eps / (float)h->n);
    h->kernels->scale(y, y, factor / sqrtf((float)h->n), h->n);
}

/* One decay for all channels, or one for each. */
static void decays(const head *h, float *decay, int64_t row)
{
    const struct ggml_tensor *alpha = h->node->src[ALPHA];
    const int64_t n = alpha->ne[0];
    const float *bias = (const float *)h->node->src[BIAS]->data + h->value_head * n;
    const float a = ((const float *)h->node->src[A]->data)[h->value_head];

    h->kernels->add(decay, gates_at(alpha, h->value_head, row), bias, n);
    if (h->bound != 0) {
        h->kernels->scale(decay, decay, a, n);
        h->kernels->map(EL_MAP_SIGMOID, decay, decay, NULL, n, NULL);
        h->kernels->scale(decay, decay, h->bound, n);
    } else {
        h->kernels->map(EL_MAP_SOFTPLUS, decay, decay, NULL, n, NULL);
        h->kernels->scale(decay, decay, a, n);
    }
    h->kernels->map(EL_MAP_EXP, decay, decay, NULL, n, NULL);
    for (int64_t i = n; i < h->n; i++)
        decay[i] = decay[0];
}

/* With p = state (decay k): state decay + (step v) k' - (step p) k' is the rule, with one pass over each row. */
static void step(const head *h, float *state, int64_t row)
{
    float q[EL_DELTA_MAX_HEAD], key[EL_DELTA_MAX_HEAD], decay[EL_DELTA_MAX_HEAD], probe[EL_DELTA_MAX_HEAD];
    float erase[EL_DELTA_MAX_HEAD], beta;
    el_state_step s = {.n_key = h->n, .n_value = h->n, .decay = decay, .key = key, .query = q, .probe = probe};

    unit(h, q, floats_at(h->node->src[Q], h->key_head, row, 0), 1.0f / sqrtf((float)h->n));
    unit(h, key, floats_at(h->node->src[K], h->key_head, row, 0), 1.0f);
    decays(h, decay, row);
    h->kernels->map(EL_MAP_SIGMOID, &beta, gates_at(h->node->src[BETA], h->value_head, row), NULL, 1, NULL);
    h->kernels->mul(probe, decay, key, h->n);
    h->kernels->scale(key, key, beta, h->n);
    h->kernels->scale(erase, key, -1.0f, h->n);
    s.erase = erase;
    s.value = floats_at(h->node->src[V], h->value_head, row, 0);
    h->kernels->state_step((float *)(uintptr_t)floats_at(h->node, h->value_head, row, 0), state, &s);
}

static int32_t delta_chunks(const struct ggml_tensor *node) { return (int32_t)(node->ne[1] * node->src[RUNS]->ne[1]); }

static void delta_run(const struct ggml_tensor *node, int32_t chunk)
{
    const int64_t n_key_heads = node->src[K]->ne[1], n_value_heads = node->ne[1];
    const el_run run = el_run_at(node->src[RUNS], (int32_t)(chunk / n_value_heads));
    head h = {.node = node, .kernels = el_kernels_get(), .n = node->ne[0], .value_head = chunk % n_value_heads};
    delta_params params;
    float *state;

    memcpy(&params, el_op_params(node), sizeof params);
    h.eps = params.eps;
    h.bound = params.bound;
    h.key_head = params.neighbours ? h.value_head / (n_value_heads / n_key_heads) : h.value_head % n_key_heads;
    state = el_run_state(node->src[MEMORY], run, h.value_head * h.n * h.n, h.n * h.n);
    for (int64_t row = run.first_row; row < run.first_row + run.n_rows; row++)
        step(&h, state, row);
}

static const el_op delta = {"delta", delta_chunks, delta_run};

struct ggml_tensor *el_op_delta(struct ggml_context *ctx, const el_delta *d)
{
    const delta_params params = {.neighbours = d->neighbours, .eps = d->eps, .bound = d->bound};
    struct ggml_tensor *srcs[N_SRCS] = {
        [Q] = d->q,       [K] = d->k, [V] = d->v,           [ALPHA] = d->alpha, [BETA] = d->beta,
        [BIAS] = d->bias, [A] = d->a, [MEMORY] = d->memory, [RUNS] = d->runs};

    GGML_ASSERT(d->v->ne[0] == d->k->ne[0] && d->v->ne[0] <= EL_DELTA_MAX_HEAD && d->v->ne[1] % d->k->ne[1] == 0);
    return el_op_new(ctx, &delta, GGML_TYPE_F32, (const int64_t[4]){d->v->ne[0], d->v->ne[1], d->v->ne[2], 1}, srcs,
                     N_SRCS, &params, sizeof params);
}
