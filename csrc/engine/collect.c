/* collect.c - adds up the squares of products' inputs, in double, on the calling thread. */
#include "collect.h"

#include "error.h"
#include "ggml.h"
#include "mem.h"

typedef struct entry {
    const struct ggml_tensor *weights;
    double *sums;  /* [n_matrices, n_in] */
    int64_t *rows; /* [n_matrices] */
} entry;

struct el_collector {
    el_watch watch;
    entry *entries;
    size_t n, cap;
};

static int64_t n_matrices(const struct ggml_tensor *weights) { return weights->ne[2] * weights->ne[3]; }

static edgellm_status find(el_collector *c, const struct ggml_tensor *weights, entry **out)
{
    entry *e;

    for (size_t i = 0; i < c->n; i++) {
        if (c->entries[i].weights == weights) {
            *out = &c->entries[i];
            return EDGELLM_OK;
        }
    }
    if (c->n == c->cap)
        return el_fail(EDGELLM_EINVAL, "more products than the file has tensors: %zu", c->cap);
    e = &c->entries[c->n];
    e->sums = el_alloc((size_t)(n_matrices(weights) * weights->ne[0]), sizeof *e->sums);
    e->rows = el_alloc((size_t)n_matrices(weights), sizeof *e->rows);
    if (!e->sums || !e->rows) {
        el_free(e->sums);
        el_free(e->rows);
        *e = (entry){NULL, NULL, NULL};
        return el_no_memory((size_t)(n_matrices(weights) * weights->ne[0]) * sizeof *e->sums);
    }
    e->weights = weights;
    c->n++;
    *out = e;
    return EDGELLM_OK;
}

static void add_row(entry *e, int64_t matrix, const void *row)
{
    const int64_t n_in = e->weights->ne[0];
    double *sums = e->sums + matrix * n_in;
    const float *x = row;

    for (int64_t i = 0; i < n_in; i++)
        sums[i] += (double)x[i] * (double)x[i];
    e->rows[matrix]++;
}

/* x [n_in, rows, a, b] times w [n_in, n_out, c, d], where a and b are multiples of c and d. */
static void add_product(entry *e, const struct ggml_tensor *x)
{
    const struct ggml_tensor *w = e->weights;

    for (int64_t i3 = 0; i3 < x->ne[3]; i3++)
        for (int64_t i2 = 0; i2 < x->ne[2]; i2++)
            for (int64_t i1 = 0; i1 < x->ne[1]; i1++)
                add_row(e, i3 / (x->ne[3] / w->ne[3]) * w->ne[2] + i2 / (x->ne[2] / w->ne[2]),
                        (const char *)x->data + i1 * (int64_t)x->nb[1] + i2 * (int64_t)x->nb[2] +
                            i3 * (int64_t)x->nb[3]);
}

/* x [n_in, 1 or n_used, rows], ids [n_used, rows]: the experts of each row. */
static void add_experts(entry *e, const struct ggml_tensor *x, const struct ggml_tensor *ids)
{
    for (int64_t row = 0; row < ids->ne[1]; row++) {
        for (int64_t i = 0; i < ids->ne[0]; i++) {
            const int32_t expert =
                *(const int32_t *)(const void *)((const char *)ids->data + row * (int64_t)ids->nb[1] +
                                                 i * (int64_t)ids->nb[0]);
            if (expert >= 0 && expert < e->weights->ne[2])
                add_row(e, expert, (const char *)x->data + i % x->ne[1] * (int64_t)x->nb[1] + row * (int64_t)x->nb[2]);
        }
    }
}

static edgellm_status seen(void *data, const struct ggml_tensor *product)
{
    entry *e = NULL;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(find(data, product->src[0], &e));
    if (product->op == GGML_OP_MUL_MAT_ID)
        add_experts(e, product->src[1], product->src[2]);
    else
        add_product(e, product->src[1]);
done:
    return status;
}

edgellm_status el_collector_new(el_collector **out, size_t n_tensors)
{
    el_collector *c = el_alloc(1, sizeof *c);

    *out = NULL;
    if (!c)
        return el_no_memory(sizeof *c);
    c->watch = (el_watch){.seen = seen, .data = c};
    c->cap = n_tensors;
    c->entries = el_alloc(n_tensors, sizeof *c->entries);
    if (!c->entries) {
        el_free(c);
        return el_no_memory(n_tensors * sizeof(entry));
    }
    *out = c;
    return EDGELLM_OK;
}

void el_collector_free(el_collector *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n; i++) {
        el_free(c->entries[i].sums);
        el_free(c->entries[i].rows);
    }
    el_free(c->entries);
    el_free(c);
}

const el_watch *el_collector_watch(const el_collector *c) { return &c->watch; }

edgellm_status el_collector_get(const el_collector *c, int32_t i, edgellm_activations *out)
{
    const uint32_t size = out->struct_size;

    if (i < 0)
        return el_fail(EDGELLM_EINVAL, "entry %d; the first is 0", i);
    *out = (edgellm_activations){.struct_size = size};
    if ((size_t)i < c->n) {
        const entry *e = &c->entries[i];
        out->name = ggml_get_name(e->weights);
        out->n_in = (int32_t)e->weights->ne[0];
        out->n_matrices = (int32_t)n_matrices(e->weights);
        out->sums = e->sums;
        out->rows = e->rows;
    }
    return EDGELLM_OK;
}
