/* plan_harness.h - small graphs, computed by our plan and by ggml's backend. A case builds a graph whose last dimension
 * is the rows of a step. Its result must agree with ggml's but for rounding, and be the same to the last bit with any
 * number of threads and rows, on every instruction set, and when a plan runs again. SHOW=1 prints how many regions. */
#ifndef PLAN_HARNESS_H
#define PLAN_HARNESS_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu_internal.h"
#include "error.h"
#include "ggml.h"

enum { MAX_LEAVES = 64, MAX_CASE_ROWS = 17, MAX_NODES = 512 };

static int failures;
static const char *case_name = "";
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            if (failures++ < 40)                                                                                       \
                fprintf(stderr, "%s:%d: [%s] %s\n", __FILE__, __LINE__, case_name, #condition);                        \
        }                                                                                                              \
    } while (0)

typedef struct leaf {
    struct ggml_tensor *t;
    float size, middle; /* values are middle +- size */
    int32_t below;      /* integers: 0 .. below - 1; 0: floats */
    bool state;         /* changed by the graph, and compared */
    void (*fill)(struct ggml_tensor *t);
} leaf;

typedef struct graph {
    struct ggml_context *ctx;
    struct ggml_cgraph *nodes;
    int64_t rows;
    leaf leaves[MAX_LEAVES];
    int n_leaves;
    struct ggml_tensor *out;
    void *memory[MAX_LEAVES];
    int n_memory;
} graph;

/* ---- leaves --------------------------------------------------------------------------- */

static float noise(uint32_t which, uint32_t i)
{
    uint32_t x = which * 0x9E3779B9u + i * 0x85EBCA6Bu + 0x1234567u;

    x = (x ^ (x >> 15)) * 0x2C1B3C6Du;
    x = (x ^ (x >> 12)) * 0x297A2D39u;
    x ^= x >> 15;
    return (float)(x >> 8) / 0x800000 - 1.0f;
}

static struct ggml_tensor *leaf_new(graph *g, enum ggml_type type, const int64_t ne[4], leaf l)
{
    l.t = ggml_new_tensor(g->ctx, type, 4, ne);
    g->leaves[g->n_leaves++] = l;
    return l.t;
}

