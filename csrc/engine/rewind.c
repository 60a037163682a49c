/* rewind.c - going back in a sequence. Keys and values of earlier positions are still there, but recurrent memory only
 * knows the present: it goes back to a checkpoint, a copy made on the way, or to the beginning. */
#include <string.h>

#include "engine.h"
#include "workers.h"

enum { MAX_CHECKPOINT_BYTES = 256 << 20 }; /* of all sequences, but each may have one */

static uint64_t state_bytes(const el_engine *e)
{
    return e->pool.n_states > 0 ? e->pool.n_state_bytes / (uint64_t)e->pool.n_states : 0;
}

static void drop(el_seq *s, int32_t i)
{
    el_free(s->checkpoints[i].state);
    s->n_checkpoints--;
    memmove(&s->checkpoints[i], &s->checkpoints[i + 1], (size_t)(s->n_checkpoints - i) * sizeof *s->checkpoints);
}

void el_checkpoints_forget(el_seq *s, int32_t above)
{
    for (int32_t i = s->n_checkpoints - 1; i >= 0; i--)
        if (s->checkpoints[i].length > above)
            drop(s, i);
}

uint64_t el_checkpoints_bytes(const el_engine *e)
{
    uint64_t n = 0;

    for (int32_t i = 0; i < e->n_seqs; i++)
        n += (uint64_t)e->seqs[i].n_checkpoints * state_bytes(e);
    return n;
}

/* How many a sequence may have. */
static int32_t capacity(const el_engine *e)
{
    const uint64_t fit = MAX_CHECKPOINT_BYTES / ((uint64_t)e->n_seqs * EL_MAX(state_bytes(e), 1));

    return (int32_t)EL_MAX(EL_MIN(fit, (uint64_t)EL_MAX_CHECKPOINTS), 1);
}

edgellm_status el_seq_checkpoint(el_engine *e, int32_t seq)
{
    el_seq *s = NULL;
    el_checkpoint made;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_engine_seq(e, seq, &s));
    if (state_bytes(e) == 0 || s->length == 0)
        return EDGELLM_OK; /* every position can be gone back to */
    for (int32_t i = 0; i < s->n_checkpoints; i++)
        if (s->checkpoints[i].length == s->length)
            return EDGELLM_OK;
    made = (el_checkpoint){.length = s->length, .state = el_alloc(1, (size_t)state_bytes(e))};
    if (!made.state)
        return el_no_memory((size_t)state_bytes(e));
    el_pool_save_state(&e->pool, e->model, el_state_slot(seq, s->state), made.state);
    while (s->n_checkpoints >= capacity(e))
        drop(s, 0); /* in the order in which they were made */
    s->checkpoints[s->n_checkpoints++] = made;
done:
    return status;
}

/* The longest checkpoint of at most that length; NULL: none. */
static const el_checkpoint *nearest(const el_seq *s, int32_t length)
{
    const el_checkpoint *best = NULL;

    for (int32_t i = 0; i < s->n_checkpoints; i++)
        if (s->checkpoints[i].length <= length && (!best || s->checkpoints[i].length > best->length))
            best = &s->checkpoints[i];
    return best;
}

edgellm_status el_seq_truncate(el_engine *e, int32_t seq, int32_t n_tokens)
{
    el_seq *s = NULL;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_engine_seq(e, seq, &s));
    EL_TRY(el_check_range("n_tokens", n_tokens, 0, s->length));
    el_step_abandon(e);
    el_workers_quiesce(); /* none may still write to the blocks that are given back */
    if (n_tokens < s->length && n_tokens > 0 && state_bytes(e) > 0) {
        const el_checkpoint *c = nearest(s, n_tokens);
        if (c)
            el_pool_load_state(&e->pool, e->model, el_state_slot(seq, s->state), c->state);
        n_tokens = c ? c->length : 0;
    }
    s->length = n_tokens;
    el_checkpoints_forget(s, n_tokens);
    el_blocks_shrink(&e->blocks, &s->blocks, n_tokens);
done:
    return status;
}
