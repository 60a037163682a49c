/* attention_spans.h - which positions of a segment the queries see, for the vector files of attention. */
#ifndef EL_ATTENTION_SPANS_H
#define EL_ATTENTION_SPANS_H

#include "kernels.h"
#include "mem.h"

typedef struct span { /* positions, relative to the segment or to a block of it; empty: end <= begin */
    int32_t begin, end;
} span;

static inline span span_of(const el_attn *a, int32_t i, int32_t base)
{
    return (span){EL_MAX(a->first[i] - base, 0), EL_MIN(a->last[i] - base, EL_ATTN_SEGMENT)};
}

/* What any query sees; empty when none sees anything. */
static inline span span_of_all(const el_attn *a, int32_t base)
{
    span all = {EL_ATTN_SEGMENT, 0};

    for (int32_t i = 0; i < a->n_q; i++) {
        const span one = span_of(a, i, base);
        if (one.begin < one.end) {
            all.begin = EL_MIN(all.begin, one.begin);
            all.end = EL_MAX(all.end, one.end);
        }
    }
    return all;
}

/* What every query sees. */
static inline span span_of_each(const el_attn *a, int32_t base)
{
    span each = {0, EL_ATTN_SEGMENT};

    for (int32_t i = 0; i < a->n_q; i++) {
        const span one = span_of(a, i, base);
        each = (span){EL_MAX(each.begin, one.begin), EL_MIN(each.end, one.end)};
    }
    return each;
}

/* The part of a span within a block, relative to it. */
static inline span within(span s, int32_t block)
{
    return (span){EL_MAX(s.begin - block, 0), EL_MIN(s.end - block, EL_ATTN_BLOCK)};
}

#endif
