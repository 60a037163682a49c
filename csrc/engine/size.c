/* size.c - how much memory an engine takes: what was asked for, or else what the model was trained on, as far as half
 * of the free memory goes. */
#include "engine.h"
#include "system.h"

enum { DEFAULT_CTX = 8192 };

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

/* Whether what slides may lie in a cache of its own. A row of an encoder also sees what comes later, and a layer that
 * reads another's cache has to see it as that layer does. */
static bool can_slide_apart(const el_hparams *hp)
{
    for (int32_t i = 0; i < hp->n_layer; i++)
        if (hp->layers[i].sliding != hp->layers[hp->layers[i].kv_of].sliding)
            return false;
    return hp->causal && hp->n_encoder == 0 && hp->window > 0;
}

/* Blocks of a cache in which every sequence finds its window and what goes with it, and one checkpoint each: before a
 * step it holds at most the window, EL_WINDOW_SLACK and two parts of blocks. */
static uint64_t sliding_blocks(const el_engine *e)
{
    const uint64_t window = (uint64_t)e->model->hp.window, n_seqs = (uint64_t)e->n_seqs;
    const uint64_t each = (window + EL_WINDOW_SLACK) / EL_BLOCK_TOKENS + 3, checkpoint = window / EL_BLOCK_TOKENS + 2;

    return n_seqs * (each + checkpoint) + (uint64_t)e->n_batch / EL_BLOCK_TOKENS + 1;
}

static edgellm_status choose_context(el_engine *e, const edgellm_engine_options *o)
{
    const int32_t trained = e->model->hp.n_ctx_train;
    const int32_t positions = e->model->hp.n_positions;

    e->n_ctx = o->n_ctx;
    if (e->n_ctx == 0)
        e->n_ctx = trained > 0 && trained < DEFAULT_CTX ? trained : DEFAULT_CTX;
    if (positions > 0 && e->n_ctx > positions) {
        if (o->n_ctx > 0)
            return el_fail(EDGELLM_EINVAL, "n_ctx is %d, but this model has learned only %d positions; lower n_ctx",
                           o->n_ctx, positions);
        e->n_ctx = positions;
    }
    return EDGELLM_OK;
}

edgellm_status el_engine_size(el_engine *e, const edgellm_engine_options *o, el_sizes *sizes)
{
    const uint64_t half = free_memory() / 2;
    uint64_t full, sliding, block_bytes, limit, wanted, states, apart;
    edgellm_status status = EDGELLM_OK;

    *sizes = (el_sizes){0, 0};
    EL_TRY(size_states(e, half, &states));
    EL_TRY(choose_context(e, o));
    EL_TRY(el_pool_slot_bytes(e->model, o->kv_type, &full, &sliding));
    limit = o->kv_bytes ? o->kv_bytes : half - states;
    wanted = ((uint64_t)e->n_ctx + EL_BLOCK_TOKENS - 1) / EL_BLOCK_TOKENS;
    apart = sliding_blocks(e);
    if (can_slide_apart(&e->model->hp) && apart < wanted * (uint64_t)e->n_seqs &&
        apart <= INT32_MAX / EL_BLOCK_TOKENS && apart * EL_BLOCK_TOKENS * sliding < limit / 2) {
        sizes->n_sliding_blocks = (int32_t)apart;
        limit -= apart * EL_BLOCK_TOKENS * sliding;
    } else {
        full += sliding;
    }
    block_bytes = EL_MAX(full, 1) * EL_BLOCK_TOKENS; /* a model without attention has no cache, but blocks */
    limit /= block_bytes;
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
    if (e->model->hp.n_encoder > 0 && e->model->hp.causal)
        wanted *= 2; /* a source text and its answer */
    wanted = EL_MIN(wanted * (uint64_t)e->n_seqs, limit);
    sizes->n_blocks = (int32_t)EL_MIN(wanted, (uint64_t)(INT32_MAX / EL_BLOCK_TOKENS));
done:
    return status;
}
