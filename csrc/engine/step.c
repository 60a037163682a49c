/* step.c - one step: check, reserve cache, fill the graph's inputs, compute, sample.
 * Computing pauses between regions when its time is up, so that the caller gets the thread back (to
 * see Ctrl-C, say) without losing work: edgellm_step_run returns AGAIN in between. Cancelling takes effect within one
 * region. Until a step has finished, no sequence has changed. */
#include "engine.h"

#include <string.h>

#include "ggml.h"
#include "workers.h"

enum {
    ALTERNATE_ROWS = 16
}; /* steps up to this size alternate between two plans, so that none waits for a straggler */

/* ---- begin -------------------------------------------------------------------------------- */

static edgellm_status check_tokens(const el_engine *e, const edgellm_item *item)
{
    for (int32_t i = 0; i < item->n_tokens; i++)
        if (item->tokens[i] < 0 || item->tokens[i] >= e->model->hp.n_vocab)
            return el_fail(EDGELLM_EINVAL, "token %d is outside the vocabulary of %d", item->tokens[i],
                           e->model->hp.n_vocab);
    return EDGELLM_OK;
}

static bool averages(const el_engine *e)
{
    return e->graph.embeddings && (e->graph.pooling == EDGELLM_POOLING_MEAN ||
                                   (e->graph.pooling == EDGELLM_POOLING_RANK && e->model->hp.rank_of_mean));
}

static bool reads_at_once(const el_engine *e) { return !e->model->hp.causal || averages(e); }

/* How many of an item's rows are kept to the end. */
static int32_t rows_kept(const el_engine *e, const edgellm_item *item)
{
    if (!e->graph.embeddings)
        return item->outputs == EDGELLM_OUT_ALL                    ? item->n_tokens
               : item->sample || item->outputs == EDGELLM_OUT_LAST ? 1
                                                                   : 0;
    if (e->graph.pooling == EDGELLM_POOLING_NONE)
        return item->outputs == EDGELLM_OUT_ALL ? item->n_tokens : 1;
    return averages(e) ? item->n_tokens : 1;
}

/* Encoder-decoder models: first the source text, then the rest. */
static edgellm_status check_source(const el_engine *e, const el_seq *s, const edgellm_item *item, bool encode)
{
    const bool has_encoder = e->model->hp.n_encoder > 0 && e->model->hp.causal;

    if (item->encode && !has_encoder)
        return el_fail(EDGELLM_EINVAL, "a %s model has no encoder beside its decoder", e->model->arch->name);
    if ((item->encode != 0) != encode)
        return el_fail(EDGELLM_EINVAL, "a step has either source texts or other tokens, not both");
    if (item->encode && (s->n_source > 0 || s->length > 0))
        return el_fail(EDGELLM_EINVAL, "sequence %d has its source text already: close it and open a new one",
                       item->seq);
    if (item->encode && (item->sample || item->outputs != EDGELLM_OUT_NONE))
        return el_fail(EDGELLM_EINVAL, "a source text has no outputs");
    if (has_encoder && !item->encode && s->n_source == 0)
        return el_fail(EDGELLM_EINVAL,
                       "a %s model answers a source text, and sequence %d has none yet: give it with encode = 1",
                       e->model->arch->name, item->seq);
    return EDGELLM_OK;
}

