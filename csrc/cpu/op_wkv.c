/* op_wkv.c - linear attention with a decay for each channel, in parts of one head of one sequence. */
#include "op_wkv.h"

#include <string.h>

#include "cpu_op.h"
#include "kernels.h"
#include "mem.h"
#include "op_runs.h"

enum { R, DECAY, K, V, MEMORY, RUNS, FIRST, ERASED = FIRST, RATE };

typedef struct wkv_params {
    float scale;
    int32_t complement;
} wkv_params;

typedef struct head {
    const struct ggml_tensor *node;
    const el_kernels *kernels;
    wkv_params params;
    int64_t n, index;
} head;

/* What is the same for all rows has one. */
static float *floats_of(const head *h, const struct ggml_tensor *t, int64_t row)
{
    const int64_t shared = h->node->ne[1] / t->ne[1];

    if (t->ne[2] == 1)
        row = 0;
    return (float *)(void *)((char *)t->data + (size_t)(h->index / shared) * t->nb[1] + (size_t)row * t->nb[2]);
}

static void step(const head *h, float *state, int64_t row)
{
    const struct ggml_tensor *const *src = (const struct ggml_tensor *const *)h->node->src;
    float key[EL_WKV_MAX_HEAD], probe[EL_WKV_MAX_HEAD], erase[EL_WKV_MAX_HEAD];
    float *y = floats_of(h, h->node, row);
    el_state_step s = {.n_key = h->n,
                       .n_value = h->n,
                       .decay = floats_of(h, src[DECAY], row),
                       .key = key,
                       .value = floats_of(h, src[V], row),
                       .query = floats_of(h, src[R], row)};

    memcpy(key, floats_of(h, src[K], row), (size_t)h->n * sizeof *key);
    if (h->params.complement) { /* k - k decay */
        h->kernels->mul(probe, key, s.decay, h->n);
        h->kernels->map(EL_MAP_SUB, key, key, probe, h->n, NULL);
    }
    if (src[RATE]) {
        s.probe = floats_of(h, src[ERASED], row);
        h->kernels->mul(erase, s.probe, floats_of(h, src[RATE], row), h->n);
        h->kernels->scale(erase, erase, -1.0f, h->n);
        s.erase = erase;
    } else if (src[FIRST]) {
        s.probe = s.query;
    }
    h->kernels->state_step(y, state, &s);
    if (src[FIRST] && !src[RATE]) {
        h->kernels->mul(probe, floats_of(h, src[FIRST], row), key, h->n);
        h->kernels->axpy(y, h->kernels->dot(probe, s.query, h->n), s.value, h->n);
    }
    if (h->params.scale != 1)
        h->kernels->scale(y, y, h->params.scale, h->n);
}

static int32_t wkv_chunks(const struct ggml_tensor *node) { return (int32_t)(node->ne[1] * node->src[RUNS]->ne[1]); }

static void wkv_run(const struct ggml_tensor *node, int32_t chunk)
{
    const el_run run = el_run_at(node->src[RUNS], (int32_t)(chunk / node->ne[1]));
    head h = {.node = node, .kernels = el_kernels_get(), .n = node->ne[0], .index = chunk % node->ne[1]};
    float *state = el_run_state(node->src[MEMORY], run, h.index * h.n * h.n, h.n * h.n);

    memcpy(&h.params, el_op_params(node), sizeof h.params);
    for (int64_t row = run.first_row; row < run.first_row + run.n_rows; row++)
        step(&h, state, row);
}

static const el_op wkv = {"wkv", wkv_chunks, wkv_run};

struct ggml_tensor *el_op_wkv(struct ggml_context *ctx, const el_wkv *w)
{
    const wkv_params params = {.scale = w->scale, .complement = w->complement};
    struct ggml_tensor *srcs[] = {[R] = w->r,
                                  [DECAY] = w->decay,
                                  [K] = w->k,
                                  [V] = w->v,
                                  [MEMORY] = w->memory,
                                  [RUNS] = w->runs,
                                  [FIRST] = w->first ? w->first : w->erased,
                                  [RATE] = w->rate};
    const int n_srcs = w->rate ? RATE + 1 : w->first ? FIRST + 1 : FIRST;

    GGML_ASSERT(w->r->ne[0] <= EL_WKV_MAX_HEAD && w->r->ne[1] % w->k->ne[1] == 0 && !(w->first && w->erased));
    return el_op_new(ctx, &wkv, GGML_TYPE_F32, (const int64_t[4]){w->r->ne[0], w->r->ne[1], w->r->ne[2], 1}, srcs,
                     n_srcs, &params, sizeof params);
}
