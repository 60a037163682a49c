/* cpu_rows.c - row programs: the elementwise and normalising operations between products, one row at a time; and the
 * angles of rope. */
#include <math.h>
#include <string.h>

#include "cpu_internal.h"

static const float *row_of(const struct ggml_tensor *t, const struct ggml_tensor *ids, int64_t r)
{
    const int64_t at = ids ? ((const int32_t *)ids->data)[r] : r;

    return (const float *)(const void *)((const char *)t->data + (size_t)at * t->nb[1]);
}

static void embed(float *row, const struct ggml_tensor *w, const struct ggml_tensor *ids, int64_t r)
{
    const char *from = (const char *)w->data + (size_t)((const int32_t *)ids->data)[r] * w->nb[1];

    if (w->type == GGML_TYPE_F32)
        memcpy(row, from, (size_t)w->ne[0] * sizeof *row);
    else
        ggml_get_type_traits(w->type)->to_float(from, row, w->ne[0]);
}

void el_row_program_run(const el_kernels *k, const el_row_program *p, int64_t r, float *row, bool store)
{
    const int64_t n = p->width;

    for (int32_t i = 0; i < p->n_ops; i++) {
        const el_row_op *op = &p->ops[i];
        switch (op->kind) {
        case EL_ROW_LOAD:
            memcpy(row, row_of(op->a, op->ids, r), (size_t)n * sizeof *row);
            break;
        case EL_ROW_EMBED:
            embed(row, op->a, op->ids, r);
            break;
        case EL_ROW_ADD:
            k->add(row, row, row_of(op->a, op->ids, r), n);
            break;
        case EL_ROW_MUL:
            k->mul(row, row, row_of(op->a, op->ids, r), n);
            break;
        case EL_ROW_SUM_VECTOR:
            k->add(row, row, op->a->data, n);
            break;
        case EL_ROW_MUL_VECTOR:
            k->mul(row, row, op->a->data, n);
            break;
        case EL_ROW_NORM:
            k->rms_norm(row, row, op->a ? op->a->data : NULL, n, op->f);
            break;
        case EL_ROW_LAYER_NORM:
            k->layer_norm(row, row, NULL, NULL, n, op->f);
            break;
        case EL_ROW_SCALE:
            k->scale(row, row, op->f, n);
            break;
        case EL_ROW_SCALE_BY:
            k->scale(row, row, *row_of(op->a, NULL, r), n);
            break;
        case EL_ROW_MAP:
            k->map(op->map, row, row, NULL, n, op->params);
            break;
        case EL_ROW_GATE:
            el_gate_row(k, op->map, row, row_of(op->a, NULL, r), row, n, op->params);
            break;
        case EL_ROW_STORE:
            if (store)
                memcpy((char *)op->a->data + (size_t)r * op->a->nb[1], row, (size_t)n * sizeof *row);
            break;
        }
    }
}

void el_rows_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_rows_job *job = job_;
    const int64_t first = chunk * job->rows_per_chunk;
    const int64_t end = EL_MIN(first + job->rows_per_chunk, job->program.n_rows);

    for (int64_t r = first; r < end; r++)
        el_row_program_run(job->plan->kernels, &job->program, r, job->plan->scratch[worker].row, true);
}

/* Angles as YaRN defines them (Peng et al. 2023, appendix A.2; ggml_rope_ext has the same parameters). With ext = 0
 * that is plain rope, stretched by 1 / scale. */
void el_rope_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_rope_job *job = job_;
    const int32_t *params = job->node->op_params;
    const float n_rot = (float)job->n_rot, n_ctx_orig = (float)params[4], pi = 3.14159265358979323846f;
    const float *factors = job->factors ? job->factors->data : NULL;
    const float position = (float)((const int32_t *)job->positions->data)[chunk];
    float base, scale, ext, attn, beta_fast, beta_slow, low = 0, high = 0, turn = position, step;

    (void)worker;
    memcpy(&base, params + 5, sizeof base);
    memcpy(&scale, params + 6, sizeof scale);
    memcpy(&ext, params + 7, sizeof ext);
    memcpy(&attn, params + 8, sizeof attn);
    memcpy(&beta_fast, params + 9, sizeof beta_fast);
    memcpy(&beta_slow, params + 10, sizeof beta_slow);
    step = powf(base, -2.0f / n_rot); /* multiplied along in float, as the models were evaluated */
    if (ext != 0) {
        const float per_octave = 2 * logf(base);
        low = floorf(n_rot * logf(n_ctx_orig / (beta_fast * 2 * pi)) / per_octave);
        high = ceilf(n_rot * logf(n_ctx_orig / (beta_slow * 2 * pi)) / per_octave);
        low = EL_MAX(low, 0.0f);
        high = EL_MIN(high, n_rot - 1);
        attn *= 1.0f + 0.1f * logf(1.0f / scale);
    }
    for (int32_t i = 0; i < job->n_rot / 2; i++, turn *= step) {
        const float wide = turn / (factors ? factors[i] : 1.0f);
        float angle = scale * wide;
        if (ext != 0) {
            const float ramp = ((float)i - low) / EL_MAX(0.001f, high - low);
            const float mix = (1 - EL_MIN(1.0f, EL_MAX(0.0f, ramp))) * ext;
            angle = angle * (1 - mix) + wide * mix;
        }
        job->cosines[(int64_t)chunk * (job->n_rot / 2) + i] = cosf(angle) * attn;
        job->sines[(int64_t)chunk * (job->n_rot / 2) + i] = sinf(angle) * attn;
    }
}
