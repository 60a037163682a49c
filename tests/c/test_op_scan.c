/* test_op_scan.c - convolution and selective scan: equal to their definitions, and the same bits however the positions
 * of a sequence fall into steps. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu_op.h"
#include "mem.h"
#include "op_conv.h"
#include "op_scan.h"

static int failures;
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            failures++;                                                                                                \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
        }                                                                                                              \
    } while (0)

enum { N = 23, MAX_SEQS = 2, MAX_WIDTH = 512 };

static struct ggml_context *ctx;
static uint32_t seed = 1;

static struct ggml_tensor *tensor(int64_t a, int64_t b, float size, float middle)
{
    struct ggml_tensor *t = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, a, b);

    for (int64_t i = 0; i < a * b; i++) {
        seed = seed * 1664525u + 1013904223u;
        ((float *)t->data)[i] = middle + size * ((float)(seed >> 8) / 0x800000 - 1.0f);
    }
    return t;
}

static double at(const struct ggml_tensor *t, int64_t i, int64_t row)
{
    return ((const float *)t->data)[(size_t)row * t->nb[1] / sizeof(float) + (size_t)i];
}

/* ---- steps ---------------------------------------------------------------------------- */

/* A node over the rows first .. first + n - 1 of its inputs, and of the two sequences in this order. */
typedef struct ggml_tensor *make_fn(struct ggml_tensor *runs, int64_t first, int64_t n);

static struct ggml_tensor *rows_of(struct ggml_tensor *t, int64_t first, int64_t n)
{
    return ggml_view_2d(ctx, t, t->ne[0], n, t->nb[1], (size_t)first * t->nb[1]);
}

/* One step over rows first .. : the first `n[0]` belong to sequence 0, the others to 1. */
static void step(make_fn *make, const int32_t n[MAX_SEQS], int32_t slots[MAX_SEQS], bool begins, int64_t first,
                 float *out)
{
    const int n_seqs = n[1] > 0 ? 2 : 1;
    struct ggml_tensor *runs = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, 4, n_seqs), *node;

    for (int s = 0; s < n_seqs; s++) {
        const int32_t run[4] = {s ? n[0] : 0, n[s], begins ? -1 : slots[s], slots[s] ^ 1};
        memcpy((int32_t *)runs->data + 4 * s, run, sizeof run);
        slots[s] ^= 1;
    }
    node = make(runs, first, n[0] + n[1]);
    node->data = malloc(ggml_nbytes(node));
    for (int32_t c = el_op_of(node)->n_chunks(node) - 1; c >= 0; c--)
        el_op_of(node)->run(node, c);
    memcpy(out, node->data, ggml_nbytes(node));
    free(node->data);
}

/* All rows as one sequence: at once, then in pieces, then the first and the last rows as two sequences. */
static void check(make_fn *make, const double *expected, int64_t width)
{
    static const int32_t pieces[] = {1, 2, 7, 1, 12};
    static float whole[N * MAX_WIDTH], other[N * MAX_WIDTH];
    int32_t slots[MAX_SEQS] = {0, 2}, first = 0;

    step(make, (const int32_t[]){N, 0}, slots, true, 0, whole);
    for (int64_t i = 0; i < N * width; i++)
        CHECK(fabs((double)whole[i] - expected[i]) < 2e-5 * (1 + fabs(expected[i])));
    for (size_t i = 0; i < EL_COUNT(pieces); first += pieces[i++])
        step(make, (const int32_t[]){pieces[i], 0}, slots, i == 0, first, other + first * width);
    CHECK(memcmp(whole, other, N * (size_t)width * sizeof *whole) == 0);
    step(make, (const int32_t[]){9, 14}, slots, true, 0, other);
    CHECK(memcmp(whole, other, 9 * (size_t)width * sizeof *whole) == 0);
    step(make, (const int32_t[]){14, 0}, slots, false, 9, other + 9 * width);
    CHECK(memcmp(whole, other, N * (size_t)width * sizeof *whole) == 0);
}