static edgellm_status check_items(el_engine *e, const edgellm_item *items, int32_t n_items)
{
    int64_t n_rows = 0;
    edgellm_status status = EDGELLM_OK;

    if (n_items < 1 || n_items > e->n_seqs)
        return el_fail(EDGELLM_EINVAL, "a step takes 1 to %d sequences, not %d", e->n_seqs, n_items);
    for (int32_t i = 0; i < n_items; i++) {
        const edgellm_item *item = &items[i];
        el_seq *s;
        EL_TRY(el_engine_seq(e, item->seq, &s));
        for (int32_t j = 0; j < i; j++)
            if (items[j].seq == item->seq)
                return el_fail(EDGELLM_EINVAL, "sequence %d appears twice in one step", item->seq);
        if (item->n_tokens < 1 || !item->tokens)
            return el_fail(EDGELLM_EINVAL, "sequence %d has no tokens in this step", item->seq);
        if (item->outputs < EDGELLM_OUT_NONE || item->outputs > EDGELLM_OUT_ALL)
            return el_fail(EDGELLM_EINVAL, "outputs is %d; it must be 0, 1 or 2", item->outputs);
        if (item->type_from < 0)
            return el_fail(EDGELLM_EINVAL, "type_from is %d; it must be a position, or 0", item->type_from);
        if (e->graph.embeddings && (item->sample || item->outputs == EDGELLM_OUT_NONE))
            return el_fail(EDGELLM_EINVAL,
                           "an engine for embeddings does not sample, and every item wants its outputs");
        if (s->length > 0 && reads_at_once(e))
            return el_fail(EDGELLM_EINVAL,
                           "sequence %d has %d tokens already; this model and pooling read a text in "
                           "one step: close it and open a new one",
                           item->seq, s->length);
        EL_TRY(check_source(e, s, item, items[0].encode != 0));
        if (item->sample && !s->sampler)
            return el_fail(EDGELLM_EINVAL, "sequence %d samples before edgellm_seq_sample", item->seq);
        n_rows += item->n_tokens;
        if (n_rows > e->n_batch)
            return el_fail(EDGELLM_EINVAL, "a step takes at most %d tokens in all (n_batch)", e->n_batch);
        if (item->n_tokens > e->n_ctx - s->length)
            return el_fail(EDGELLM_ECONTEXT, "%d tokens do not fit a context of %d; shorten the text or raise n_ctx",
                           s->length + item->n_tokens, e->n_ctx);
        EL_TRY(check_tokens(e, item));
    }
done:
    return status;
}

static el_block_table *table_of(el_engine *e, int32_t seq, bool encode)
{
    return encode ? &e->seqs[seq].source : &e->seqs[seq].blocks;
}

/* Makes room for n_tokens positions; checkpoints give way to them. */
static edgellm_status grow(el_engine *e, int32_t seq, bool encode, int32_t n_tokens)
{
    edgellm_status status = el_blocks_grow(&e->blocks, table_of(e, seq, encode), n_tokens);

    if (status != EDGELLM_OK || e->sliding.n_blocks == 0)
        return status;
    do
        status = el_blocks_grow(&e->sliding, &e->seqs[seq].sliding, n_tokens);
    while (status == EDGELLM_EFULL && el_checkpoints_drop_oldest(e));
    return status;
}

static void shrink(el_engine *e, int32_t seq, bool encode)
{
    el_seq *s = &e->seqs[seq];

    el_blocks_shrink(&e->blocks, table_of(e, seq, encode), s->length);
    el_blocks_shrink(&e->sliding, &s->sliding, s->length);
}

/* Makes room for every item; on failure gives back what it took. */
static edgellm_status reserve(el_engine *e, const edgellm_item *items, int32_t n_items)
{
    edgellm_status status = EDGELLM_OK;

    for (int32_t i = 0; i < n_items; i++) {
        const el_seq *s = &e->seqs[items[i].seq];
        status = grow(e, items[i].seq, items[i].encode, s->length + items[i].n_tokens);
        if (status != EDGELLM_OK) {
            for (int32_t j = 0; j <= i; j++)
                shrink(e, items[j].seq, items[j].encode);
            break;
        }
    }
    return status;
}

static void lay_out_rows(const el_engine *e, el_step *step, const edgellm_item *items, int32_t n_items)
{
    step->n_items = n_items;
    step->encode = items[0].encode != 0;
    step->n_rows = step->n_out = 0;
    for (int32_t i = 0; i < n_items; i++) {
        el_step_item *it = &step->items[i];
        *it = (el_step_item){.seq = items[i].seq, .n_tokens = items[i].n_tokens, .sample = items[i].sample != 0};
        it->first_row = step->n_rows;
        it->first_out = step->n_out;
        it->n_out = rows_kept(e, &items[i]);
        it->first_result = averages(e) ? i : it->first_out;
        it->n_results = averages(e) ? 1 : it->n_out;
        step->n_rows += it->n_tokens;
        step->n_out += it->n_out;
    }
}

/* One row of a mask: -infinity for all but the slots of the sequence's positions first .. end - 1; those 0 or, with
 * ALiBi, minus their distance, which attention multiplies with each head's slope. */
