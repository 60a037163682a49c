/* top_k.h - the k best of many by a heap with the worst of them on top: most values lose against the top at once, so
 * the vector files test whole registers against it. Equal values rank by index, so the result does not depend on how
 * the values are visited. */
#ifndef EL_TOP_K_H
#define EL_TOP_K_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct el_top {
    float *values;
    int32_t *ids;
    int64_t n, k;
} el_top;

static inline bool el_top_better(const el_top *t, int64_t a, int64_t b)
{
    return t->values[a] > t->values[b] || (t->values[a] == t->values[b] && t->ids[a] < t->ids[b]);
}

static inline void el_top_swap(el_top *t, int64_t a, int64_t b)
{
    const float value = t->values[a];
    const int32_t id = t->ids[a];

    t->values[a] = t->values[b];
    t->ids[a] = t->ids[b];
    t->values[b] = value;
    t->ids[b] = id;
}

static inline void el_top_sink(el_top *t, int64_t i, int64_t n)
{
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && el_top_better(t, child, child + 1))
            child++;
        if (el_top_better(t, child, i))
            return;
        el_top_swap(t, i, child);
    }
}

/* What a later value must be larger than to get in. Only once k values are there. */
static inline float el_top_bar(const el_top *t) { return t->values[0]; }

/* Ids ascend from call to call. */
static inline void el_top_push(el_top *t, float value, int32_t id)
{
    value = value != value ? -INFINITY : value;
    if (t->n < t->k) {
        int64_t i = t->n++;
        t->values[i] = value;
        t->ids[i] = id;
        for (; i > 0 && el_top_better(t, (i - 1) / 2, i); i = (i - 1) / 2)
            el_top_swap(t, i, (i - 1) / 2);
    } else if (t->k > 0 && value > el_top_bar(t)) {
        t->values[0] = value;
        t->ids[0] = id;
        el_top_sink(t, 0, t->n);
    }
}

/* Best first. */
static inline int64_t el_top_finish(el_top *t)
{
    for (int64_t left = t->n - 1; left > 0; left--) {
        el_top_swap(t, 0, left);
        el_top_sink(t, 0, left);
    }
    return t->n;
}

#endif
