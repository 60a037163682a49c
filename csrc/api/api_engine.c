/* api_engine.c - the boundary for engines, sequences and steps. */
#include <string.h>

#include "engine.h"
#include "kernels.h"

#define REFUSE_NULL(condition, names)                                                                                  \
    do {                                                                                                               \
        el_error_clear();                                                                                              \
        if (condition)                                                                                                 \
            return el_fail(EDGELLM_EINVAL, "%s must not be NULL", names);                                              \
    } while (0)

void edgellm_engine_options_init(edgellm_engine_options *options)
{
    if (options)
        *options = (edgellm_engine_options){.struct_size = sizeof *options,
                                            .n_seqs = 8,
                                            .n_batch = 512,
                                            .pooling = EDGELLM_POOLING_MODEL,
                                            .rope = EDGELLM_ROPE_MODEL};
}

edgellm_status edgellm_engine_new(edgellm_engine **out, const edgellm_model *model,
                                  const edgellm_engine_options *options)
{
    edgellm_engine_options defaults;

    REFUSE_NULL(!out || !model, "out and model");
    *out = NULL;
    edgellm_engine_options_init(&defaults);
    if (options && options->struct_size != sizeof *options)
        return el_fail(EDGELLM_EINVAL, "options->struct_size is %u, not %zu; call edgellm_engine_options_init first",
                       (unsigned)options->struct_size, sizeof *options);
    return el_engine_new(out, model, options ? options : &defaults);
}

edgellm_status edgellm_engine_set_adapters(edgellm_engine *engine, const edgellm_adapter *const *adapters,
                                           const float *scales, int32_t n)
{
    el_adapters all = {0};

    REFUSE_NULL(!engine || (n > 0 && (!adapters || !scales)), "engine, adapters and scales");
    if (n < 0 || n > EL_MAX_ADAPTERS)
        return el_fail(EDGELLM_EINVAL, "%d adapters at once; at most %d are possible", n, EL_MAX_ADAPTERS);
    for (int32_t i = 0; i < n; i++) {
        REFUSE_NULL(!adapters[i], "adapters");
        all.use[all.n] = adapters[i];
        all.scale[all.n++] = scales[i];
    }
    return el_engine_adapt(engine, &all);
}

void edgellm_engine_free(edgellm_engine *engine) { el_engine_free(engine); }

edgellm_status edgellm_engine_get_info(const edgellm_engine *e, edgellm_engine_info *info)
{
    const char *isa;
    size_t n;

    REFUSE_NULL(!e || !info, "engine and info");
    if (info->struct_size != sizeof *info)
        return el_fail(EDGELLM_EINVAL, "info->struct_size must be %zu", sizeof *info);
    *info = (edgellm_engine_info){.struct_size = sizeof *info,
                                  .n_ctx = e->n_ctx,
                                  .n_seqs = e->n_seqs,
                                  .n_batch = e->n_batch,
                                  .n_threads = e->n_threads,
                                  .n_blocks = e->blocks.n_blocks,
                                  .n_blocks_free = e->blocks.n_free,
                                  .n_plans = e->plans.n,
                                  .kv_bytes = e->pool.n_bytes,
                                  .state_bytes = e->pool.n_state_bytes + el_checkpoints_bytes(e),
                                  .scratch_bytes = el_plans_bytes(&e->plans)};
    isa = el_cpu_own_backend() ? el_kernels_get()->isa : e->cpu->isa;
    n = strlen(isa);
    memcpy(info->isa, isa, EL_MIN(n, sizeof info->isa - 1));
    return EDGELLM_OK;
}

edgellm_status edgellm_engine_collect(edgellm_engine *engine, int32_t on)
{
    REFUSE_NULL(!engine, "engine");
    return el_engine_collect(engine, on != 0);
}

edgellm_status edgellm_engine_activations(const edgellm_engine *engine, int32_t i, edgellm_activations *out)
{
    REFUSE_NULL(!engine || !out, "engine and out");
    if (out->struct_size != sizeof *out)
        return el_fail(EDGELLM_EINVAL, "out->struct_size must be %zu", sizeof *out);
    if (!engine->collector)
        return el_fail(EDGELLM_EINVAL, "nothing is being collected; call edgellm_engine_collect first");
    return el_collector_get(engine->collector, i, out);
}