static void fill_mask_row(const struct ggml_tensor *mask, int32_t row, const el_block_table *blocks, int32_t first,
                          int32_t end, int32_t position, bool alibi)
{
    const ggml_fp16_t hidden = 0xFC00; /* -infinity */
    ggml_fp16_t *to = (ggml_fp16_t *)mask->data + row * mask->ne[0];

    for (int64_t i = 0; i < mask->ne[0]; i++)
        to[i] = hidden;
    for (int32_t at = first; at < end; at++) {
        const int32_t distance = at < position ? position - at : at - position;
        to[el_block_slot(blocks, at)] = alibi ? ggml_fp32_to_fp16(-(float)distance) : 0;
    }
}

/* What one row may see, for one kind of layer. Inputs that nothing reads have no data. */
static void fill_visible(const el_engine *e, int32_t item, int32_t row, int32_t position, bool sliding)
{
    const el_graph_inputs *in = &e->step.plan->graph.in;
    const struct ggml_tensor *ranges = sliding ? in->ranges_sliding : in->ranges;
    const struct ggml_tensor *mask = sliding ? in->mask_sliding : in->mask;
    const el_hparams *hp = &e->model->hp;
    const el_seq *s = &e->seqs[e->step.items[item].seq];
    const bool causal = hp->causal && !e->step.encode;
    int32_t end;
    const int32_t first =
        el_graph_first_visible(hp, causal, sliding, position, s->length + e->step.items[item].n_tokens, &end);
    const int32_t range[4] = {first, end, item, position};

    if (ranges && ranges->data)
        memcpy((int32_t *)ranges->data + 4 * row, range, sizeof range);
    if (mask && mask->data)
        fill_mask_row(mask, row, sliding ? el_sliding_blocks(e, s) : &s->blocks, first, end, position,
                      hp->alibi_max_bias != 0);
}

static void fill_row(el_engine *e, int32_t item, int32_t row, int32_t token, int32_t position)
{
    const el_graph_inputs *in = &e->step.plan->graph.in;
    const el_hparams *hp = &e->model->hp;
    const el_block_table *blocks = table_of(e, e->step.items[item].seq, e->step.encode);

    ((int32_t *)in->tokens->data)[row] = token;
    if (in->positions->data) /* a family without rope or a table of positions asks for none; one without cache: */
        ((int32_t *)in->positions->data)[row] = position;
    if (in->slots->data)
        ((int64_t *)in->slots->data)[row] = el_block_slot(blocks, position);
    if (in->slots_sliding && in->slots_sliding->data)
        ((int64_t *)in->slots_sliding->data)[row] =
            el_block_slot(el_sliding_blocks(e, &e->seqs[e->step.items[item].seq]), position);
    fill_visible(e, item, row, position, false);
    fill_visible(e, item, row, position, true);
    if (in->source_ranges && in->source_ranges->data) {
        const int32_t range[4] = {0, e->seqs[e->step.items[item].seq].n_source, item, 0};
        memcpy((int32_t *)in->source_ranges->data + 4 * row, range, sizeof range);
    }
    if (in->attn_temp && in->attn_temp->data)
        ((float *)in->attn_temp->data)[row] = el_graph_attn_temperature(hp, position);
}

static void fill_table(const struct ggml_tensor *tables, int32_t item, const el_block_table *blocks)
{
    if (tables && tables->data)
        memcpy((int32_t *)tables->data + item * tables->ne[0], blocks->ids, (size_t)blocks->n * sizeof(int32_t));
}

/* A classifier reads the first row where all rows see the whole text, else the last. */
static bool takes_first(const el_engine *e)
{
    return e->graph.embeddings && (e->graph.pooling == EDGELLM_POOLING_CLS ||
                                   (e->graph.pooling == EDGELLM_POOLING_RANK && !e->model->hp.causal));
}

static void fill_type(const el_graph_inputs *in, int32_t row, int32_t position, int32_t type_from)
{
    if (in->types && in->types->data)
        ((int32_t *)in->types->data)[row] = type_from > 0 && position >= type_from;
}

