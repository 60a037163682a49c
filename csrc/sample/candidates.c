/* candidates.c - top-k, typical-p, top-p, min-p and the draw.
 * Sources: top-k in Fan et al. 2018; typical-p in Meister et al. 2022 (locally typical sampling); top-p in Holtzman
 * et al. 2020 (nucleus sampling); min-p in Nguyen et al. 2024. */
#include "candidates.h"

#include <math.h>
#include <string.h>

#include "softmax.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF /* gcc has it off under -std=c11 */
#endif

void el_candidates_free(el_candidates *c)
{
    el_free(c->kept.data);
    el_free(c->heap.data);
    el_free(c->keys.data);
    memset(c, 0, sizeof *c);
}

void el_candidates_start(el_candidates *c, const float *logits, int32_t n)
{
    c->logits = logits;
    c->ids = NULL;
    c->n = n;
}

/* ---- heap of indices ------------------------------------------------------------------ */

/* The order of everything here: larger key, then lower index. */
static inline bool better(const float *keys, int32_t a, int32_t b)
{
    return keys[a] > keys[b] || (keys[a] == keys[b] && a < b);
}

/* Moves heap[at] down to its place. best_first: the root is the best one, otherwise the worst. */
static void sift(int32_t *heap, int32_t n, int32_t at, const float *keys, bool best_first)
{
    const int32_t item = heap[at];

    for (int32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && better(keys, heap[child + 1], heap[child]) == best_first)
            child++;
        if (better(keys, heap[child], item) != best_first)
            break;
        heap[at] = heap[child];
    }
    heap[at] = item;
}

static void heapify(int32_t *heap, int32_t n, const float *keys, bool best_first)
{
    for (int32_t i = n / 2; i-- > 0;)
        sift(heap, n, i, keys, best_first);
}

/* heap[0 .. min(k, n)) becomes the best ones as a heap with the worst of them at the root. */
static int32_t collect_top(int32_t *heap, int32_t k, const float *keys, int32_t n)
{
    const int32_t m = EL_MIN(k, n);
    float bar;

    if (m < 1)
        return 0;
    for (int32_t i = 0; i < m; i++)
        heap[i] = i;
    heapify(heap, m, keys, false);
    bar = keys[heap[0]];
    for (int32_t i = m; i < n; i++)
        if (keys[i] > bar) { /* an equal key has a higher index than all in the heap: worse */
            heap[0] = i;
            sift(heap, m, 0, keys, false);
            bar = keys[heap[0]];
        }
    return m;
}

int32_t el_select_top(int32_t *heap, int32_t k, const float *keys, int32_t n)
{
    const int32_t m = collect_top(heap, k, keys, n);

    for (int32_t end = m; end > 1;) { /* the second half of heap sort: the worst goes to the end */
        const int32_t worst = heap[0];

        heap[0] = heap[--end];
        sift(heap, end, 0, keys, false);
        heap[end] = worst;
    }
    return m;
}

/* ---- scratch -------------------------------------------------------------------------- */

/* Grown by doubling, so that draws whose counts vary soon allocate nothing. What was inside is lost. */
static edgellm_status reserve(el_scratch *s, size_t n, size_t size)
{
    const size_t n_bytes = EL_MAX(n * size, 2 * s->n_bytes); /* n is at most an int32_t, size at most 8 */
    void *data;

    if (n * size <= s->n_bytes)
        return EDGELLM_OK;
    data = el_alloc(n_bytes, 1);
    if (!data)
        return el_no_memory(n_bytes);
    el_free(s->data);
    s->data = data;
    s->n_bytes = n_bytes;
    return EDGELLM_OK;
}

/* Keeps candidate `last` and those better than it; keys may be c->logits. n_kept: how many that are. */
static edgellm_status cut(el_candidates *c, const float *keys, int32_t last, int32_t n_kept)
{
    edgellm_status status = EDGELLM_OK;
    const float bar = keys[last];
    float *logits;
    int32_t *ids;
    int32_t n = 0;

    if (n_kept == c->n)
        return EDGELLM_OK;
    if (!c->ids) /* later cuts work in place: lists only get shorter, and n never overtakes i below */
        EL_TRY(reserve(&c->kept, (size_t)n_kept, sizeof *logits + sizeof *ids));
    logits = c->kept.data;
    ids = (int32_t *)c->kept.data + c->kept.n_bytes / 8;
    for (int32_t i = 0; i < c->n && n < n_kept; i++)
        if (keys[i] > bar || (keys[i] == bar && i <= last)) {
            ids[n] = c->ids ? c->ids[i] : i;
            logits[n++] = c->logits[i];
        }
    c->logits = logits;
    c->ids = ids;
    c->n = n;
done:
    return status;
}

/* ---- filters -------------------------------------------------------------------------- */

static float peak_of(const el_candidates *c)
{
    bool sound;

    return el_peak(c->logits, c->n, &sound);
}

