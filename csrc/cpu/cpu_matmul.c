/* cpu_matmul.c - products that share their input, and what follows each of them before its result is written. */
#include <string.h>

#include "cpu_internal.h"
#include "finite.h"

void el_act_from_row(const el_cpu_plan *plan, const el_act_format *format, char *to, const float *row, int64_t n)
{
    if (format->own)
        plan->kernels->act_quantize((el_act_kind)format->kind, to, row, n);
    else if (format->kind == GGML_TYPE_F32)
        memcpy(to, row, (size_t)n * sizeof *row);
    else
        plan->ggml->type_traits((enum ggml_type)format->kind)->from_float(row, to, n);
}

void el_quantize_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_matmul_job *job = job_;
    const el_worker_scratch *s = &job->plan->scratch[worker];
    const int64_t first = chunk * 4;
    const int64_t end = EL_MIN(first + 4, job->n_rows);

    for (int64_t r = first; r < end; r++) {
        el_row_program_run(job->plan->kernels, &job->input, r, s->row, true);
        el_act_from_row(job->plan, &job->format, (char *)job->act->data + (size_t)r * job->format.stride, s->row,
                        job->input.width);
    }
}

/* The activation rows, prepared by this worker unless an earlier region has done it. What they store for later regions
 * belongs to chunk 0: else every worker would write it. */
static const char *activations(const el_matmul_job *job, int32_t chunk, int32_t worker)
{
    const bool store = chunk == 0 && job->input.stores;
    el_worker_scratch *s = &job->plan->scratch[worker];
    const uint64_t tag = el_cpu_tag(job->plan, job);

    if (job->act)
        return job->act->data;
    if (s->tag != tag || store) {
        for (int64_t r = 0; r < job->n_rows; r++) {
            el_row_program_run(job->plan->kernels, &job->input, r, s->row, store);
            el_act_from_row(job->plan, &job->format, s->act + (size_t)r * job->format.stride, s->row, job->input.width);
        }
        s->tag = tag;
    }
    return s->act;
}

void el_multiply(const el_cpu_plan *plan, const el_act_format *format, float *tile, int64_t ld,
                 const struct ggml_tensor *w, const char *rows, int64_t n_rows, const char *act, int64_t n_act,
                 void *scratch)
{
    const int64_t k = w->ne[0];

    if (format->own) {
        plan->kernels->matmul[w->type](tile, ld, rows, w->nb[1], n_rows, act, format->stride, n_act, k, scratch);
        return;
    }
    for (int64_t o = 0; o < n_rows; o++) {
        const ggml_vec_dot_t dot = plan->ggml->type_traits(w->type)->vec_dot;
        for (int64_t r = 0; r < n_act; r++)
            dot((int)k, &tile[r * ld + o], 0, rows + (size_t)o * w->nb[1], 0, act + (size_t)r * format->stride, 0, 1);
    }
}

/* tile[(r - r0) * ld + o - o0] for activation rows r0 .. r1 - 1 and outputs o0 .. o1 - 1 */
static void multiply(const el_matmul_job *job, const struct ggml_tensor *w, const char *act, float *tile, int64_t ld,
                     int64_t o0, int64_t o1, int64_t r0, int64_t r1, void *scratch)
{
    el_multiply(job->plan, &job->format, tile, ld, w, (const char *)w->data + (size_t)o0 * w->nb[1], o1 - o0,
                act + (size_t)r0 * job->format.stride, r1 - r0, scratch);
}

/* Two gates have kernels of their own, with the same bits. */
void el_gate_row(const el_kernels *k, el_map map, float *y, const float *gate, const float *up, int64_t n,
                 const float *params)
{
    if (map == EL_MAP_SWIGLU)
        k->silu_mul(y, gate, up, n);
    else if (map == EL_MAP_GEGLU)
        k->gelu_mul(y, gate, up, n);
    else
        k->map(map, y, gate, up, n, params);
}

