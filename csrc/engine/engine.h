/* engine.h - sequences, their cache blocks, and one step at a time over any mix of them.
 * A step takes tokens of several sequences, computes them in one graph and returns the logits asked for; sequences that
 * sample get their next token in the same call. See include/edgellm.h for the rules of each function.
 *   engine.c   options, memory, sequences         step.c   one step
 *   generate.c sampling, stop rules, ready text   plan.c, pool.c   graphs and cache memory
 *   rewind.c   truncation, checkpoints         size.c   how much memory
 *   collect.c  what goes into products, for importance matrices */
#ifndef EL_ENGINE_H
#define EL_ENGINE_H

#include <stdatomic.h>

#include "collect.h"
#include "kv_blocks.h"
#include "plan.h"
#include "pool.h"
#include "sample.h"

enum {
    EL_MAX_CHECKPOINTS = 8, /* of a sequence */
    EL_WINDOW_SLACK = 64    /* positions kept beyond a window, so that a few tokens can be taken back */
};

typedef struct el_checkpoint {
    int32_t length;
    uint64_t made;          /* when, by el_engine.clock */
    void *state;            /* the recurrent memory after so many tokens; NULL: the model has none */
    el_block_table sliding; /* what sliding layers saw of them */
} el_checkpoint;

typedef struct el_seq {
    bool open;
    int32_t length; /* tokens whose K and V are in the cache */
    int32_t state;  /* 0 or 1: which of its two slots holds the sequence's recurrent memory */
    el_block_table blocks;
    el_block_table sliding;                        /* of sliding layers, where they have a cache of their own */
    el_block_table source;                         /* of an encoder-decoder model: the source text */
    int32_t n_source;                              /* its tokens */
    el_checkpoint checkpoints[EL_MAX_CHECKPOINTS]; /* oldest first */
    int32_t n_checkpoints;

    el_sampler *sampler; /* NULL until edgellm_seq_sample */
    el_text_stream *text;
    int32_t max_tokens;
    int32_t n_generated;
    bool ignore_eog, keep_special;
    int32_t heal_token; /* -1: none, or one without text */
} el_seq;

typedef struct el_step_item {
    int32_t seq, n_tokens, first_row;
    int32_t first_out, n_out;        /* rows of the step that are kept to the end */
    int32_t first_result, n_results; /* rows of the result: the same, or one if they are averaged */
    bool sample;
    edgellm_sampled sampled;
} el_step_item;

typedef enum el_step_state { EL_STEP_NONE, EL_STEP_RUNNING, EL_STEP_DONE } el_step_state;

typedef struct el_step {
    el_step_state state;
    el_plan *plan;
    int32_t n_items, n_rows, n_out;
    bool encode;         /* the items are source texts */
    el_step_item *items; /* n_seqs entries, in the caller's order */
    int32_t parity;
} el_step;

typedef struct edgellm_engine {
    const el_model *model;
    const el_ggml_cpu *cpu;
    int32_t n_ctx, n_seqs, n_batch, n_threads;
    el_graph_options graph;
    el_pool pool;
    el_blocks blocks;
    el_blocks sliding; /* of sliding layers: only what their window still sees. n_blocks 0: they use the others */
    uint64_t clock;
    el_plans plans;
    el_seq *seqs;
    el_step step;
    el_collector *collector; /* NULL: nothing is collected */
    _Atomic bool cancel;
} el_engine;

edgellm_status el_engine_new(el_engine **out, const el_model *model, const edgellm_engine_options *options);
void el_engine_free(el_engine *e);

typedef struct el_sizes {
    int32_t n_blocks, n_sliding_blocks;
} el_sizes;

/* size.c. Also sets n_ctx and lowers n_seqs where memory is short. */
edgellm_status el_engine_size(el_engine *e, const edgellm_engine_options *o, el_sizes *sizes);

edgellm_status el_check_range(const char *name, int64_t value, int64_t lo, int64_t hi); /* EINVAL */
edgellm_status el_engine_seq(el_engine *e, int32_t seq, el_seq **out);                  /* EINVAL unless open */
edgellm_status el_seq_open(el_engine *e, int32_t *seq);
edgellm_status el_seq_close(el_engine *e, int32_t seq);

/* rewind.c */
edgellm_status el_seq_truncate(el_engine *e, int32_t seq, int32_t n_tokens);
edgellm_status el_seq_checkpoint(el_engine *e, int32_t seq);
void el_checkpoints_forget(el_engine *e, el_seq *s, int32_t above); /* those of more tokens; -1: all */
bool el_checkpoints_drop_oldest(el_engine *e);                      /* of all sequences; false: there is none */
uint64_t el_checkpoints_bytes(const el_engine *e);

/* Where sliding layers find the sequence's positions. */
static inline const el_block_table *el_sliding_blocks(const el_engine *e, const el_seq *s)
{
    return e->sliding.n_blocks > 0 ? &s->sliding : &s->blocks;
}

/* The first position that the one after n_tokens sees. */
static inline int32_t el_window_start(const el_engine *e, int32_t n_tokens)
{
    int32_t end;

    return el_graph_first_visible(&e->model->hp, true, true, n_tokens, n_tokens + 1, &end);
}

/* Slot of the recurrent memory. A step reads the one that the sequence's last step wrote, and writes the other. */
static inline int32_t el_state_slot(int32_t seq, int32_t which) { return seq * EL_STATES_PER_SEQ + which; }

/* Applies to every step from now on; plans are made anew. */
edgellm_status el_engine_adapt(el_engine *e, const el_adapters *adapters);

edgellm_status el_step_begin(el_engine *e, const edgellm_item *items, int32_t n_items);
edgellm_status el_step_run(el_engine *e, int32_t budget_ms);
edgellm_status el_step_logits(const el_engine *e, int32_t item, const float **logits, int32_t *rows);
edgellm_status el_step_embeddings(const el_engine *e, int32_t item, const float **values, int32_t *rows,
                                  int32_t *width);
edgellm_status el_step_sampled(const el_engine *e, int32_t item, edgellm_sampled *out);
/* Starts collecting anew, or stops. */
edgellm_status el_engine_collect(el_engine *e, bool on);
void el_step_abandon(el_engine *e); /* forgets a step that has not finished */

/* generate.c */
edgellm_status el_generate_start(el_engine *e, el_seq *s, const edgellm_sampling *sampling, const int32_t *history,
                                 size_t n_history);
edgellm_status el_generate_choose(el_engine *e, el_seq *s, const float *logits, edgellm_sampled *out);
void el_generate_clear(el_seq *s);

#endif
