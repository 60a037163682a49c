/* step.c - one step: check, reserve cache, fill the graph's inputs, compute in slices, sample.
 * A step computes in slices of whole layers so that the caller gets the thread back every few tens of milliseconds (to
 * see Ctrl-C, say) without losing work: edgellm_step_run returns AGAIN in between. Cancelling takes effect within one
 * graph node. Until a step has finished, no sequence has changed. */
#include "engine.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "ggml-impl.h" /* ggml_graph_view: a slice of a graph */
#include "ggml.h"

/* Multiplications in one slice: about 10 ms on two slow cores, so small steps run in one go. */
#define SLICE_WORK 1.0e8

/* ---- begin -------------------------------------------------------------------------------- */

static edgellm_status check_tokens(const el_engine *e, const edgellm_item *item)
{
    for (int32_t i = 0; i < item->n_tokens; i++)
        if (item->tokens[i] < 0 || item->tokens[i] >= e->model->hp.n_vocab)
            return el_fail(EDGELLM_EINVAL, "token %d is outside the vocabulary of %d", item->tokens[i],
                           e->model->hp.n_vocab);
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

/* Makes room for every item; on failure gives back what it took. */
static edgellm_status reserve(el_engine *e, const edgellm_item *items, int32_t n_items)
{
    edgellm_status status = EDGELLM_OK;

    for (int32_t i = 0; i < n_items; i++) {
        el_seq *s = &e->seqs[items[i].seq];
        status = el_blocks_grow(&e->blocks, &s->blocks, s->length + items[i].n_tokens);
        if (status != EDGELLM_OK) {
            for (int32_t j = 0; j < i; j++)
                el_blocks_shrink(&e->blocks, &e->seqs[items[j].seq].blocks, e->seqs[items[j].seq].length);
            break;
        }
    }
    return status;
}

static void lay_out_rows(el_step *step, const edgellm_item *items, int32_t n_items)
{
    step->n_items = n_items;
    step->n_rows = step->n_out = 0;
    for (int32_t i = 0; i < n_items; i++) {
        el_step_item *it = &step->items[i];
        *it = (el_step_item){.seq = items[i].seq, .n_tokens = items[i].n_tokens, .sample = items[i].sample != 0};
        it->first_row = step->n_rows;
        it->first_out = step->n_out;
        it->n_out = items[i].outputs == EDGELLM_OUT_ALL ? items[i].n_tokens : 0;
        if (it->n_out == 0 && (it->sample || items[i].outputs == EDGELLM_OUT_LAST))
            it->n_out = 1;
        step->n_rows += it->n_tokens;
        step->n_out += it->n_out;
    }
}

/* One row of a mask: 0 for the slots of the sequence's positions first .. position, -infinity for all others. */
static void fill_mask_row(ggml_fp16_t *row, int32_t n_kv, const el_block_table *blocks, int32_t first, int32_t position)
{
    const ggml_fp16_t hidden = 0xFC00; /* -infinity */

    for (int32_t i = 0; i < n_kv; i++)
        row[i] = hidden;
    for (int32_t at = first; at <= position; at++)
        row[el_block_slot(blocks, at)] = 0;
}

static void fill_inputs(el_engine *e, const edgellm_item *items)
{
    const el_graph *g = &e->step.plan->graph;
    const el_graph_inputs *in = &g->in;
    const int32_t n_kv = g->shape.n_kv;
    const int32_t window = e->model->hp.window;
    int32_t *tokens = in->tokens->data, *positions = in->positions->data;
    int64_t *slots = in->slots->data;
    int32_t row = 0;

    for (int32_t i = 0; i < e->step.n_items; i++) {
        const el_step_item *it = &e->step.items[i];
        const el_seq *s = &e->seqs[it->seq];
        for (int32_t t = 0; t < it->n_tokens; t++, row++) {
            const int32_t position = s->length + t;
            tokens[row] = items[i].tokens[t];
            positions[row] = position;
            slots[row] = el_block_slot(&s->blocks, position);
            fill_mask_row((ggml_fp16_t *)in->mask->data + (size_t)row * (size_t)n_kv, n_kv, &s->blocks, 0, position);
            if (in->mask_sliding)
                fill_mask_row((ggml_fp16_t *)in->mask_sliding->data + (size_t)row * (size_t)n_kv, n_kv, &s->blocks,
                              EL_MAX(0, position - window + 1), position);
            if (in->attn_temp)
                ((float *)in->attn_temp->data)[row] = el_graph_attn_temperature(&e->model->hp, position);
        }
        for (int32_t k = 0; k < it->n_out; k++)
            ((int32_t *)in->outputs->data)[it->first_out + k] = row - it->n_out + k;
    }
}

edgellm_status el_step_begin(el_engine *e, const edgellm_item *items, int32_t n_items)
{
    edgellm_status status = EDGELLM_OK;
    el_graph_shape shape;

    el_step_abandon(e);
    EL_TRY(check_items(e, items, n_items));
    EL_TRY(reserve(e, items, n_items));
    lay_out_rows(&e->step, items, n_items);
    shape = (el_graph_shape){.n_rows = e->step.n_rows, .n_out = e->step.n_out};
    shape.n_kv = el_plan_round_slots(el_blocks_used_slots(&e->blocks), e->blocks.n_blocks * EL_BLOCK_TOKENS);
    e->step.state = EL_STEP_RUNNING; /* from here on el_step_abandon gives the blocks back */
    e->step.next_layer = e->step.next_node = 0;
    status = el_plans_get(&e->plans, shape, &e->step.plan);
    if (status != EDGELLM_OK)
        el_step_abandon(e);
    else
        fill_inputs(e, items);
done:
    return status;
}

void el_step_abandon(el_engine *e)
{
    if (e->step.state == EL_STEP_RUNNING)
        for (int32_t i = 0; i < e->step.n_items; i++) {
            el_seq *s = &e->seqs[e->step.items[i].seq];
            el_blocks_shrink(&e->blocks, &s->blocks, s->length);
        }
    e->step.state = EL_STEP_NONE;
}

/* ---- run ---------------------------------------------------------------------------------- */

static double now_ms(void)
{
    struct timespec t;

    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static bool cancelled(void *data) { return atomic_load_explicit(&((el_engine *)data)->cancel, memory_order_relaxed); }

/* Computes nodes first .. end - 1 of the plan's graph. */
static edgellm_status compute_nodes(el_engine *e, int32_t first, int32_t end)
{
    struct ggml_cgraph *all = e->step.plan->graph.nodes;
    struct ggml_cgraph slice = ggml_graph_view(all, first, end);
    struct ggml_cplan plan = e->cpu->graph_plan(&slice, e->n_threads, e->threads);
    enum ggml_status result;

    if (plan.work_size > e->work_bytes) {
        el_free(e->work);
        e->work_bytes = 0;
        e->work = el_alloc(plan.work_size, 1);
        if (!e->work)
            return el_no_memory(plan.work_size);
        e->work_bytes = plan.work_size;
    }
    plan.work_data = e->work;
    plan.abort_callback = cancelled;
    plan.abort_callback_data = e;
    result = e->cpu->graph_compute(&slice, &plan);
    if (result == GGML_STATUS_ABORTED || cancelled(e))
        return el_fail(EDGELLM_ECANCELLED, "cancelled");
    if (result != GGML_STATUS_SUCCESS)
        return el_fail(EDGELLM_ENOMEM, "out of memory while computing a step of %d tokens", e->step.n_rows);
    return EDGELLM_OK;
}

/* How many layers make up one slice of this step. */
static int32_t layers_per_slice(const el_engine *e)
{
    const el_hparams *hp = &e->model->hp;
    const double layer_work = (double)e->model->n_params / hp->n_layer * e->step.n_rows;

    return layer_work > SLICE_WORK ? 1 : (int32_t)EL_MIN(SLICE_WORK / layer_work, (double)hp->n_layer);
}

static edgellm_status check_finite(const el_engine *e)
{
    const float *logits = e->step.plan->graph.logits->data;
    const size_t n_vocab = (size_t)e->model->hp.n_vocab;

    for (int32_t row = 0; row < e->step.n_out; row++) {
        float sum = 0; /* x - x is 0 for every finite x and NaN for others */
        for (size_t i = 0; i < n_vocab; i++)
            sum += logits[(size_t)row * n_vocab + i] - logits[(size_t)row * n_vocab + i];
        if (sum != 0 || sum != sum)
            return el_fail(EDGELLM_ENUMERIC,
                           "the model produced NaN or infinity; its weights may be damaged (check the file's hash)");
    }
    return EDGELLM_OK;
}

static edgellm_status finish(el_engine *e)
{
    edgellm_status status = EDGELLM_OK;
    const size_t n_vocab = (size_t)e->model->hp.n_vocab;

    if (e->step.n_out > 0)
        EL_TRY(check_finite(e));
    for (int32_t i = 0; i < e->step.n_items; i++) {
        el_step_item *it = &e->step.items[i];
        const float *last;
        if (!it->sample)
            continue;
        last = (const float *)e->step.plan->graph.logits->data + (size_t)(it->first_out + it->n_out - 1) * n_vocab;
        EL_TRY(el_generate_choose(e, &e->seqs[it->seq], last, &it->sampled));
        if (it->sampled.finish == EDGELLM_FINISH_NONE && e->seqs[it->seq].length + it->n_tokens >= e->n_ctx)
            it->sampled.finish = EDGELLM_FINISH_LENGTH; /* the chosen token itself would not fit any more */
    }
    for (int32_t i = 0; i < e->step.n_items; i++)
        e->seqs[e->step.items[i].seq].length += e->step.items[i].n_tokens;
    e->step.state = EL_STEP_DONE;
done:
    return status;
}

edgellm_status el_step_run(el_engine *e, int32_t budget_ms)
{
    const int32_t n_layer = e->model->hp.n_layer;
    const double deadline = now_ms() + budget_ms;
    edgellm_status status = EDGELLM_OK;

    if (e->step.state != EL_STEP_RUNNING)
        return el_fail(EDGELLM_EINVAL, "no step has begun");
    EL_TRY(el_gguf_check_unchanged(e->model->file));
    if (atomic_load(&e->cancel)) {
        status = el_fail(EDGELLM_ECANCELLED, "cancelled");
        goto done;
    }
    while (e->step.next_layer < n_layer) {
        const int32_t last = EL_MIN(e->step.next_layer + layers_per_slice(e), n_layer) - 1;
        const el_plan *plan = e->step.plan;
        const int32_t end = last == n_layer - 1 ? ggml_graph_n_nodes(plan->graph.nodes) : plan->layer_end[last];
        EL_TRY(compute_nodes(e, e->step.next_node, end));
        e->step.next_layer = last + 1;
        e->step.next_node = end;
        if (budget_ms > 0 && e->step.next_layer < n_layer && now_ms() >= deadline)
            return EDGELLM_AGAIN;
    }
    EL_TRY(finish(e));
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

edgellm_status el_step_logits(const el_engine *e, int32_t item, const float **logits, int32_t *rows)
{
    const el_step_item *it;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(result_of(e, item, &it));
    if (it->n_out == 0)
        return el_fail(EDGELLM_EINVAL, "item %d asked for no logits", item);
    *logits = (const float *)e->step.plan->graph.logits->data + (size_t)it->first_out * (size_t)e->model->hp.n_vocab;
    *rows = it->n_out;
done:
    return status;
}

edgellm_status el_step_sampled(const el_engine *e, int32_t item, edgellm_sampled *out)
{
    const el_step_item *it;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(result_of(e, item, &it));
    if (!it->sample)
        return el_fail(EDGELLM_EINVAL, "item %d did not sample", item);
    *out = it->sampled;
done:
    return status;
}