/* y: outputs o0 .. o0 + n - 1 of row r, whole heads if an epilogue needs them */
static void finish_row(const el_kernels *k, const el_product *p, float *y, int64_t o0, int64_t n, int64_t r)
{
    for (int32_t i = 0; i < p->n_epilogue; i++) {
        const el_epilogue *e = &p->epilogue[i];
        const float *a = e->a ? e->a->data : NULL;
        switch (e->kind) {
        case EL_EPI_BIAS:
            k->add(y, y, a + o0, n);
            break;
        case EL_EPI_MUL:
            k->mul(y, y, a + o0, n);
            break;
        case EL_EPI_DIV:
            k->map(EL_MAP_DIV, y, y, a + o0, n, NULL);
            break;
        case EL_EPI_HEAD_BIAS:
        case EL_EPI_HEAD_MUL:
            for (int64_t h = 0; h < n; h += p->head)
                (e->kind == EL_EPI_HEAD_MUL ? k->mul : k->add)(y + h, y + h, a, p->head);
            break;
        case EL_EPI_RESIDUAL:
        case EL_EPI_ROW_MUL:
            a = (const float *)(const void *)((const char *)e->a->data + (size_t)r * e->a->nb[1]);
            (e->kind == EL_EPI_ROW_MUL ? k->mul : k->add)(y, y, a + o0, n);
            break;
        case EL_EPI_NORM:
            for (int64_t h = 0; h < n; h += p->head)
                k->rms_norm(y + h, y + h, a, p->head, e->f);
            break;
        case EL_EPI_LAYER_NORM:
            for (int64_t h = 0; h < n; h += p->head)
                k->layer_norm(y + h, y + h, NULL, NULL, p->head, e->f);
            break;
        case EL_EPI_ROPE: {
            const int64_t at = r * (e->rope->n_rot / 2);
            for (int64_t h = 0; h < n; h += p->head)
                (e->rope->halves ? k->rope_halves : k->rope_adjacent)(y + h, y + h, e->rope->cosines + at,
                                                                      e->rope->sines + at, e->rope->n_rot, p->head);
            break;
        }
        case EL_EPI_SCALE:
            k->scale(y, y, a[r], n);
            break;
        case EL_EPI_FACTOR:
            k->scale(y, y, a[0], n);
            break;
        case EL_EPI_SOFTCAP:
            k->softcap(y, y, e->f, n);
            break;
        case EL_EPI_MAP:
            k->map(e->map, y, y, NULL, n, e->params);
            break;
        }
    }
}

static void write_row(const el_matmul_job *job, const el_product *p, const float *y, int64_t o0, int64_t n, int64_t r)
{
    const struct ggml_tensor *out = p->out;
    const int64_t at = p->slots ? ((const int64_t *)p->slots->data)[r] : r;
    const size_t row_size = p->slots ? out->nb[1] : (size_t)p->w->ne[1] * sizeof(float);
    char *to = (char *)out->data + (size_t)at * row_size;

    if (out->type == GGML_TYPE_F32)
        memcpy(to + (size_t)o0 * sizeof(float), y, (size_t)n * sizeof(float));
    else if (out->type == GGML_TYPE_F16)
        job->plan->kernels->f32_to_f16((uint16_t *)(void *)to + o0, y, n);
    else
        job->plan->kernels->f32_to_q8_0(to + ggml_row_size(out->type, o0), y, n);
}

/* The product whose rows that chunk computes (its first, when a pair is gated); *first is its first row. */
static const el_product *product_of(const el_matmul_job *job, int32_t chunk, int64_t *first)
{
    const el_product *p = job->products;

    chunk /= job->n_blocks;
    while (p->gated || chunk >= p->first_chunk + p->n_chunks)
        p++;
    *first = (chunk - p->first_chunk) * p->rows_per_chunk;
    return p;
}

/* A worker that waits a microsecond could have read 40 KB. */
bool el_matmul_ahead(const void *job_, int32_t chunk, int32_t part)
{
    enum { PART = 1024, MOST = 32768 };
    int64_t first;
    const el_product *p = product_of(job_, chunk, &first);
    const size_t at = (size_t)part * PART, n = EL_MIN((size_t)p->rows_per_chunk * p->w->nb[1], (size_t)MOST);
    const char *from = (const char *)p->w->data + (size_t)first * p->w->nb[1] + at;

    for (size_t line = 0; line < PART; line += 64)
        __builtin_prefetch(from + line, 0, 2);
    return at + PART < n;
}

void el_matmul_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_matmul_job *job = job_;
    const el_worker_scratch *s = &job->plan->scratch[worker];
    const el_kernels *k = job->plan->kernels;
    const char *act = activations(job, chunk, worker);
    const int32_t block = chunk % job->n_blocks;
    const int64_t r0 = block * job->rows_per_block;
    const int64_t r1 = EL_MIN(r0 + job->rows_per_block, job->n_rows);
    int64_t o0, o1, ld;
    const el_product *p = product_of(job, chunk, &o0);

    o1 = EL_MIN(o0 + p->rows_per_chunk, p->w->ne[1]);
    ld = o1 - o0;
    multiply(job, p->w, act, s->tile, ld, o0, o1, r0, r1, s->kernel);
    if (p->glu >= 0)
        multiply(job, job->products[p->glu].w, act, s->tile2, ld, o0, o1, r0, r1, s->kernel);
    for (int64_t r = r0; r < r1; r++) {
        float *y = s->tile + (r - r0) * ld;
        finish_row(k, p, y, o0, ld, r);
        if (p->glu >= 0) {
            float *up = s->tile2 + (r - r0) * ld;
            finish_row(k, &job->products[p->glu], up, o0, ld, r);
            el_gate_row(k, p->glu_map, y, y, up, ld, p->glu_params);
        }
        write_row(job, p, y, o0, ld, r);
        if (p->checked && !el_all_finite(y, (size_t)ld))
            atomic_store_explicit(&job->plan->not_finite, true, memory_order_relaxed);
    }
}