static void fill_inputs(el_engine *e, const edgellm_item *items)
{
    const el_graph_inputs *in = &e->step.plan->graph.in;
    int32_t row = 0;

    for (int32_t i = 0; i < e->step.n_items; i++) {
        const el_step_item *it = &e->step.items[i];
        const el_seq *s = &e->seqs[it->seq];
        fill_table(in->tables, i, e->step.encode ? &s->source : &s->blocks);
        fill_table(in->tables_sliding, i, el_sliding_blocks(e, s));
        fill_table(in->source_tables, i, &s->source);
        if (in->runs && in->runs->data) {
            const int32_t run[4] = {row, it->n_tokens, s->length > 0 ? el_state_slot(it->seq, s->state) : -1,
                                    el_state_slot(it->seq, !s->state)};
            memcpy((int32_t *)in->runs->data + 4 * i, run, sizeof run);
        }
        for (int32_t t = 0; t < it->n_tokens; t++, row++) {
            fill_row(e, i, row, items[i].tokens[t], s->length + t);
            fill_type(in, row, s->length + t, items[i].type_from);
        }
        for (int32_t k = 0; k < it->n_out; k++)
            ((int32_t *)in->outputs->data)[it->first_out + k] = (takes_first(e) ? it->first_row : row - it->n_out) + k;
    }
}

edgellm_status el_step_begin(el_engine *e, const edgellm_item *items, int32_t n_items)
{
    edgellm_status status = EDGELLM_OK;
    el_graph_shape shape;

    el_step_abandon(e);
    EL_TRY(check_items(e, items, n_items));
    EL_TRY(reserve(e, items, n_items));
    lay_out_rows(e, &e->step, items, n_items);
    shape = (el_graph_shape){.n_rows = e->step.n_rows, .n_out = e->step.n_out, .n_seqs = n_items};
    shape.encode = e->step.encode;
    if (shape.n_rows <= ALTERNATE_ROWS && el_cpu_own_backend())
        shape.instance = e->step.parity ^= 1;
    shape.n_kv = el_plan_round_slots(el_blocks_used_slots(&e->blocks), e->blocks.n_blocks * EL_BLOCK_TOKENS);
    if (e->model->hp.window > 0)
        shape.n_kv_sliding = e->sliding.n_blocks == 0 ? shape.n_kv
                                                      : el_plan_round_slots(el_blocks_used_slots(&e->sliding),
                                                                            e->sliding.n_blocks * EL_BLOCK_TOKENS);
    e->step.state = EL_STEP_RUNNING; /* from here on el_step_abandon gives the blocks back */
    status = el_plans_get(&e->plans, shape, &e->step.plan);
    if (status == EDGELLM_OK) {
        el_cpu_plan_begin(e->step.plan->cpu);
        fill_inputs(e, items);
    } else {
        el_step_abandon(e);
    }
done:
    return status;
}

void el_step_abandon(el_engine *e)
{
    if (e->step.state == EL_STEP_RUNNING) {
        el_workers_quiesce(); /* none may still write to the blocks that are given back */
        for (int32_t i = 0; i < e->step.n_items; i++)
            shrink(e, e->step.items[i].seq, e->step.encode);
    }
    e->step.state = EL_STEP_NONE;
}

/* ---- run ---------------------------------------------------------------------------------- */

/* Windows have moved: blocks that no later position sees are given back. */
static void slide(el_engine *e)
{
    bool quiet = false;

    for (int32_t i = 0; i < e->step.n_items && e->sliding.n_blocks > 0; i++) {
        el_seq *s = &e->seqs[e->step.items[i].seq];
        const int32_t first = el_window_start(e, s->length) - EL_WINDOW_SLACK;
        if (first / EL_BLOCK_TOKENS <= s->sliding.first)
            continue;
        if (!quiet)
            el_workers_quiesce(); /* one that was late may still write this step's rows */
        quiet = true;
        el_blocks_slide(&e->sliding, &s->sliding, first);
    }
}