/* ---- convolution ---------------------------------------------------------------------- */

enum { TAPS = 4, WIDTH = 200 };

static struct ggml_tensor *x, *weight, *bias, *memory;

static struct ggml_tensor *make_conv(struct ggml_tensor *runs, int64_t first, int64_t n)
{
    return el_op_conv(ctx, rows_of(x, first, n), weight, bias, memory, runs, bias != NULL);
}

static void test_conv(bool biased)
{
    static double y[N * WIDTH];

    x = ggml_view_2d(ctx, tensor(WIDTH + 30, N, 1, 0), WIDTH, N, (WIDTH + 30) * sizeof(float), 12 * sizeof(float));
    weight = tensor(TAPS, WIDTH, 1, 0);
    bias = biased ? tensor(WIDTH, 1, 1, 0) : NULL;
    memory = tensor((TAPS - 1) * WIDTH, 4, 9, 0); /* what others left there */
    for (int64_t t = 0; t < N; t++)
        for (int64_t c = 0; c < WIDTH; c++) {
            double sum = biased ? at(bias, c, 0) : 0;
            for (int64_t k = 0; k < TAPS; k++)
                if (t - (TAPS - 1) + k >= 0)
                    sum += at(weight, k, c) * at(x, c, t - (TAPS - 1) + k);
            y[t * WIDTH + c] = biased ? sum / (1 + exp(-sum)) : sum;
        }
    check(make_conv, y, WIDTH);
}

/* ---- scan ----------------------------------------------------------------------------- */

static el_scan scan;

static struct ggml_tensor *make_scan(struct ggml_tensor *runs, int64_t first, int64_t n)
{
    el_scan s = scan;

    s.x = rows_of(s.x, first, n);
    s.dt = rows_of(s.dt, first, n);
    s.b = rows_of(s.b, first, n);
    s.c = rows_of(s.c, first, n);
    s.runs = runs;
    return el_op_scan(ctx, &s);
}

static void test_scan(int64_t n_head, int64_t head, int64_t d_state, int64_t n_group, bool by_element)
{
    static double y[N * MAX_WIDTH], state[64 * MAX_WIDTH];
    const int64_t width = n_head * head;

    scan = (el_scan){.x = tensor(width, N, 1, 0),
                     .dt = tensor(n_head, N, 1, -1),
                     .dt_bias = tensor(n_head, 1, 1, 0),
                     .a = tensor(by_element ? d_state : 1, n_head, 0.9f, -1),
                     .b = tensor(d_state * n_group, N, 1, 0),
                     .c = tensor(d_state * n_group, N, 1, 0),
                     .d = tensor(n_head, 1, 1, 0),
                     .memory = tensor(d_state * width, 4, 9, 0)};
    memset(state, 0, sizeof state);
    for (int64_t t = 0; t < N; t++)
        for (int64_t i = 0; i < width; i++) {
            const int64_t h = i / head, g = h / (n_head / n_group);
            const double dt = log1p(exp(at(scan.dt, h, t) + at(scan.dt_bias, h, 0)));
            double sum = at(scan.d, h, 0) * at(scan.x, i, t);
            for (int64_t k = 0; k < d_state; k++) {
                double *s = &state[i * d_state + k];
                *s = *s * exp(dt * at(scan.a, by_element ? k : 0, h)) +
                     dt * at(scan.x, i, t) * at(scan.b, g * d_state + k, t);
                sum += *s * at(scan.c, g * d_state + k, t);
            }
            y[t * width + i] = sum;
        }
    check(make_scan, y, width);
}

int main(void)
{
    ctx = ggml_init((struct ggml_init_params){(size_t)64 << 20, NULL, false});
    test_conv(true);
    test_conv(false);
    test_scan(8, 24, 32, 2, false);
    test_scan(4, 16, 20, 1, false);
    test_scan(150, 1, 16, 1, true);
    test_scan(70, 1, 5, 1, true);
    ggml_free(ctx);
    return failures != 0;
}
