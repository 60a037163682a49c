/* candidates.h - the tokens still in the running while one token is chosen, and the filters that thin them out.
 * They stay in the order of their ids all the time: a filter finds the last one to keep with a heap, then one pass
 * drops the rest. So nothing is sorted, and what a draw picks is defined without regard to how filters work. */
#ifndef EL_CANDIDATES_H
#define EL_CANDIDATES_H

#include "error.h"
#include "mem.h"

typedef struct el_scratch { /* kept from draw to draw */
    void *data;
    size_t n_bytes;
} el_scratch;

typedef struct el_candidates {
    const float *logits; /* n of them; at first the caller's, one per token of the vocabulary */
    const int32_t *ids;  /* NULL: candidate i is token i */
    int32_t n;
    el_scratch kept; /* after the first cut: logits in the first half, ids in the second */
    el_scratch heap; /* int32_t */
    el_scratch keys; /* float */
} el_candidates;

void el_candidates_free(el_candidates *c);
void el_candidates_start(el_candidates *c, const float *logits, int32_t n); /* all tokens; no copy */

/* The k best of n keys (larger first, then lower index) into heap[0 .. k), best first; returns min(k, n). */
int32_t el_select_top(int32_t *heap, int32_t k, const float *keys, int32_t n);

/* Each filter keeps at least one candidate. n >= 1. Errors: ENOMEM. */
edgellm_status el_keep_top_k(el_candidates *c, int32_t k);
edgellm_status el_keep_typical(el_candidates *c, float p);
edgellm_status el_keep_top_p(el_candidates *c, float p);
edgellm_status el_keep_min_p(el_candidates *c, float p);

/* The token that u in [0, 1) falls on when the probabilities at that temperature lie side by side by id. */
int32_t el_draw(const el_candidates *c, float temperature, double u);

#endif