static void leaf_fill(const leaf *l, uint32_t which)
{
    const int64_t n = ggml_nelements(l->t);
    float *x = malloc((size_t)n * sizeof *x);

    if (l->fill) {
        l->fill(l->t);
        free(x);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        x[i] = l->middle + l->size * noise(which, (uint32_t)i);
    if (l->t->type == GGML_TYPE_F32)
        memcpy(l->t->data, x, (size_t)n * sizeof *x);
    else if (l->t->type == GGML_TYPE_I32)
        for (int64_t i = 0; i < n; i++)
            ((int32_t *)l->t->data)[i] = (int32_t)((noise(which, (uint32_t)i) + 1) / 2 * (float)l->below * 0.999f);
    else if (l->t->type == GGML_TYPE_I64)
        for (int64_t i = 0; i < n; i++)
            ((int64_t *)l->t->data)[i] = i;
    else
        ggml_quantize_chunk(l->t->type, x, l->t->data, 0, n / l->t->ne[0], l->t->ne[0], NULL);
    free(x);
}

/* With its data from the beginning, as weights and recurrent states have. */
static inline struct ggml_tensor *weight(graph *g, enum ggml_type type, int64_t a, int64_t b, int64_t c)
{
    struct ggml_tensor *t = leaf_new(g, type, (const int64_t[4]){a, b, c, 1}, (leaf){.size = 0.5f, .middle = 0.1f});

    t->data = g->memory[g->n_memory++] = aligned_alloc(64, (ggml_nbytes(t) + 64) / 64 * 64 + 64);
    leaf_fill(&g->leaves[g->n_leaves - 1], (uint32_t)g->n_leaves);
    return t;
}

static inline struct ggml_tensor *state(graph *g, int64_t a, int64_t b)
{
    struct ggml_tensor *t = weight(g, GGML_TYPE_F32, a, b, 1);

    g->leaves[g->n_leaves - 1].state = true;
    return t;
}

static struct ggml_tensor *as_input(struct ggml_tensor *t)
{
    ggml_set_input(t);
    ggml_set_output(t); /* as csrc/models: kept to the end */
    return t;
}

/* Filled before each run; placed by the plan. */
static inline struct ggml_tensor *input(graph *g, int64_t a, int64_t b, int64_t c)
{
    return as_input(leaf_new(g, GGML_TYPE_F32, (const int64_t[4]){a, b, c, 1}, (leaf){.size = 1.5f, .middle = 0.05f}));
}

static inline struct ggml_tensor *ids(graph *g, int64_t a, int64_t b, int32_t below)
{
    return as_input(leaf_new(g, GGML_TYPE_I32, (const int64_t[4]){a, b, 1, 1}, (leaf){.below = below}));
}

static inline struct ggml_tensor *filled(graph *g, enum ggml_type type, int64_t a, int64_t b,
                                         void (*fill)(struct ggml_tensor *))
{
    return as_input(leaf_new(g, type, (const int64_t[4]){a, b, 1, 1}, (leaf){.fill = fill}));
}

/* ---- running -------------------------------------------------------------------------- */

typedef struct plan_case {
    const char *name;
    struct ggml_tensor *(*build)(graph *g); /* the result */
    double tolerance;                       /* of the normalised mean square error; 0: 1e-10 */
    int32_t n_regions;                      /* with one row, at most; 0: any number */
    int32_t n_fallback;                     /* nodes that are left to ggml */
    bool rows_depend;                       /* a row's result depends on how many there are: not compared */
} plan_case;

static const el_ggml_cpu *ggml;

static graph graph_new(const plan_case *c, int64_t rows)
{
    graph g = {.rows = rows};

    g.ctx = ggml_init((struct ggml_init_params){(size_t)8 << 20, NULL, true});
    g.nodes = ggml_new_graph_custom(g.ctx, MAX_NODES, false);
    g.out = c->build(&g);
    ggml_set_output(g.out);
    ggml_build_forward_expand(g.nodes, g.out);
    return g;
}

static void graph_free(graph *g)
{
    for (int i = 0; i < g->n_memory; i++)
        free(g->memory[i]);
    ggml_free(g->ctx);
}

static void fill_inputs(graph *g)
{
    for (int i = 0; i < g->n_leaves; i++)
        if (g->leaves[i].t->data) /* an input that nothing reads has none */
            leaf_fill(&g->leaves[i], (uint32_t)i + 1);
}

typedef struct result {
    float *values;
    int64_t n_out, n; /* floats of the result, and with the states behind it */
} result;

static result take(graph *g)
{
    result r = {.n_out = ggml_nelements(g->out)};
    const int64_t width = g->out->ne[0];

    r.n = r.n_out;
    for (int i = 0; i < g->n_leaves; i++)
        r.n += g->leaves[i].state ? ggml_nelements(g->leaves[i].t) : 0;
    r.values = malloc((size_t)r.n * sizeof *r.values);
    r.n = 0;
    CHECK(g->out->data);
    for (int64_t i = 0; i < r.n_out / width && g->out->data; i++) {
        const int64_t i1 = i % g->out->ne[1], i2 = i / g->out->ne[1] % g->out->ne[2],
                      i3 = i / g->out->ne[1] / g->out->ne[2];
        const char *row = (const char *)g->out->data + (size_t)i1 * g->out->nb[1] + (size_t)i2 * g->out->nb[2] +
                          (size_t)i3 * g->out->nb[3];
        for (int64_t k = 0; k < width; k++)
            r.values[r.n++] = g->out->type == GGML_TYPE_I32
                                  ? (float)((const int32_t *)(const void *)row)[k]
                                  : *(const float *)(const void *)(row + (size_t)k * g->out->nb[0]);
    }
    for (int i = 0; i < g->n_leaves; i++)
        if (g->leaves[i].state) {
            memcpy(r.values + r.n, g->leaves[i].t->data, ggml_nbytes(g->leaves[i].t));
            r.n += ggml_nelements(g->leaves[i].t);
        }
    return r;
}

static result by_ggml(const plan_case *c, int64_t rows)
{
    graph g = graph_new(c, rows);
    el_stock *stock = NULL;
    result r = {NULL, 0, 0};

    if (el_stock_new(&stock, g.nodes, ggml, 2, NULL) != EDGELLM_OK) {
        fprintf(stderr, "%s\n", el_error_text());
        exit(1);
    }
    fill_inputs(&g);
    el_stock_begin(stock);
    CHECK(el_stock_run(stock, 0, NULL) == EDGELLM_OK);
    r = take(&g);
    el_stock_free(stock);
    graph_free(&g);
    return r;
}

static bool same_bits(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0 && (a[i] == a[i] || b[i] == b[i])) {
            fprintf(stderr, "    [%s] at %lld of %lld: %.9g, expected %.9g\n", case_name, (long long)i, (long long)n,
                    (double)a[i], (double)b[i]);
            return false;
        }
    return true;
}

