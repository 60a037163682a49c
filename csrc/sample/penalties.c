/* penalties.c - the counts behind repeat, presence and frequency penalties.
 * Sources: repetition penalty in Keskar et al. 2019 (CTRL), section 4.1, with negative logits multiplied instead of
 * divided, as is now usual; presence and frequency as the OpenAI API defines them. */
#include "penalties.h"

#include <math.h>
#include <float.h>
#include <string.h>

void el_penalties_init(el_penalties *p, const edgellm_sampling *params)
{
    memset(p, 0, sizeof *p);
    p->repeat = params->repeat_penalty;
    p->presence = params->presence_penalty;
    p->frequency = params->frequency_penalty;
    p->n_last = params->penalty_last_n;
}

void el_penalties_free(el_penalties *p)
{
    el_free(p->ring);
    el_free(p->slots);
    memset(p, 0, sizeof *p);
}

bool el_penalties_active(const el_penalties *p)
{
    return p->n_last != 0 && (p->repeat != 1.0f || p->presence != 0.0f || p->frequency != 0.0f);
}

/* The slot of the token, or the free one where it belongs. Fibonacci hashing: Knuth, TAOCP volume 3, section 6.4. */
static struct el_token_count *find(struct el_token_count *slots, size_t n_slots, int32_t token)
{
    size_t i = (uint32_t)token * 2654435769u & (n_slots - 1);

    while (slots[i].token != token && slots[i].token != -1)
        i = (i + 1) & (n_slots - 1);
    return &slots[i];
}

/* Room for one more token: the table is rebuilt when half full, without the counts that fell to 0. */
static edgellm_status reserve_slot(el_penalties *p)
{
    struct el_token_count *slots;
    size_t n_live = 0, n_slots = 64;

    if (p->n_used < p->n_slots / 2)
        return EDGELLM_OK;
    for (size_t i = 0; i < p->n_slots; i++)
        n_live += p->slots[i].token >= 0 && p->slots[i].count > 0;
    while (n_slots < 4 * (n_live + 1))
        n_slots *= 2;
    slots = el_alloc(n_slots, sizeof *slots);
    if (!slots)
        return el_no_memory(n_slots * sizeof *slots);
    for (size_t i = 0; i < n_slots; i++)
        slots[i].token = -1;
    for (size_t i = 0; i < p->n_slots; i++)
        if (p->slots[i].token >= 0 && p->slots[i].count > 0)
            *find(slots, n_slots, p->slots[i].token) = p->slots[i];
    el_free(p->slots);
    p->slots = slots;
    p->n_slots = n_slots;
    p->n_used = n_live;
    return EDGELLM_OK;
}

/* Room for one more token in a ring that has not reached n_last yet. */
static edgellm_status reserve_ring(el_penalties *p)
{
    size_t cap = EL_MIN(EL_MAX(2 * p->ring_cap, 64), (size_t)p->n_last);
    int32_t *ring;

    if (p->n_ring < p->ring_cap || p->n_ring == (size_t)p->n_last)
        return EDGELLM_OK;
    ring = el_realloc(p->ring, cap, sizeof *ring);
    if (!ring)
        return el_no_memory(cap * sizeof *ring);
    p->ring = ring;
    p->ring_cap = cap;
    return EDGELLM_OK;
}

static void remember(el_penalties *p, int32_t token)
{
    if (p->n_ring < (size_t)p->n_last) {
        p->ring[p->n_ring++] = token;
        return;
    }
    find(p->slots, p->n_slots, p->ring[p->oldest])->count--;
    p->ring[p->oldest] = token;
    p->oldest = (p->oldest + 1) % p->n_ring;
}

edgellm_status el_penalties_accept(el_penalties *p, int32_t token)
{
    edgellm_status status = EDGELLM_OK;
    struct el_token_count *slot;

    if (!el_penalties_active(p))
        return EDGELLM_OK;
    EL_TRY(reserve_slot(p));
    if (p->n_last > 0)
        EL_TRY(reserve_ring(p));
    slot = find(p->slots, p->n_slots, token);
    if (slot->token < 0) {
        slot->token = token;
        slot->count = 0;
        p->n_used++;
    }
    if (slot->count < INT32_MAX)
        slot->count++;
    if (p->n_last > 0)
        remember(p, token);
done:
    return status;
}

void el_penalties_apply(const el_penalties *p, float *logits, int32_t n_vocab)
{
    if (!el_penalties_active(p))
        return;
    for (size_t i = 0; i < p->n_slots; i++) {
        const int32_t token = p->slots[i].token;
        const float count = (float)p->slots[i].count;
        float x;

        if (token < 0 || token >= n_vocab || p->slots[i].count == 0)
            continue;
        x = logits[token];
        x = x > 0 ? x / p->repeat : x * p->repeat;
        x -= count * p->frequency + p->presence;
        logits[token] = fminf(x, FLT_MAX); /* a huge logit divided by 0.01 must not become infinite */
    }
}