static double total_weight(const el_candidates *c, float peak, double inverse_temperature)
{
    double total = 0;

    for (int32_t i = 0; i < c->n; i++)
        total += el_exp_neg(((double)c->logits[i] - peak) * inverse_temperature);
    return total;
}

edgellm_status el_keep_top_k(el_candidates *c, int32_t k)
{
    edgellm_status status = EDGELLM_OK;
    int32_t *heap;

    if (k <= 0 || k >= c->n)
        return EDGELLM_OK;
    EL_TRY(reserve(&c->heap, (size_t)k, sizeof *heap));
    heap = c->heap.data;
    collect_top(heap, k, c->logits, c->n);
    EL_TRY(cut(c, c->logits, heap[0], k));
done:
    return status;
}

/* Keeps the shortest run of best keys that holds the share p of the probability. Candidates with logits below
 * `floor` cannot be in it. */
static edgellm_status keep_share(el_candidates *c, const float *keys, double floor, float peak, double total, float p)
{
    edgellm_status status = EDGELLM_OK;
    const double wanted = total * p;
    double sum = 0;
    int32_t last = 0, n_kept = 0, left = 0;
    int32_t *heap;

    EL_TRY(reserve(&c->heap, (size_t)c->n, sizeof *heap));
    heap = c->heap.data;
    for (int32_t i = 0; i < c->n; i++)
        if (c->logits[i] >= floor)
            heap[left++] = i;
    heapify(heap, left, keys, true);
    while (left > 0 && (n_kept == 0 || sum < wanted)) {
        last = heap[0];
        sum += el_exp_neg((double)c->logits[last] - peak);
        n_kept++;
        heap[0] = heap[--left];
        sift(heap, left, 0, keys, true);
    }
    EL_TRY(cut(c, keys, last, n_kept));
done:
    return status;
}

/* Tokens that each have less than (1 - p) / n of the probability have less than 1 - p together, so the others reach p
 * without them: most of a large vocabulary never enters the heap. */
edgellm_status el_keep_top_p(el_candidates *c, float p)
{
    const float peak = peak_of(c);
    double total;

    if (p >= 1.0f || c->n < 2)
        return EDGELLM_OK;
    total = total_weight(c, peak, 1);
    return keep_share(c, c->logits, peak + log((1.0 - p) * total / c->n), peak, total, p);
}

/* Surprise of candidate i, -log p. */
static double surprise(const el_candidates *c, int32_t i, float peak, double log_total)
{
    return log_total - ((double)c->logits[i] - peak);
}

/* The best candidates are those whose surprise is nearest to the expected surprise, the entropy. */
edgellm_status el_keep_typical(el_candidates *c, float p)
{
    edgellm_status status = EDGELLM_OK;
    const float peak = peak_of(c);
    double total, log_total, entropy = 0;
    float *keys;

    if (p >= 1.0f || c->n < 2)
        return EDGELLM_OK;
    EL_TRY(reserve(&c->keys, (size_t)c->n, sizeof *keys));
    keys = c->keys.data;
    total = total_weight(c, peak, 1);
    log_total = log(total);
    for (int32_t i = 0; i < c->n; i++) {
        const double weight = el_exp_neg((double)c->logits[i] - peak);

        if (weight > 0)
            entropy += weight / total * surprise(c, i, peak, log_total);
    }
    for (int32_t i = 0; i < c->n; i++)
        keys[i] = (float)-fabs(surprise(c, i, peak, log_total) - entropy);
    EL_TRY(keep_share(c, keys, -INFINITY, peak, total, p));
done:
    return status;
}

/* Keeps those at least p times as probable as the most probable: a comparison of logits, no exponentials. */
edgellm_status el_keep_min_p(el_candidates *c, float p)
{
    edgellm_status status = EDGELLM_OK;
    int32_t n_kept = 0, last = 0;
    double bar;

    if (p <= 0.0f || c->n < 2)
        return EDGELLM_OK;
    bar = peak_of(c) + log(p);
    for (int32_t i = 0; i < c->n; i++)
        if (c->logits[i] >= bar) {
            last = n_kept == 0 || c->logits[i] <= c->logits[last] ? i : last; /* the worst one kept */
            n_kept++;
        }
    EL_TRY(cut(c, c->logits, last, n_kept));
done:
    return status;
}

int32_t el_draw(const el_candidates *c, float temperature, double u)
{
    const float peak = peak_of(c);
    const double inverse = 1.0 / temperature;
    const double target = u * total_weight(c, peak, inverse);
    double sum = 0;
    int32_t last = 0; /* the last with a weight; rounding cannot take us past it, and if it did it is the answer */

    for (int32_t i = 0; i < c->n && sum <= target; i++) {
        const double weight = el_exp_neg(((double)c->logits[i] - peak) * inverse);

        if (weight > 0)
            last = i;
        sum += weight;
    }
    return c->ids ? c->ids[last] : last;
}
