/* engine.c - makes an engine within the memory it is given, and keeps its sequences. */
#include "engine.h"

#include <string.h>

#include "ggml.h"
#include "kernels.h"
#include "log.h"
#include "system.h"
#include "workers.h"

enum { MAX_SEQS = 256, MAX_BATCH = 4096, MAX_THREADS = 256 };

edgellm_status el_check_range(const char *name, int64_t value, int64_t lo, int64_t hi)
{
    if (value >= lo && value <= hi)
        return EDGELLM_OK;
    return el_fail(EDGELLM_EINVAL, "%s is %lld; it must be within %lld .. %lld", name, (long long)value, (long long)lo,
                   (long long)hi);
}

/* What the steps compute has to be something the model gives. */
static edgellm_status check_output(const el_model *model, const edgellm_engine_options *o)
{
    if (!o->embeddings && !model->output.w)
        return el_fail(EDGELLM_EUNSUPPORTED, "a %s model gives embeddings, not text: use embed", model->arch->name);
    if (o->embeddings && o->pooling == EDGELLM_POOLING_RANK && !model->cls.w && !model->cls_out.w)
        return el_fail(EDGELLM_EUNSUPPORTED, "this model has no classifier, so it cannot rank; use embeddings and "
                                             "compare them, or a reranker model");
    return EDGELLM_OK;
}

static int32_t pooling_of(const el_model *model, const edgellm_engine_options *o)
{
    if (o->pooling != EDGELLM_POOLING_MODEL)
        return o->pooling;
    return model->hp.pooling != EDGELLM_POOLING_MODEL ? model->hp.pooling : EDGELLM_POOLING_MEAN;
}

edgellm_status el_engine_new(el_engine **out, const el_model *model, const edgellm_engine_options *o)
{
    edgellm_status status = EDGELLM_OK;
    el_engine *e = NULL;
    el_sizes sizes;

    *out = NULL;
    EL_TRY(el_check_range("n_ctx", o->n_ctx, 0, 1 << 24));
    EL_TRY(el_check_range("n_seqs", o->n_seqs, 1, MAX_SEQS));
    EL_TRY(el_check_range("n_batch", o->n_batch, 1, MAX_BATCH));
    EL_TRY(el_check_range("n_threads", o->n_threads, 0, MAX_THREADS));
    EL_TRY(el_check_range("kv_type", o->kv_type, EDGELLM_KV_F16, EDGELLM_KV_Q8_0));
    EL_TRY(el_check_range("pooling", o->pooling, EDGELLM_POOLING_MODEL, EDGELLM_POOLING_RANK));
    EL_TRY(check_output(model, o));
    e = el_alloc(1, sizeof *e);
    if (!e)
        return el_no_memory(sizeof *e);
    e->model = model;
    e->n_seqs = o->n_seqs;
    e->n_batch = o->n_batch;
    e->n_threads = o->n_threads ? o->n_threads : el_default_threads();
    EL_TRY(el_ggml_cpu_get(&e->cpu));
    EL_TRY(el_engine_size(e, o, &sizes));
    e->seqs = el_alloc((size_t)e->n_seqs, sizeof *e->seqs);
    e->step.items = el_alloc((size_t)e->n_seqs, sizeof *e->step.items);
    if (!e->seqs || !e->step.items) {
        status = el_no_memory((size_t)e->n_seqs * sizeof *e->seqs);
        goto done;
    }
    EL_TRY(el_blocks_init(&e->blocks, sizes.n_blocks));
    if (sizes.n_sliding_blocks > 0)
        EL_TRY(el_blocks_init(&e->sliding, sizes.n_sliding_blocks));
    EL_TRY(el_pool_init(&e->pool, model, o->kv_type, sizes.n_blocks * EL_BLOCK_TOKENS,
                        sizes.n_sliding_blocks * EL_BLOCK_TOKENS, e->n_seqs));
    e->graph = (el_graph_options){.embeddings = o->embeddings != 0, .pooling = pooling_of(model, o)};
    EL_TRY(el_rope_resolve(&e->graph.rope, &model->hp, o, e->n_ctx));
    e->graph.long_context = e->n_ctx > e->graph.rope.ctx_orig;
    EL_TRY(el_plans_init(&e->plans, model, e->pool.layers, e->graph, e->cpu, e->n_threads));
    el_log(EL_LOG_INFO, "engine: %d threads, %s kernels, context %d, %d KV blocks", e->n_threads,
           el_cpu_own_backend() ? el_kernels_get()->isa : e->cpu->isa, e->n_ctx, sizes.n_blocks);
    *out = e;
    e = NULL;
done:
    el_engine_free(e);
    return status;
}

