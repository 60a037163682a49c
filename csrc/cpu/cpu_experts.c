/* cpu_experts.c - mixture of experts: the choice of each row, the products of each chosen expert over the rows that
 * chose it, and their weighted sum in order of rank. A row's result depends on that row alone: rows are grouped so
 * that an expert's weights are read once for all its rows, and grouping changes no sum. */
#include <math.h>
#include <string.h>

#include "cpu_internal.h"

static float *float_row(const struct ggml_tensor *t, int64_t i, int64_t width) { return (float *)t->data + i * width; }

static void probabilities(const el_kernels *k, el_gating gating, float *y, const float *logits, int64_t n)
{
    if (gating == EL_GATE_SOFTMAX)
        k->softmax(y, logits, n);
    else if (gating == EL_GATE_SIGMOID)
        k->map(EL_MAP_SIGMOID, y, logits, NULL, n, NULL);
    else if (gating == EL_GATE_NONE)
        memcpy(y, logits, (size_t)n * sizeof *y);
    else
        k->map(EL_MAP_SOFTPLUS, y, logits, NULL, n, NULL);
    if (gating == EL_GATE_SQRT_SOFTPLUS)
        k->map(EL_MAP_SQRT, y, y, NULL, n, NULL);
}

/* The best n_used experts and their weights. probs, score: room for all experts. */
static void choose(const el_experts_job *job, int64_t r, float *probs, float *score)
{
    const el_kernels *k = job->plan->kernels;
    const int32_t n = job->grouping.n_expert, n_used = job->grouping.n_used;
    float best[EL_MAX_USED_EXPERTS], sum = 0;
    int32_t ids[EL_MAX_USED_EXPERTS]; /* the search moves them about; others must not see that */

    probabilities(k, job->gating, probs, float_row(job->logits, r, n), n);
    if (job->choice_bias)
        k->add(score, probs, job->choice_bias->data, n);
    k->top_k(ids, best, n_used, job->choice_bias ? score : probs, n);
    for (int32_t i = 0; i < n_used; i++)
        best[i] = probs[ids[i]];
    if (job->softmax_chosen)
        k->softmax(best, best, n_used);
    for (int32_t i = 0; i < n_used; i++)
        sum += best[i];
    if (!(sum >= job->min_sum) && sum == sum)
        sum = job->min_sum;
    for (int32_t i = 0; i < n_used; i++)
        best[i] = (job->normalise ? best[i] / sum : best[i]) * job->factor;
    memcpy((int32_t *)job->grouping.ids->data + r * n, ids, (size_t)n_used * sizeof *ids);
    memcpy(float_row(job->weights, r, n_used), best, (size_t)n_used * sizeof *best);
}

void el_choose_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_experts_job *job = job_;
    const el_worker_scratch *s = &job->plan->scratch[worker];
    const int64_t first = (int64_t)chunk * EL_ROWS_PER_CHUNK,
                  end = EL_MIN(first + EL_ROWS_PER_CHUNK, job->grouping.n_rows);

    for (int64_t r = first; r < end; r++) {
        choose(job, r, s->tile, s->tile2);
        el_row_program_run(job->plan->kernels, &job->input, r, s->row, true);
        el_act_from_row(job->plan, &job->format, (char *)job->act->data + (size_t)r * job->format.stride, s->row,
                        job->input.width);
    }
}

/* ---- which entries belong to which expert ------------------------------------------------- */

size_t el_grouping_ints(const el_grouping *g)
{
    return (size_t)(2 + 2 * g->n_slots + 2 * g->n_rows * g->n_used + g->n_expert);
}

static int32_t expert_of(const el_grouping *g, int64_t entry)
{
    return ((const int32_t *)(const void *)((const char *)g->ids->data +
                                            (size_t)(entry / g->n_used) * g->ids->nb[1]))[entry % g->n_used];
}

/* In scratch: n, experts, starts, entries, places, and one counter per expert. */
el_groups el_group_entries(const el_grouping *g, el_worker_scratch *s, uint64_t tag)
{
    const int64_t n_entries = g->n_rows * g->n_used;
    int32_t *experts = s->groups + 1, *starts = experts + g->n_slots, *entries = starts + g->n_slots + 1;
    int32_t *places = entries + n_entries, *counts = places + n_entries;

    if (s->group_tag != tag) {
        int32_t n = 0, total = 0;
        memset(counts, 0, (size_t)g->n_expert * sizeof *counts);
        for (int64_t i = 0; i < n_entries; i++)
            counts[expert_of(g, i)]++;
        for (int32_t e = 0; e < g->n_expert; e++) {
            const int32_t count = counts[e];
            counts[e] = total;
            if (count == 0)
                continue;
            experts[n] = e;
            starts[n++] = total;
            total += count;
        }
        starts[n] = total;
        for (int64_t i = 0; i < n_entries; i++) {
            const int32_t at = counts[expert_of(g, i)]++;
            entries[at] = (int32_t)i;
            places[i] = at;
        }
        s->groups[0] = n;
        s->group_tag = tag;
    }
    return (el_groups){s->groups[0], experts, starts, entries, places};
}

