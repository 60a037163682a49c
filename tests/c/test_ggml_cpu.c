/* test_ggml_cpu.c - the backend that this CPU gets is the right one, and computes.
 * `test_ggml_cpu NAME` also demands that instruction set; run it with EDGELLM_CPU_DISABLE or under an emulator. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "error.h"
#include "ggml_cpu.h"

enum { K = 256, ROWS = 37, COLS = 5 };

static int failures;
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

static float value(int i) { return (float)((i * 37 + 11) % 251) / 125.0f - 1.0f; }

/* Largest difference between ggml's product of a matrix of the given type and the same in double precision. */
static double product_error(const el_ggml_cpu *cpu, enum ggml_type type)
{
    static float w[ROWS * K], dequantized[ROWS * K], x[COLS * K];
    struct ggml_init_params params = {(size_t)4 << 20, NULL, false};
    struct ggml_context *ctx = ggml_init(params);
    struct ggml_tensor *a = ggml_new_tensor_2d(ctx, type, K, ROWS),
                       *b = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, K, COLS);
    struct ggml_tensor *y = ggml_mul_mat(ctx, a, b);
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    struct ggml_threadpool_params pool_params;
    struct ggml_threadpool *pool;
    struct ggml_cplan plan;
    double worst = 0;

    for (int i = 0; i < ROWS * K; i++)
        w[i] = value(i);
    for (int i = 0; i < COLS * K; i++)
        x[i] = value(3 * i + 1);
    memcpy(b->data, x, sizeof x);
    if (type == GGML_TYPE_F32) {
        memcpy(a->data, w, sizeof w);
        memcpy(dequantized, w, sizeof w);
    } else {
        ggml_quantize_chunk(type, w, a->data, 0, ROWS, K, NULL);
        ggml_get_type_traits(type)->to_float(a->data, dequantized, ROWS * K);
    }
    ggml_build_forward_expand(graph, y);
    cpu->threadpool_params_init(&pool_params, 2);
    pool = cpu->threadpool_new(&pool_params);
    CHECK(pool);
    plan = cpu->graph_plan(graph, 2, pool);
    plan.work_data = malloc(plan.work_size + 1);
    CHECK(cpu->graph_compute(graph, &plan) == GGML_STATUS_SUCCESS);
    for (int c = 0; c < COLS; c++)
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int k = 0; k < K; k++)
                sum += (double)dequantized[r * K + k] * (double)x[c * K + k];
            worst = fmax(worst, fabs(sum - (double)((const float *)y->data)[c * ROWS + r]));
        }
    free(plan.work_data);
    cpu->threadpool_free(pool);
    ggml_free(ctx);
    return worst;
}

int main(int argc, char **argv)
{
    const enum ggml_type types[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_Q8_0,
                                    GGML_TYPE_Q4_1, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K};
    const el_ggml_cpu *cpu = NULL, *again = NULL;
    float f = 1.5f, back = 0;
    ggml_fp16_t half = 0;

    if (el_ggml_cpu_get(&cpu) != EDGELLM_OK) {
        fprintf(stderr, "%s\n", el_error_text());
        return 1;
    }
    CHECK(el_ggml_cpu_get(&again) == EDGELLM_OK && again == cpu);
    printf("ggml %s, instruction set %s\n", cpu->ggml_version, cpu->isa);
    if (argc > 1)
        CHECK(strcmp(cpu->isa, argv[1]) == 0);
    cpu->fp32_to_fp16(&f, &half, 1);
    cpu->fp16_to_fp32(&half, &back, 1);
    CHECK(half == 0x3e00 && back == 1.5f);
    CHECK(cpu->type_traits(GGML_TYPE_Q4_K)->vec_dot != NULL);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        /* x is rounded to 8 bits for the quantized types: 256 products of at most 1 with steps of 1/127. */
        const double limit = types[i] == GGML_TYPE_F32 ? 1e-4 : types[i] == GGML_TYPE_F16 ? 0.02 : 0.3;
        const double error = product_error(cpu, types[i]);
        printf("%-5s error %.2g\n", ggml_type_name(types[i]), error);
        CHECK(error < limit);
    }
    return failures != 0;
}
