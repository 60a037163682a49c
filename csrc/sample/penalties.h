/* penalties.h - how often each token occurred among the last n_last, and what that does to the logits.
 * A ring of the last tokens and a hash of their counts: cost follows the tokens seen, never the vocabulary. */
#ifndef EL_PENALTIES_H
#define EL_PENALTIES_H

#include "error.h"
#include "mem.h"

typedef struct el_penalties {
    float repeat, presence, frequency;
    int32_t n_last; /* -1: every token counts for ever, 0: penalties are off */
    int32_t *ring;  /* the last n_ring tokens; oldest at `oldest` once n_ring == n_last */
    size_t ring_cap, n_ring, oldest;
    struct el_token_count {
        int32_t token; /* -1: free slot */
        int32_t count; /* 0: seen before, no longer inside the window */
    } * slots;         /* open addressing, n_slots is a power of two, at most half full */
    size_t n_slots, n_used;
} el_penalties;

void el_penalties_init(el_penalties *p, const edgellm_sampling *params);
void el_penalties_free(el_penalties *p);
bool el_penalties_active(const el_penalties *p);

/* On ENOMEM the counts are as before. */
edgellm_status el_penalties_accept(el_penalties *p, int32_t token);

/* Changes the logits of the counted tokens. A counted token outside 0 .. n_vocab - 1 is passed over. */
void el_penalties_apply(const el_penalties *p, float *logits, int32_t n_vocab);

#endif