/* ---- products ----------------------------------------------------------------------------- */

/* Quantized rows first .. first + n - 1 of a list, one after another: where they are, or copied to `to`. per_row: how
 * many entries share a row of act. */
static const char *gather(const char *act, size_t stride, const int32_t *entries, int64_t n, int32_t per_row, char *to)
{
    if (n == 1)
        return act + (size_t)(entries[0] / per_row) * stride;
    for (int64_t i = 0; i < n; i++)
        memcpy(to + (size_t)i * stride, act + (size_t)(entries[i] / per_row) * stride, stride);
    return to;
}

static const char *expert_rows(const struct ggml_tensor *w, int32_t expert, int64_t first)
{
    return (const char *)w->data + (size_t)expert * w->nb[2] + (size_t)first * w->nb[1];
}

/* A product of one expert with m rows of act: outputs o0 .. o0 + n - 1, with its bias if there is one. */
static void product(const el_experts_job *job, const el_act_format *format, const struct ggml_tensor *w,
                    const struct ggml_tensor *bias, int32_t expert, int64_t o0, int64_t n, const char *act, int64_t m,
                    float *y, void *scratch)
{
    el_multiply(job->plan, format, y, n, w, expert_rows(w, expert, o0), n, act, m, scratch);
    for (int64_t j = 0; bias && j < m; j++)
        job->plan->kernels->add(y + j * n, y + j * n, float_row(bias, expert, w->ne[1]) + o0, n);
}

void el_experts_up_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_experts_job *job = job_;
    el_worker_scratch *s = &job->plan->scratch[worker];
    const el_kernels *k = job->plan->kernels;
    const el_groups g = el_group_entries(&job->grouping, s, el_cpu_tag(job->plan, job));
    const int32_t slot = chunk / job->up_chunks;
    const int64_t n_ff = job->up->ne[1], o0 = chunk % job->up_chunks * job->up_per_chunk;
    const int64_t n = EL_MIN(job->up_per_chunk, n_ff - o0);

    if (slot >= g.n)
        return;
    s->tag = 0; /* rows prepared for an earlier region are overwritten */
    for (int32_t i = g.starts[slot]; i < g.starts[slot + 1]; i += (int32_t)job->entries_per_block) {
        const int64_t m = EL_MIN(job->entries_per_block, g.starts[slot + 1] - i);
        const char *act = gather(job->act->data, job->format.stride, g.entries + i, m, job->grouping.n_used, s->act);
        product(job, &job->format, job->up, job->up_bias, g.experts[slot], o0, n, act, m, s->tile2, s->kernel);
        if (job->gate)
            product(job, &job->format, job->gate, job->gate_bias, g.experts[slot], o0, n, act, m, s->tile, s->kernel);
        for (int64_t j = 0; j < m; j++) {
            float *y = s->tile + j * n, *up = s->tile2 + j * n;
            if (job->gate)
                el_gate_row(k, job->map, y, y, up, n, job->params);
            else
                k->map(job->map, y, up, NULL, n, job->params);
            memcpy(float_row(job->hidden, g.entries[i + j], n_ff) + o0, y, (size_t)n * sizeof *y);
        }
    }
}

static void hidden_row(const el_experts_job *job, int64_t entry, char *to)
{
    const int64_t n_ff = job->up->ne[1];

    el_act_from_row(job->plan, &job->hidden_format, to + (size_t)entry * job->hidden_format.stride,
                    float_row(job->hidden, entry, n_ff), n_ff);
}

void el_experts_hidden_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_experts_job *job = job_;
    const int64_t first = (int64_t)chunk * EL_ROWS_PER_CHUNK;
    const int64_t end = EL_MIN(first + EL_ROWS_PER_CHUNK, job->grouping.n_rows * job->grouping.n_used);

    (void)worker;
    for (int64_t i = first; i < end; i++)
        hidden_row(job, i, job->hidden_act->data);
}

/* Products of one expert's entries from..to - 1 (in the groups' order) with outputs o0 .. o0 + n - 1. */
static void down(const el_experts_job *job, const el_groups *g, int32_t slot, int32_t from, int32_t to, int64_t o0,
                 int64_t n, const char *act, char *gathered, float *y, void *scratch)
{
    const char *rows = gather(act, job->hidden_format.stride, g->entries + from, to - from, 1, gathered);

    product(job, &job->hidden_format, job->down, job->down_bias, g->experts[slot], o0, n, rows, to - from, y, scratch);
}

