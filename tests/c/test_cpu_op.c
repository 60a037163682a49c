/* test_cpu_op.c - operations of our own in a plan and in ggml's backend: parts, parameters, sources that are views or
 * not computed yet, and states that change in place. */
#include "plan_harness.h"

/* ---- a scan: per channel, state = decay * state + x[row], y[row] = state ------------------- */

enum { WIDTH = 48, PER_CHUNK = 16 };

static int32_t scan_chunks(const struct ggml_tensor *node) { return (int32_t)(node->ne[0] / PER_CHUNK); }

static void scan_run(const struct ggml_tensor *node, int32_t chunk)
{
    const struct ggml_tensor *x = node->src[0];
    float *kept = node->src[1]->data, decay;

    memcpy(&decay, el_op_params(node), sizeof decay);
    for (int64_t r = 0; r < node->ne[1]; r++)
        for (int64_t i = chunk * PER_CHUNK; i < (chunk + 1) * PER_CHUNK; i++) {
            const char *from = (const char *)x->data + (size_t)i * x->nb[0] + (size_t)r * x->nb[1];
            kept[i] = decay * kept[i] + *(const float *)(const void *)from;
            ((float *)node->data)[r * node->ne[0] + i] = kept[i];
        }
}

static const el_op scan = {"scan", scan_chunks, scan_run};

static struct ggml_tensor *scanned(graph *g, struct ggml_tensor *x, struct ggml_tensor *kept)
{
    const float decay = 0.75f;

    return el_op_new(g->ctx, &scan, GGML_TYPE_F32, (const int64_t[4]){WIDTH, g->rows, 1, 1},
                     (struct ggml_tensor *[]){x, kept}, 2, &decay, sizeof decay);
}

/* A product's result in, a product's input out. */
static struct ggml_tensor *between_products(graph *g)
{
    struct ggml_tensor *x = ggml_mul_mat(g->ctx, weight(g, GGML_TYPE_F32, 64, WIDTH, 1), input(g, 64, g->rows, 1));

    return ggml_mul_mat(g->ctx, weight(g, GGML_TYPE_F32, WIDTH, 40, 1), scanned(g, x, state(g, WIDTH, 1)));
}

/* A pending row program as its source, and as what follows it. */
static struct ggml_tensor *between_norms(graph *g)
{
    struct ggml_tensor *x = ggml_rms_norm(g->ctx, input(g, WIDTH, g->rows, 1), 1e-6f);

    x = scanned(g, ggml_mul(g->ctx, x, weight(g, GGML_TYPE_F32, WIDTH, 1, 1)), state(g, WIDTH, 1));
    return ggml_mul(g->ctx, ggml_rms_norm(g->ctx, x, 1e-6f), weight(g, GGML_TYPE_F32, WIDTH, 1, 1));
}

/* Two views of one product as sources. */
static struct ggml_tensor *of_views(graph *g)
{
    struct ggml_tensor *x = ggml_mul_mat(g->ctx, weight(g, GGML_TYPE_F32, 64, 2 * WIDTH, 1), input(g, 64, g->rows, 1));
    struct ggml_tensor *a = ggml_view_2d(g->ctx, x, WIDTH, g->rows, x->nb[1], 0);
    struct ggml_tensor *b = ggml_view_2d(g->ctx, x, WIDTH, g->rows, x->nb[1], WIDTH * sizeof(float));

    return ggml_add(g->ctx, scanned(g, a, state(g, WIDTH, 1)), scanned(g, b, state(g, WIDTH, 1)));
}

/* What is read of a state before the operation in the graph is the state before it, wherever that is computed. */
static struct ggml_tensor *state_before(graph *g)
{
    struct ggml_tensor *kept = state(g, WIDTH, 1), *zero = ids(g, 1, 1, 1);
    struct ggml_tensor *before = ggml_get_rows(g->ctx, kept, zero), *after;

    ggml_build_forward_expand(g->nodes, before);
    after = scanned(g, input(g, WIDTH, g->rows, 1), kept);
    ggml_build_forward_expand(g->nodes, after);
    return ggml_add(g->ctx, ggml_get_rows(g->ctx, after, zero), before);
}

static const plan_case cases[] = {
    {.name = "between products", .build = between_products, .n_regions = 3},
    {.name = "between norms", .build = between_norms, .n_regions = 3},
    {.name = "of views", .build = of_views, .n_regions = 4},
    {.name = "state before", .build = state_before, .n_regions = 3},
};

int main(int argc, char **argv)
{
    struct ggml_context *ctx = ggml_init((struct ggml_init_params){1 << 16, NULL, true});
    struct ggml_tensor *x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, WIDTH, 1);
    const int64_t params[5] = {1, 2, 3, 4, 5}, ne[4] = {WIDTH, 1, 1, 1};
    struct ggml_tensor *node = el_op_new(ctx, &scan, GGML_TYPE_F32, ne, &x, 1, params, sizeof params);

    CHECK(memcmp(el_op_params(node), params, EL_OP_PARAM_BYTES) == 0);
    CHECK(el_op_of(node) == &scan && !el_op_of(x));
    ggml_free(ctx);
    return run_cases(cases, EL_COUNT(cases), argc, argv);
}