void el_engine_free(el_engine *e)
{
    if (!e)
        return;
    for (int32_t i = 0; e->seqs && i < e->n_seqs; i++) {
        el_generate_clear(&e->seqs[i]);
        el_checkpoints_forget(e, &e->seqs[i], -1);
        el_block_table_clear(&e->sliding, &e->seqs[i].sliding);
        el_block_table_clear(&e->blocks, &e->seqs[i].blocks);
        el_block_table_clear(&e->blocks, &e->seqs[i].source);
    }
    el_plans_clear(&e->plans);
    el_collector_free(e->collector);
    el_pool_clear(&e->pool);
    el_blocks_clear(&e->blocks);
    el_blocks_clear(&e->sliding);
    el_free(e->seqs);
    el_free(e->step.items);
    el_free(e);
}

edgellm_status el_engine_collect(el_engine *e, bool on)
{
    edgellm_status status = EDGELLM_OK;

    el_step_abandon(e);
    el_workers_quiesce();
    el_plans_clear(&e->plans); /* those at hand were made for the other case */
    el_collector_free(e->collector);
    e->collector = NULL;
    e->plans.watch = NULL;
    if (on) {
        EL_TRY(el_collector_new(&e->collector, el_gguf_n_tensors(e->model->file)));
        e->plans.watch = el_collector_watch(e->collector);
    }
done:
    return status;
}

edgellm_status el_engine_adapt(el_engine *e, const el_adapters *adapters)
{
    for (int32_t i = 0; i < adapters->n; i++) {
        if (adapters->use[i]->model != e->model)
            return el_fail(EDGELLM_EINVAL, "adapter %d was opened for another model", i);
        if (!(adapters->scale[i] >= -1e6f && adapters->scale[i] <= 1e6f))
            return el_fail(EDGELLM_EINVAL, "the scale of adapter %d is %g; it must be a number", i,
                           (double)adapters->scale[i]);
    }
    el_step_abandon(e);
    el_workers_quiesce();
    e->step.state = EL_STEP_NONE; /* results of the last step go with its plan */
    el_plans_clear(&e->plans);
    e->graph.adapters = e->plans.options.adapters = *adapters;
    return EDGELLM_OK;
}

edgellm_status el_engine_seq(el_engine *e, int32_t seq, el_seq **out)
{
    if (seq < 0 || seq >= e->n_seqs || !e->seqs[seq].open)
        return el_fail(EDGELLM_EINVAL, "sequence %d is not open", seq);
    *out = &e->seqs[seq];
    return EDGELLM_OK;
}

edgellm_status el_seq_open(el_engine *e, int32_t *seq)
{
    for (int32_t i = 0; i < e->n_seqs; i++) {
        if (!e->seqs[i].open) {
            e->seqs[i].open = true;
            *seq = i;
            return EDGELLM_OK;
        }
    }
    return el_fail(EDGELLM_EFULL, "all %d sequences are in use; close one or open the engine with more n_seqs",
                   e->n_seqs);
}

edgellm_status el_seq_close(el_engine *e, int32_t seq)
{
    el_seq *s = NULL;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_engine_seq(e, seq, &s));
    el_step_abandon(e);
    el_workers_quiesce(); /* none may still write to the blocks that are given back */
    el_generate_clear(s);
    el_checkpoints_forget(e, s, -1);
    el_block_table_clear(&e->sliding, &s->sliding);
    el_block_table_clear(&e->blocks, &s->blocks);
    el_block_table_clear(&e->blocks, &s->source);
    memset(s, 0, sizeof *s);
done:
    return status;
}
