/* engine.c - makes an engine within the memory it is given, and keeps its sequences. */
#include "engine.h"

#include <string.h>

#include "ggml.h"
#include "kernels.h"
#include "log.h"
#include "system.h"
#include "workers.h"

enum { MAX_SEQS = 256, MAX_BATCH = 4096, MAX_THREADS = 256, DEFAULT_CTX = 8192 };

edgellm_status el_check_range(const char *name, int64_t value, int64_t lo, int64_t hi)
{
    if (value >= lo && value <= hi)
        return EDGELLM_OK;
    return el_fail(EDGELLM_EINVAL, "%s is %lld; it must be within %lld .. %lld", name, (long long)value, (long long)lo,
                   (long long)hi);
}

/* Where the system does not say, assume the smallest machine worth running on. */
static uint64_t free_memory(void)
{
    el_system system;

    el_system_read(&system, "");
    return system.memory_available ? system.memory_available : (uint64_t)512 << 20;
}

/* As many sequences as have their recurrent memory in half of the free memory. */
static edgellm_status size_states(el_engine *e, uint64_t limit, uint64_t *n_bytes)
{
    const uint64_t each = el_pool_state_bytes(e->model) * EL_STATES_PER_SEQ;

    *n_bytes = 0;
    if (each == 0)
        return EDGELLM_OK;
    if (each > limit)
        return el_fail(EDGELLM_ENOMEM,
                       "the recurrent memory of one sequence takes %llu MB, and %llu MB are free for it; close other "
                       "programs or take a smaller model",
                       (unsigned long long)(each >> 20), (unsigned long long)(limit >> 20));
    e->n_seqs = (int32_t)EL_MIN((uint64_t)e->n_seqs, limit / each);
    *n_bytes = each * (uint64_t)e->n_seqs;
    return EDGELLM_OK;
}

/* Chooses n_ctx and the number of blocks: what was asked for, or else what the model was trained on, as far as half of
 * the free memory goes. */
static edgellm_status size_cache(el_engine *e, const edgellm_engine_options *o, int32_t *n_blocks)
{
    const int32_t trained = e->model->hp.n_ctx_train;
    const int32_t positions = e->model->hp.n_positions;
    const uint64_t half = free_memory() / 2;
    uint64_t slot_bytes, block_bytes, limit, wanted, state_bytes;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(size_states(e, half, &state_bytes));
    EL_TRY(el_pool_slot_bytes(e->model, o->kv_type, &slot_bytes));
    block_bytes = EL_MAX(slot_bytes, 1) * EL_BLOCK_TOKENS; /* a model without attention has no cache, but blocks */
    e->n_ctx = o->n_ctx;
    if (e->n_ctx == 0)
        e->n_ctx = trained > 0 && trained < DEFAULT_CTX ? trained : DEFAULT_CTX;
    if (positions > 0 && e->n_ctx > positions) {
        if (o->n_ctx > 0)
            return el_fail(EDGELLM_EINVAL, "n_ctx is %d, but this model has learned only %d positions; lower n_ctx",
                           o->n_ctx, positions);
        e->n_ctx = positions;
    }
    limit = (o->kv_bytes ? o->kv_bytes : half - state_bytes) / block_bytes;
    wanted = ((uint64_t)e->n_ctx + EL_BLOCK_TOKENS - 1) / EL_BLOCK_TOKENS;
    if (limit < wanted && o->n_ctx == 0 && limit > 0) {
        e->n_ctx = (int32_t)(limit * EL_BLOCK_TOKENS);
        wanted = limit;
    }
    if (limit < wanted)
        return el_fail(EDGELLM_ENOMEM,
                       "a context of %d tokens needs %llu MB of KV cache, and %llu MB are allowed; lower n_ctx or use "
                       "kv_type q8_0",
                       e->n_ctx, (unsigned long long)((wanted * block_bytes) >> 20),
                       (unsigned long long)((limit * block_bytes) >> 20));
    wanted = EL_MIN(wanted * (uint64_t)e->n_seqs, limit);
    *n_blocks = (int32_t)EL_MIN(wanted, (uint64_t)(INT32_MAX / EL_BLOCK_TOKENS));
done:
    return status;
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
    int32_t n_blocks = 0;

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
    EL_TRY(size_cache(e, o, &n_blocks));
    e->seqs = el_alloc((size_t)e->n_seqs, sizeof *e->seqs);
    e->step.items = el_alloc((size_t)e->n_seqs, sizeof *e->step.items);
    if (!e->seqs || !e->step.items) {
        status = el_no_memory((size_t)e->n_seqs * sizeof *e->seqs);
        goto done;
    }
    EL_TRY(el_blocks_init(&e->blocks, n_blocks));
    EL_TRY(el_pool_init(&e->pool, model, o->kv_type, n_blocks * EL_BLOCK_TOKENS, e->n_seqs));
    e->graph = (el_graph_options){.embeddings = o->embeddings != 0, .pooling = pooling_of(model, o)};
    EL_TRY(el_rope_resolve(&e->graph.rope, &model->hp, o, e->n_ctx));
    e->graph.long_context = e->n_ctx > e->graph.rope.ctx_orig;
    EL_TRY(el_plans_init(&e->plans, model, e->pool.layers, e->graph, e->cpu, e->n_threads));
    el_log(EL_LOG_INFO, "engine: %d threads, %s kernels, context %d, %d KV blocks", e->n_threads,
           el_cpu_own_backend() ? el_kernels_get()->isa : e->cpu->isa, e->n_ctx, n_blocks);
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
        el_checkpoints_forget(&e->seqs[i], -1);
        el_block_table_clear(&e->blocks, &e->seqs[i].blocks);
        el_block_table_clear(&e->blocks, &e->seqs[i].source);
    }
    el_plans_clear(&e->plans);
    el_collector_free(e->collector);
    el_pool_clear(&e->pool);
    el_blocks_clear(&e->blocks);
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
    el_checkpoints_forget(s, -1);
    el_block_table_clear(&e->blocks, &s->blocks);
    el_block_table_clear(&e->blocks, &s->source);
    memset(s, 0, sizeof *s);
done:
    return status;
}