void el_experts_down_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_experts_job *job = job_;
    el_worker_scratch *s = &job->plan->scratch[worker];
    const el_groups g = el_group_entries(&job->grouping, s, el_cpu_tag(job->plan, job));
    const int32_t slot = chunk / job->down_chunks;
    const int64_t n_embd = job->down->ne[1], o0 = chunk % job->down_chunks * job->down_per_chunk;
    const int64_t n = EL_MIN(job->down_per_chunk, n_embd - o0);

    if (slot >= g.n)
        return;
    s->tag = 0;
    for (int32_t i = g.starts[slot]; i < g.starts[slot + 1]; i += (int32_t)job->entries_per_block) {
        const int32_t end = EL_MIN(i + (int32_t)job->entries_per_block, g.starts[slot + 1]);
        down(job, &g, slot, i, end, o0, n, job->hidden_act->data, s->act, s->tile, s->kernel);
        for (int32_t j = i; j < end; j++)
            memcpy(float_row(job->products, g.entries[j], n_embd) + o0, s->tile + (j - i) * n,
                   (size_t)n * sizeof(float));
    }
}

/* y = the weighted sum of a row's experts in order of rank, plus the residual. y and one are n floats of the worker's
 * own: nothing unfinished is ever seen by others. */
static void sum_row(const el_experts_job *job, int64_t r, const float *const *parts, int64_t o0, int64_t n, float *y,
                    float *one)
{
    const el_kernels *k = job->plan->kernels;
    const float *weights = float_row(job->weights, r, job->grouping.n_used);
    const int64_t n_embd = job->down->ne[1];

    for (int32_t i = 0; i < job->grouping.n_used; i++) {
        k->scale(i == 0 ? y : one, parts[i], weights[i], n);
        if (i > 0)
            k->add(y, y, one, n);
    }
    if (job->residual)
        k->add(y, y,
               (const float *)(const void *)((const char *)job->residual->data + (size_t)r * job->residual->nb[1]) + o0,
               n);
    memcpy(float_row(job->out, r, n_embd) + o0, y, (size_t)n * sizeof *y);
}

void el_experts_sum_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_experts_job *job = job_;
    const el_worker_scratch *s = &job->plan->scratch[worker];
    const int64_t n_embd = job->down->ne[1];
    const int64_t first = (int64_t)chunk * EL_ROWS_PER_CHUNK,
                  end = EL_MIN(first + EL_ROWS_PER_CHUNK, job->grouping.n_rows);
    const float *parts[EL_MAX_USED_EXPERTS];

    for (int64_t r = first; r < end; r++) {
        for (int32_t i = 0; i < job->grouping.n_used; i++)
            parts[i] = float_row(job->products, r * job->grouping.n_used + i, n_embd);
        sum_row(job, r, parts, 0, n_embd, s->row, s->tile2);
    }
}

void el_experts_out_chunk(const void *job_, int32_t chunk, int32_t worker)
{
    const el_experts_job *job = job_;
    el_worker_scratch *s = &job->plan->scratch[worker];
    const el_groups g = el_group_entries(&job->grouping, s, el_cpu_tag(job->plan, job));
    const int64_t n_embd = job->down->ne[1], o0 = chunk * job->down_per_chunk;
    const int64_t n = EL_MIN(job->down_per_chunk, n_embd - o0), n_entries = job->grouping.n_rows * job->grouping.n_used;
    const uint64_t tag = el_cpu_tag(job->plan, &job->hidden_format); /* the job's own address is the groups' tag */
    const float *parts[EL_MAX_USED_EXPERTS];
    const char *act = job->hidden_act ? job->hidden_act->data : s->act;
    char *gathered = job->hidden_act ? s->act : s->act + (size_t)n_entries * job->hidden_format.stride;

    if (job->hidden_act) {
        s->tag = 0;
    } else if (s->tag != tag) {
        for (int64_t i = 0; i < n_entries; i++)
            hidden_row(job, i, s->act);
        s->tag = tag;
    }
    for (int32_t slot = 0; slot < g.n; slot++)
        down(job, &g, slot, g.starts[slot], g.starts[slot + 1], o0, n, act, gathered, s->tile + g.starts[slot] * n,
             s->kernel);
    for (int64_t r = 0; r < job->grouping.n_rows; r++) {
        for (int32_t i = 0; i < job->grouping.n_used; i++)
            parts[i] = s->tile + g.places[r * job->grouping.n_used + i] * n;
        sum_row(job, r, parts, o0, n, s->row, s->tile2);
    }
}
