/* count_kernels.c - products of a matrix with activations, ours or ggml's, between marks that the plugin of
 * cross/icount sees: each product begins and ends with a system call that changes nothing. No test by itself.
 *   count_kernels ISA|ggml|ggml-file N_ROWS K N_X...     a line per product: type, n_x
 * A product is what a model asks for: activations as floats, quantized first, one thread. ggml's is its node, on the
 * buffer of repacked weights where it has one for the type and the processor it was compiled for; ggml-file: on weights
 * as they lie in the file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

#include "kernels/kernels.h"

#include "mem.h"

static const struct {
    const char *name;
    enum ggml_type type; /* GGUF's number */
} types[] = {
    {"Q4_0", GGML_TYPE_Q4_0},   {"Q4_1", GGML_TYPE_Q4_1}, {"Q5_0", GGML_TYPE_Q5_0},     {"Q5_1", GGML_TYPE_Q5_1},
    {"Q8_0", GGML_TYPE_Q8_0},   {"Q2_K", GGML_TYPE_Q2_K}, {"Q3_K", GGML_TYPE_Q3_K},     {"Q4_K", GGML_TYPE_Q4_K},
    {"Q5_K", GGML_TYPE_Q5_K},   {"Q6_K", GGML_TYPE_Q6_K}, {"IQ4_NL", GGML_TYPE_IQ4_NL}, {"IQ4_XS", GGML_TYPE_IQ4_XS},
    {"MXFP4", GGML_TYPE_MXFP4}, {"F16", GGML_TYPE_F16},   {"BF16", GGML_TYPE_BF16},     {"F32", GGML_TYPE_F32}};

static void mark(void) { (void)getppid(); }

static void *aligned(size_t n)
{
    void *p = NULL;

    if (posix_memalign(&p, 64, n) != 0)
        exit(2);
    return p;
}

/* Small values of both signs; every weight's byte is 0x2c, which is a usual number in all formats. */
static float *activations(int64_t n)
{
    float *x = aligned((size_t)n * sizeof *x);

    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(i * 37 % 101 - 50) / 25.0f;
    return x;
}

static void own(const el_kernels *t, int type, int64_t n_rows, int64_t k, int64_t n_x)
{
    const el_act_kind kind = (el_act_kind)el_kernels_act_kind(type);
    const size_t row_bytes = ggml_row_size((enum ggml_type)type, k), x_stride = el_act_row_bytes(kind, k);
    uint8_t *w = aligned(row_bytes * (size_t)n_rows), *acts = aligned(x_stride * (size_t)n_x);
    float *x = activations(k * n_x), *y = aligned((size_t)(n_rows * n_x) * sizeof *y);
    void *scratch = aligned(el_matmul_scratch(type, k) + 64);

    memset(w, 0x2c, row_bytes * (size_t)n_rows);
    mark();
    for (int64_t j = 0; j < n_x; j++)
        t->act_quantize(kind, acts + (size_t)j * x_stride, x + j * k, k);
    t->matmul[type](y, n_rows, w, row_bytes, n_rows, acts, x_stride, n_x, k, scratch);
    mark();
    free(w), free(acts), free(x), free(y), free(scratch);
}

/* A buffer for repacked weights; NULL: none was compiled in. */
static ggml_backend_buffer_type_t repacked(void)
{
    const ggml_backend_reg_t reg = ggml_backend_cpu_reg();
    ggml_backend_dev_get_extra_bufts_t get;
    void *address = ggml_backend_reg_get_proc_address(reg, "ggml_backend_dev_get_extra_bufts");
    ggml_backend_buffer_type_t *found;

    memcpy(&get, &address, sizeof get);
    found = address ? get(ggml_backend_reg_dev_get(reg, 0)) : NULL;
    return found ? found[0] : NULL;
}

static void place(struct ggml_tensor *w, ggml_backend_buffer_type_t kind, const void *data, size_t n)
{
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(kind, n + 64);

    ggml_backend_tensor_alloc(buffer, w, ggml_backend_buffer_get_base(buffer));
    if (kind != ggml_backend_cpu_buffer_type() && !w->extra) { /* the type has no repacked form */
        w->buffer = NULL;
        w->data = NULL;
        ggml_backend_buffer_free(buffer);
        place(w, ggml_backend_cpu_buffer_type(), data, n);
        return;
    }
    ggml_backend_tensor_set(w, data, 0, n);
}

static void ggmls(int type, int64_t n_rows, int64_t k, int64_t n_x, bool repack)
{
    struct ggml_context *weights = ggml_init((struct ggml_init_params){ggml_tensor_overhead(), NULL, true});
    struct ggml_context *rest =
        ggml_init((struct ggml_init_params){(size_t)((k + n_rows) * n_x) * 4 + (1u << 20), NULL, false});
    struct ggml_tensor *w = ggml_new_tensor_2d(weights, (enum ggml_type)type, k, n_rows);
    struct ggml_tensor *x = ggml_new_tensor_2d(rest, GGML_TYPE_F32, k, n_x);
    struct ggml_cgraph *graph = ggml_new_graph(rest);
    ggml_backend_buffer_type_t kind = repack ? repacked() : NULL;
    const size_t n = ggml_nbytes(w);
    uint8_t *data = aligned(n);
    float *values = activations(k * n_x);
    struct ggml_cplan plan;

    memset(data, 0x2c, n);
    place(w, kind ? kind : ggml_backend_cpu_buffer_type(), data, n);
    memcpy(x->data, values, ggml_nbytes(x));
    ggml_build_forward_expand(graph, ggml_mul_mat(rest, w, x));
    plan = ggml_graph_plan(graph, 1, NULL);
    plan.work_data = aligned(plan.work_size + 64);
    mark();
    ggml_graph_compute(graph, &plan);
    mark();
    free(plan.work_data), free(data), free(values);
    ggml_backend_buffer_free(w->buffer);
    ggml_free(weights);
    ggml_free(rest);
}

static void silent(enum ggml_log_level level, const char *text, void *data) { (void)level, (void)text, (void)data; }

int main(int argc, char **argv)
{
    const el_kernels *t = argc > 1 ? el_kernels_named(argv[1]) : NULL;

    if (argc < 5 || (!t && strcmp(argv[1], "ggml") != 0 && strcmp(argv[1], "ggml-file") != 0)) {
        fprintf(stderr, "count_kernels ISA|ggml|ggml-file N_ROWS K N_X...\n");
        return 2;
    }
    ggml_log_set(silent, NULL);
    ggml_cpu_init();
    for (size_t i = 0; i < EL_COUNT(types); i++)
        for (int a = 4; a < argc; a++) {
            const int64_t n_rows = atoll(argv[2]), k = atoll(argv[3]), n_x = atoll(argv[a]);
            if (t)
                own(t, types[i].type, n_rows, k, n_x);
            else
                ggmls(types[i].type, n_rows, k, n_x, strcmp(argv[1], "ggml") == 0);
            printf("%s %lld\n", types[i].name, (long long)n_x);
        }
    return 0;
}