void edgellm_engine_cancel(edgellm_engine *engine)
{
    if (engine)
        atomic_store(&engine->cancel, true);
}

edgellm_status edgellm_seq_open(edgellm_engine *engine, int32_t *seq)
{
    REFUSE_NULL(!engine || !seq, "engine and seq");
    *seq = -1;
    return el_seq_open(engine, seq);
}

edgellm_status edgellm_seq_close(edgellm_engine *engine, int32_t seq)
{
    REFUSE_NULL(!engine, "engine");
    return el_seq_close(engine, seq);
}

int32_t edgellm_seq_length(const edgellm_engine *e, int32_t seq)
{
    return e && seq >= 0 && seq < e->n_seqs && e->seqs[seq].open ? e->seqs[seq].length : -1;
}

edgellm_status edgellm_seq_truncate(edgellm_engine *engine, int32_t seq, int32_t n_tokens)
{
    REFUSE_NULL(!engine, "engine");
    return el_seq_truncate(engine, seq, n_tokens);
}

edgellm_status edgellm_seq_checkpoint(edgellm_engine *engine, int32_t seq)
{
    REFUSE_NULL(!engine, "engine");
    return el_seq_checkpoint(engine, seq);
}

edgellm_status edgellm_seq_sample(edgellm_engine *engine, int32_t seq, const edgellm_sampling *sampling,
                                  const int32_t *history, size_t n_history)
{
    el_seq *s = NULL;
    edgellm_status status = EDGELLM_OK;

    REFUSE_NULL(!engine || !sampling || (!history && n_history), "engine, sampling and history");
    if (sampling->struct_size != sizeof *sampling)
        return el_fail(EDGELLM_EINVAL, "sampling->struct_size is %u, not %zu; call edgellm_sampling_init first",
                       (unsigned)sampling->struct_size, sizeof *sampling);
    EL_TRY(el_engine_seq(engine, seq, &s));
    EL_TRY(el_generate_start(engine, s, sampling, history, n_history));
done:
    return status;
}

edgellm_status edgellm_seq_take_text(edgellm_engine *engine, int32_t seq, char *buf, size_t cap, size_t *n_bytes)
{
    el_seq *s = NULL;
    edgellm_status status = EDGELLM_OK;

    REFUSE_NULL(!engine || !buf || !n_bytes, "engine, buf and n_bytes");
    *n_bytes = 0;
    if (cap < 4)
        return el_fail(EDGELLM_EINVAL, "cap is %zu; a code point takes up to 4 bytes", cap);
    EL_TRY(el_engine_seq(engine, seq, &s));
    if (s->text)
        *n_bytes = el_text_stream_take(s->text, buf, cap);
done:
    return status;
}

edgellm_status edgellm_step_begin(edgellm_engine *engine, const edgellm_item *items, int32_t n_items)
{
    REFUSE_NULL(!engine || !items, "engine and items");
    return el_step_begin(engine, items, n_items);
}

edgellm_status edgellm_step_run(edgellm_engine *engine, int32_t budget_ms)
{
    REFUSE_NULL(!engine, "engine");
    return el_step_run(engine, budget_ms);
}

edgellm_status edgellm_step_logits(const edgellm_engine *engine, int32_t item, const float **logits, int32_t *rows)
{
    REFUSE_NULL(!engine || !logits || !rows, "engine, logits and rows");
    *logits = NULL;
    *rows = 0;
    return el_step_logits(engine, item, logits, rows);
}

edgellm_status edgellm_step_embeddings(const edgellm_engine *engine, int32_t item, const float **values, int32_t *rows,
                                       int32_t *width)
{
    REFUSE_NULL(!engine || !values || !rows || !width, "engine, values, rows and width");
    *values = NULL;
    *rows = *width = 0;
    return el_step_embeddings(engine, item, values, rows, width);
}

edgellm_status edgellm_step_sampled(const edgellm_engine *engine, int32_t item, edgellm_sampled *out)
{
    REFUSE_NULL(!engine || !out, "engine and out");
    return el_step_sampled(engine, item, out);
}
