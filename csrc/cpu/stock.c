/* stock.c - runs a graph in slices of nodes on ggml's backend, so that the caller gets its thread back in time. */
#include "stock.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-impl.h" /* ggml_graph_view: a slice of a graph */
#include "mem.h"

/* Multiplications in one slice: about 10 ms on two slow cores. */
#define SLICE_WORK 1.0e8

struct el_stock {
    struct ggml_cgraph *graph;
    const el_ggml_cpu *ggml;
    int32_t n_threads;
    const el_watch *watch;
    ggml_gallocr_t arena;
    int32_t *ends; /* node after each slice */
    int32_t n_slices, next;
    void *work;
    size_t work_bytes;
};

/* ggml's threads, shared by all models of the process; one run at a time. */
static struct {
    pthread_mutex_t turn;
    struct ggml_threadpool *threads;
    int32_t n_threads;
    _Atomic int32_t process; /* that has the threads; 0: none */
} pool = {.turn = PTHREAD_MUTEX_INITIALIZER};

static double work_of(const struct ggml_tensor *t)
{
    if (t->op == GGML_OP_MUL_MAT || t->op == GGML_OP_MUL_MAT_ID)
        return (double)t->src[0]->ne[0] * (double)ggml_nelements(t);
    if (t->op == GGML_OP_FLASH_ATTN_EXT)
        return 2.0 * (double)t->src[1]->ne[1] * (double)ggml_nelements(t);
    return (double)ggml_nelements(t);
}

bool el_is_watched(const struct ggml_tensor *t)
{
    return (t->op == GGML_OP_MUL_MAT || t->op == GGML_OP_MUL_MAT_ID) && t->src[0]->op == GGML_OP_NONE &&
           t->src[1]->type == GGML_TYPE_F32;
}

/* With a watch every watched node is the last of its slice: what comes after it may reuse its inputs' memory. */
static void cut(el_stock *s)
{
    double work = 0;

    for (int32_t i = 0; i < s->graph->n_nodes; i++) {
        const bool watched = s->watch && el_is_watched(s->graph->nodes[i]);
        work += work_of(s->graph->nodes[i]);
        if (work < SLICE_WORK && !watched && i + 1 < s->graph->n_nodes)
            continue;
        s->ends[s->n_slices++] = i + 1;
        work = 0;
    }
}

edgellm_status el_stock_new(el_stock **out, struct ggml_cgraph *graph, const el_ggml_cpu *ggml, int32_t n_threads,
                            const el_watch *watch)
{
    el_stock *s = el_alloc(1, sizeof *s);

    *out = NULL;
    if (!s)
        return el_no_memory(sizeof *s);
    *s = (el_stock){.graph = graph, .ggml = ggml, .n_threads = n_threads, .watch = watch};
    s->arena = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
    s->ends = el_alloc((size_t)graph->n_nodes, sizeof *s->ends);
    if (!s->arena || !s->ends || !ggml_gallocr_alloc_graph(s->arena, graph)) {
        el_stock_free(s);
        return el_fail(EDGELLM_ENOMEM, "out of memory: no scratch space for a step; lower n_batch");
    }
    cut(s);
    *out = s;
    return EDGELLM_OK;
}

void el_stock_free(el_stock *s)
{
    if (!s)
        return;
    if (s->arena)
        ggml_gallocr_free(s->arena);
    el_free(s->ends);
    el_free(s->work);
    el_free(s);
}

size_t el_stock_bytes(const el_stock *s) { return ggml_gallocr_get_buffer_size(s->arena, 0) + s->work_bytes; }

void el_stock_begin(el_stock *s) { s->next = 0; }

static edgellm_status threads_for(el_stock *s)
{
    struct ggml_threadpool_params params;

    if (pool.threads && pool.n_threads == s->n_threads)
        return EDGELLM_OK;
    if (pool.threads)
        s->ggml->threadpool_free(pool.threads);
    s->ggml->threadpool_params_init(&params, s->n_threads);
    params.poll = 0; /* between steps the threads sleep: an idle engine costs nothing */
    pool.threads = s->ggml->threadpool_new(&params);
    atomic_store(&pool.process, (int32_t)getpid());
    pool.n_threads = s->n_threads;
    return pool.threads ? EDGELLM_OK : el_fail(EDGELLM_ENOMEM, "could not start %d threads", s->n_threads);
}

static bool cancelled(void *data)
{
    return data && atomic_load_explicit((const _Atomic bool *)data, memory_order_relaxed);
}

static edgellm_status compute(el_stock *s, int32_t first, int32_t end, const _Atomic bool *cancel)
{
    struct ggml_cgraph slice = ggml_graph_view(s->graph, first, end);
    struct ggml_cplan plan = s->ggml->graph_plan(&slice, s->n_threads, pool.threads);
    enum ggml_status result;

    if (plan.work_size > s->work_bytes) {
        el_free(s->work);
        s->work_bytes = 0;
        s->work = el_alloc(plan.work_size, 1);
        if (!s->work)
            return el_no_memory(plan.work_size);
        s->work_bytes = plan.work_size;
    }
    plan.work_data = s->work;
    plan.abort_callback = cancelled;
    plan.abort_callback_data = (void *)(uintptr_t)cancel;
    result = s->ggml->graph_compute(&slice, &plan);
    if (result == GGML_STATUS_ABORTED || cancelled(plan.abort_callback_data))
        return el_fail(EDGELLM_ECANCELLED, "cancelled");
    return result == GGML_STATUS_SUCCESS ? EDGELLM_OK : el_fail(EDGELLM_ENOMEM, "out of memory while computing a step");
}

edgellm_status el_stock_run(el_stock *s, int32_t budget_ms, const _Atomic bool *cancel)
{
    const double deadline = el_now_ms() + budget_ms;
    const int32_t process = atomic_load(&pool.process);
    edgellm_status status = EDGELLM_OK;

    if (process != 0 && process != (int32_t)getpid())
        return el_fail(EDGELLM_EUNSUPPORTED, "ggml was already running when this process forked; use edgellm in the "
                                             "parent, or start the child as a new program");
    pthread_mutex_lock(&pool.turn);
    EL_TRY(threads_for(s));
    while (s->next < s->n_slices) {
        const struct ggml_tensor *last = s->graph->nodes[s->ends[s->next] - 1];
        EL_TRY(compute(s, s->next ? s->ends[s->next - 1] : 0, s->ends[s->next], cancel));
        if (s->watch && el_is_watched(last))
            EL_TRY(s->watch->seen(s->watch->data, last));
        s->next++;
        if (budget_ms > 0 && s->next < s->n_slices && el_now_ms() >= deadline) {
            status = EDGELLM_AGAIN;
            break;
        }
    }
done:
    pthread_mutex_unlock(&pool.turn);
    return status;
}
