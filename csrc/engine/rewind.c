/* rewind.c - going back in a sequence. Keys and values of earlier positions are still there, but recurrent memory only
 * knows the present, and sliding layers no longer have what their window has left: these go back to a checkpoint, made
 * on the way, or to the beginning. A checkpoint copies the recurrent memory and holds on to the window's blocks. */
#include <string.h>

#include "engine.h"
#include "workers.h"

enum { MAX_CHECKPOINT_BYTES = 256 << 20 }; /* of all sequences, but each may have one */

static uint64_t state_bytes(const el_engine *e)
{
    return e->pool.n_states > 0 ? e->pool.n_state_bytes / (uint64_t)e->pool.n_states : 0;
}

static void drop(el_engine *e, el_seq *s, int32_t i)
{
    el_free(s->checkpoints[i].state);
    el_block_table_clear(&e->sliding, &s->checkpoints[i].sliding);
    s->n_checkpoints--;
    memmove(&s->checkpoints[i], &s->checkpoints[i + 1], (size_t)(s->n_checkpoints - i) * sizeof *s->checkpoints);
}

void el_checkpoints_forget(el_engine *e, el_seq *s, int32_t above)
{
    for (int32_t i = s->n_checkpoints - 1; i >= 0; i--)
        if (s->checkpoints[i].length > above)
            drop(e, s, i);
}

bool el_checkpoints_drop_oldest(el_engine *e)
{
    el_seq *oldest = NULL;

    for (int32_t i = 0; i < e->n_seqs; i++) {
        el_seq *s = &e->seqs[i];
        if (s->n_checkpoints > 0 && (!oldest || s->checkpoints[0].made < oldest->checkpoints[0].made))
            oldest = s;
    }
    if (oldest)
        drop(e, oldest, 0);
    return oldest != NULL;
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

/* The blocks that the next position sees, and no more: what the slack adds would keep them from others. */
static edgellm_status share_window(el_engine *e, el_block_table *to, el_seq *s)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_blocks_share(&e->sliding, to, &s->sliding));
    el_blocks_shrink(&e->sliding, to, s->length); /* a step may be under way */
    el_blocks_slide(&e->sliding, to, el_window_start(e, s->length));
done:
    return status;
}

edgellm_status el_seq_checkpoint(el_engine *e, int32_t seq)
{
    el_seq *s = NULL;
    el_checkpoint made = {.state = NULL};
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_engine_seq(e, seq, &s));
    if ((state_bytes(e) == 0 && e->sliding.n_blocks == 0) || s->length == 0)
        return EDGELLM_OK; /* every position can be gone back to */
    for (int32_t i = 0; i < s->n_checkpoints; i++)
        if (s->checkpoints[i].length == s->length)
            return EDGELLM_OK;
    made.length = s->length;
    made.made = ++e->clock;
    EL_TRY(share_window(e, &made.sliding, s));
    if (state_bytes(e) > 0) {
        made.state = el_alloc(1, (size_t)state_bytes(e));
        if (!made.state) {
            el_block_table_clear(&e->sliding, &made.sliding);
            return el_no_memory((size_t)state_bytes(e));
        }
        el_pool_save_state(&e->pool, e->model, el_state_slot(seq, s->state), made.state);
    }
    while (s->n_checkpoints >= capacity(e))
        drop(e, s, 0); /* in the order in which they were made */
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

/* Whether all is there that a token at that position, before the present one, needs. */
static bool can_stand_at(const el_engine *e, const el_seq *s, int32_t length)
{
    return state_bytes(e) == 0 &&
           (e->sliding.n_blocks == 0 || el_window_start(e, length) / EL_BLOCK_TOKENS >= s->sliding.first);
}

static edgellm_status restore(el_engine *e, int32_t seq, const el_checkpoint *c)
{
    el_seq *s = &e->seqs[seq];
    edgellm_status status = EDGELLM_OK;

    if (c->state)
        el_pool_load_state(&e->pool, e->model, el_state_slot(seq, s->state), c->state);
    if (e->sliding.n_blocks > 0) {
        el_blocks_shrink(&e->sliding, &s->sliding, 0);
        EL_TRY(el_blocks_share(&e->sliding, &s->sliding, &c->sliding)); /* the table has had more entries: no failure */
    }
done:
    return status;
}

edgellm_status el_seq_truncate(el_engine *e, int32_t seq, int32_t n_tokens)
{
    el_seq *s = NULL;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_engine_seq(e, seq, &s));
    EL_TRY(el_check_range("n_tokens", n_tokens, 0, s->length));
    el_step_abandon(e);
    el_workers_quiesce(); /* none may still write to the blocks that are given back */
    if (n_tokens < s->length && n_tokens > 0 && !can_stand_at(e, s, n_tokens)) {
        const el_checkpoint *c = nearest(s, n_tokens);
        if (c)
            EL_TRY(restore(e, seq, c));
        n_tokens = c ? c->length : 0;
    }
    s->length = n_tokens;
    el_checkpoints_forget(e, s, n_tokens);
    el_blocks_shrink(&e->blocks, &s->blocks, n_tokens);
    el_blocks_shrink(&e->sliding, &s->sliding, n_tokens);
done:
    return status;
}