static edgellm_status finish(el_engine *e)
{
    edgellm_status status = EDGELLM_OK;
    const struct ggml_tensor *result = e->step.plan->graph.result;

    if (e->step.n_out > 0 && !el_cpu_plan_finite(e->step.plan->cpu, result))
        return el_fail(EDGELLM_ENUMERIC,
                       "the model produced NaN or infinity; its weights may be damaged (check the file's hash)");
    for (int32_t i = 0; i < e->step.n_items; i++) {
        el_step_item *it = &e->step.items[i];
        const float *last;
        if (!it->sample)
            continue;
        last = (const float *)result->data + (it->first_out + it->n_out - 1) * result->ne[0];
        EL_TRY(el_generate_choose(e, &e->seqs[it->seq], last, &it->sampled));
        if (it->sampled.finish == EDGELLM_FINISH_NONE && e->seqs[it->seq].length + it->n_tokens >= e->n_ctx)
            it->sampled.finish = EDGELLM_FINISH_LENGTH; /* the chosen token itself would not fit any more */
        if (it->sampled.finish == EDGELLM_FINISH_EOG || it->sampled.finish == EDGELLM_FINISH_LENGTH)
            EL_TRY(el_text_stream_finish(e->seqs[it->seq].text)); /* what a stop string might have used is ready now */
    }
    for (int32_t i = 0; i < e->step.n_items; i++) {
        el_seq *s = &e->seqs[e->step.items[i].seq];
        if (e->step.encode) {
            s->n_source = e->step.items[i].n_tokens;
            continue;
        }
        s->length += e->step.items[i].n_tokens;
        s->state ^= 1;
    }
    slide(e);
    e->step.state = EL_STEP_DONE;
done:
    return status;
}

edgellm_status el_step_run(el_engine *e, int32_t budget_ms)
{
    edgellm_status status = EDGELLM_OK;

    if (e->step.state != EL_STEP_RUNNING)
        return el_fail(EDGELLM_EINVAL, "no step has begun");
    EL_TRY(el_gguf_check_unchanged(e->model->file));
    if (atomic_load(&e->cancel)) {
        status = el_fail(EDGELLM_ECANCELLED, "cancelled");
        goto done;
    }
    status = el_cpu_plan_run(e->step.plan->cpu, budget_ms, &e->cancel);
    if (status == EDGELLM_AGAIN)
        return status;
    if (status == EDGELLM_OK)
        status = finish(e);
done:
    if (status != EDGELLM_OK) {
        el_step_abandon(e);
        atomic_store(&e->cancel, false);
    }
    return status;
}

/* ---- results ------------------------------------------------------------------------------ */

static edgellm_status result_of(const el_engine *e, int32_t item, const el_step_item **out)
{
    if (e->step.state != EL_STEP_DONE)
        return el_fail(EDGELLM_EINVAL, "no step has finished since the last change");
    if (item < 0 || item >= e->step.n_items)
        return el_fail(EDGELLM_EINVAL, "item %d is not one of the %d of the last step", item, e->step.n_items);
    *out = &e->step.items[item];
    return EDGELLM_OK;
}

edgellm_status el_step_embeddings(const el_engine *e, int32_t item, const float **values, int32_t *rows, int32_t *width)
{
    const struct ggml_tensor *result;
    const el_step_item *it = NULL;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(result_of(e, item, &it));
    if (!e->graph.embeddings)
        return el_fail(EDGELLM_EINVAL, "this engine computes logits; make one with embeddings = 1");
    result = e->step.plan->graph.result;
    *values = (const float *)result->data + it->first_result * result->ne[0];
    *rows = it->n_results;
    *width = (int32_t)result->ne[0];
done:
    return status;
}

edgellm_status el_step_logits(const el_engine *e, int32_t item, const float **logits, int32_t *rows)
{
    const el_step_item *it = NULL;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(result_of(e, item, &it));
    if (e->graph.embeddings)
        return el_fail(EDGELLM_EINVAL, "this engine computes embeddings, not logits");
    if (it->n_out == 0)
        return el_fail(EDGELLM_EINVAL, "item %d asked for no logits", item);
    *logits = (const float *)e->step.plan->graph.result->data + (size_t)it->first_out * (size_t)e->model->hp.n_vocab;
    *rows = it->n_out;
done:
    return status;
}

edgellm_status el_step_sampled(const el_engine *e, int32_t item, edgellm_sampled *out)
{
    const el_step_item *it = NULL;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(result_of(e, item, &it));
    if (!it->sample)
        return el_fail(EDGELLM_EINVAL, "item %d did not sample", item);
    *out = it->sampled;
done:
    return status;
}