/* Runs twice. isa NULL: this CPU's best. */
static result by_us(const plan_case *c, int64_t rows, int32_t n_threads, const char *isa)
{
    graph g = graph_new(c, rows);
    el_cpu_plan *plan = NULL;
    el_cpu_arena *shared = NULL;
    result first = {NULL, 0, 0}, r = {NULL, 0, 0};

    if (el_cpu_plan_new(&plan, g.nodes, ggml, n_threads, &shared) != EDGELLM_OK) {
        fprintf(stderr, "[%s] %s\n", c->name, el_error_text());
        exit(1);
    }
    if (isa)
        plan->kernels = el_kernels_named(isa);
    CHECK(plan->n_fallback == c->n_fallback);
    if (getenv("SHOW") && rows == 1 && n_threads == 1)
        printf("%s: %d\n", c->name, plan->n_regions);
    if (rows == 1 && n_threads == 1 && c->n_regions) {
        if (plan->n_regions > c->n_regions)
            fprintf(stderr, "    [%s] %d regions\n", c->name, plan->n_regions);
        CHECK(plan->n_regions <= c->n_regions);
    }
    for (int i = 0; i < 2; i++) {
        el_cpu_plan_begin(plan);
        fill_inputs(&g);
        CHECK(el_cpu_plan_run(plan, 0, NULL) == EDGELLM_OK);
        el_workers_quiesce();
        if (i == 0)
            first = take(&g);
        else
            r = take(&g);
    }
    CHECK(same_bits(r.values, first.values, r.n));
    free(first.values);
    el_cpu_plan_free(plan);
    graph_free(&g);
    return r;
}

static double nmse(const float *a, const float *b, int64_t n)
{
    double error = 0, size = 1e-30;

    for (int64_t i = 0; i < n; i++) {
        error += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return error / size;
}

static void run_case(const plan_case *c)
{
    static const int64_t counts[] = {MAX_CASE_ROWS, 1, 3};
    const double tolerance = c->tolerance > 0 ? c->tolerance : 1e-10;
    result all = {NULL, 0, 0};

    case_name = c->name;
    for (size_t i = 0; i < EL_COUNT(counts); i++) {
        const result theirs = by_ggml(c, counts[i]), ours = by_us(c, counts[i], 1, NULL);
        const double error = nmse(ours.values, theirs.values, ours.n);
        if (!(error <= tolerance))
            fprintf(stderr, "    [%s] %d rows: error %.3g\n", c->name, (int)counts[i], error);
        CHECK(error <= tolerance);
        for (int32_t n_threads = 2; n_threads <= 3; n_threads++) {
            result again = by_us(c, counts[i], n_threads, NULL);
            CHECK(same_bits(again.values, ours.values, ours.n));
            free(again.values);
        }
        for (size_t k = 0; el_kernels_isa(k); k++) {
            result other;
            if (!el_kernels_named(el_kernels_isa(k)))
                continue;
            other = by_us(c, counts[i], 2, el_kernels_isa(k));
            if (!same_bits(other.values, ours.values, ours.n)) {
                fprintf(stderr, "    [%s] instruction set %s\n", c->name, el_kernels_isa(k));
                CHECK(!"the same bits");
            }
            free(other.values);
        }
        if (i > 0 && !c->rows_depend)
            CHECK(same_bits(ours.values, all.values, ours.n_out));
        free(theirs.values);
        if (i == 0)
            all = ours;
        else
            free(ours.values);
    }
    free(all.values);
}

static int run_cases(const plan_case *cases, size_t n, int argc, char **argv)
{
    if (el_ggml_cpu_get(&ggml) != EDGELLM_OK) {
        fprintf(stderr, "%s\n", el_error_text());
        return 1;
    }
    for (size_t i = 0; i < n; i++)
        if (argc < 2 || strcmp(argv[1], cases[i].name) == 0)
            run_case(&cases[i]);
    return failures != 0;
}

#endif
