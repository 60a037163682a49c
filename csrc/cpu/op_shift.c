/* op_shift.c - token shift, in parts of CHANNELS channels of one sequence. */
#include "op_shift.h"

#include <string.h>

#include "cpu_op.h"
#include "kernels.h"
#include "mem.h"
#include "op_runs.h"

enum { CHANNELS = 256 };
enum { X, MEMORY, RUNS, MIXES }; /* sources */

static const float zeros[CHANNELS];

static int64_t n_parts(const struct ggml_tensor *node) { return (node->ne[0] + CHANNELS - 1) / CHANNELS; }

static int32_t shift_chunks(const struct ggml_tensor *node)
{
    return (int32_t)(n_parts(node) * node->src[RUNS]->ne[1]);
}

/* One position's channels in each of the results. */
static void shift_row(const struct ggml_tensor *node, const float *x, const float *before, int64_t row, int64_t channel,
                      int64_t n)
{
    const el_kernels *k = el_kernels_get();
    float d[CHANNELS];

    k->map(EL_MAP_SUB, d, before, x, n, NULL);
    if (!node->src[MIXES])
        memcpy(el_row_of(node, row, channel), d, (size_t)n * sizeof *d);
    for (int64_t m = 0; m < node->ne[2] && node->src[MIXES + m]; m++) {
        float *y = el_row_of(node, m * node->ne[1] + row, channel);
        k->mul(y, d, (const float *)node->src[MIXES + m]->data + channel, n);
        k->add(y, y, x, n);
    }
}

static void shift_run(const struct ggml_tensor *node, int32_t chunk)
{
    const int64_t channel = chunk % n_parts(node) * CHANNELS, n = EL_MIN(node->ne[0] - channel, (int64_t)CHANNELS);
    const el_run run = el_run_at(node->src[RUNS], (int32_t)(chunk / n_parts(node)));
    const float *before = run.from < 0 ? zeros : el_row_of(node->src[MEMORY], run.from, channel);

    for (int64_t row = run.first_row; row < run.first_row + run.n_rows; row++) {
        const float *x = el_row_of(node->src[X], row, channel);
        shift_row(node, x, before, row, channel, n);
        before = x;
    }
    memcpy(el_row_of(node->src[MEMORY], run.to, channel), before, (size_t)n * sizeof *before);
}

static const el_op shift = {"shift", shift_chunks, shift_run};

struct ggml_tensor *el_op_shift(struct ggml_context *ctx, struct ggml_tensor *x, struct ggml_tensor *memory,
                                struct ggml_tensor *runs, struct ggml_tensor *const *mixes, int n_mixes)
{
    struct ggml_tensor *srcs[MIXES + EL_SHIFT_MAX_MIXES] = {[X] = x, [MEMORY] = memory, [RUNS] = runs};

    GGML_ASSERT(n_mixes >= 0 && n_mixes <= EL_SHIFT_MAX_MIXES && memory->ne[0] == x->ne[0]);
    for (int m = 0; m < n_mixes; m++)
        srcs[MIXES + m] = mixes[m];
    return el_op_new(ctx, &shift, GGML_TYPE_F32, (const int64_t[4]){x->ne[0], x->ne[1], EL_MAX(n_mixes, 1), 1}, srcs,
                     MIXES + n_mixes, NULL, 0);
}
