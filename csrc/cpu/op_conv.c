/* op_conv.c - short causal convolution, in parts of CHANNELS channels of one sequence. */
#include "op_conv.h"

#include <string.h>

#include "cpu_op.h"
#include "kernels.h"
#include "mem.h"
#include "op_runs.h"

enum { CHANNELS = 128, BIAS = 1, SILU = 2 };
enum { X, WEIGHT, MEMORY, RUNS, BIASES }; /* sources */

static const float zeros[CHANNELS];

static int64_t n_parts(const struct ggml_tensor *node) { return (node->ne[0] + CHANNELS - 1) / CHANNELS; }

static int32_t conv_chunks(const struct ggml_tensor *node) { return (int32_t)(n_parts(node) * node->src[RUNS]->ne[1]); }

/* The inputs of position t of the run, those before it from memory. */
static const float *inputs_at(const struct ggml_tensor *node, el_run run, int64_t t, int64_t channel)
{
    const int64_t kept = node->src[WEIGHT]->ne[0] - 1;

    if (t >= 0)
        return el_row_of(node->src[X], run.first_row + t, channel);
    return run.from < 0 ? zeros : el_row_of(node->src[MEMORY], run.from, (kept + t) * node->ne[0] + channel);
}

static void conv_run(const struct ggml_tensor *node, int32_t chunk)
{
    const int64_t channel = chunk % n_parts(node) * CHANNELS, n = EL_MIN(node->ne[0] - channel, (int64_t)CHANNELS);
    const int64_t taps = node->src[WEIGHT]->ne[0];
    const el_run run = el_run_at(node->src[RUNS], (int32_t)(chunk / n_parts(node)));
    const float *weight = (const float *)node->src[WEIGHT]->data + channel * taps;
    int32_t flags;
    float by_tap[EL_CONV_MAX_TAPS][CHANNELS];

    memcpy(&flags, el_op_params(node), sizeof flags);
    for (int64_t c = 0; c < n; c++)
        for (int64_t k = 0; k < taps; k++)
            by_tap[k][c] = weight[c * taps + k];
    for (int64_t t = 0; t < run.n_rows; t++) {
        float sum[CHANNELS] = {0};
        float *y = el_row_of(node, run.first_row + t, channel);
        for (int64_t k = 0; k < taps; k++) {
            const float *x = inputs_at(node, run, t - (taps - 1) + k, channel);
            for (int64_t c = 0; c < n; c++)
                sum[c] += x[c] * by_tap[k][c];
        }
        if (flags & BIAS)
            el_kernels_get()->add(sum, sum, (const float *)node->src[BIASES]->data + channel, n);
        if (flags & SILU)
            el_kernels_get()->map(EL_MAP_SILU, y, sum, NULL, n, NULL);
        else
            memcpy(y, sum, (size_t)n * sizeof *y);
    }
    for (int64_t k = 0; k < taps - 1; k++)
        memcpy(el_row_of(node->src[MEMORY], run.to, k * node->ne[0] + channel),
               inputs_at(node, run, run.n_rows - (taps - 1) + k, channel), (size_t)n * sizeof(float));
}

static const el_op conv = {"conv", conv_chunks, conv_run};

struct ggml_tensor *el_op_conv(struct ggml_context *ctx, struct ggml_tensor *x, struct ggml_tensor *weight,
                               struct ggml_tensor *bias, struct ggml_tensor *memory, struct ggml_tensor *runs,
                               bool silu)
{
    const int32_t flags = (bias ? BIAS : 0) | (silu ? SILU : 0);
    struct ggml_tensor *srcs[] = {x, weight, memory, runs, bias};

    GGML_ASSERT(weight->ne[0] >= 2 && weight->ne[0] <= EL_CONV_MAX_TAPS && weight->ne[1] == x->ne[0]);
    GGML_ASSERT(x->nb[0] == sizeof(float) && memory->ne[0] == (weight->ne[0] - 1) * x->ne[0]);
    return el_op_new(ctx, &conv, GGML_TYPE_F32, (const int64_t[4]){x->ne[0], x->ne[1], 1, 1}, srcs, bias ? 5 : 4,
                     &flags, sizeof flags);
}
