/* states.h - one token of linear attention over a head's state: el_kernels.state_step. One template for all instruction
 * sets, plain C that compilers turn into vectors as wide as the flags of states_ISA.c allow; the order of sums is the
 * one of kernels.h, so the width cannot change a bit. Included once by each states_ISA.c.
 *
 * Sources: Katharopoulos et al. 2020 (linear attention as a recurrence); Yang et al. 2024 (DeltaNet); Peng et al. 2025
 * (RWKV-7): all of them are state = state diag(decay) + (state probe) erase' + value key'. */
#include "blocks.h"
#include "mem.h"
#include "scalar_math.h"

enum { LANES = 16 };

#define INLINE_STEP static inline __attribute__((always_inline))

/* p[k % 16] = fma(a[k], b[k], p[k % 16]), then the fold. */
INLINE_STEP float product(const float *a, const float *b, int64_t n)
{
    float p[LANES] = {0};
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            p[k] = fmaf(a[i + k], b[i + k], p[k]);
    for (int k = 0; i + k < n; k++)
        p[k] = fmaf(a[i + k], b[i + k], p[k]);
    return el_fold16(p);
}

/* One row of the state, changed; returns its product with the query. */
INLINE_STEP float advance(float *restrict row, const el_state_step *s, float value, float probed)
{
    float p[LANES] = {0};
    int64_t i = 0;

    for (; i + LANES <= s->n_key; i += LANES)
        for (int k = 0; k < LANES; k++) {
            const float in = s->erase ? fmaf(value, s->key[i + k], probed * s->erase[i + k]) : value * s->key[i + k];
            row[i + k] = fmaf(row[i + k], s->decay[i + k], in);
            p[k] = fmaf(row[i + k], s->query[i + k], p[k]);
        }
    for (int k = 0; i + k < s->n_key; k++) {
        const float in = s->erase ? fmaf(value, s->key[i + k], probed * s->erase[i + k]) : value * s->key[i + k];
        row[i + k] = fmaf(row[i + k], s->decay[i + k], in);
        p[k] = fmaf(row[i + k], s->query[i + k], p[k]);
    }
    return el_fold16(p);
}

/* Loops of their own, so that what a step has is asked once. */
static void state_step(float *y, float *state, const el_state_step *s)
{
    el_state_step plain = *s;

    plain.erase = NULL;
    if (s->erase)
        for (int64_t j = 0; j < s->n_value; j++, state += s->n_key)
            y[j] = advance(state, s, s->value[j], product(state, s->probe, s->n_key));
    else if (s->probe)
        for (int64_t j = 0; j < s->n_value; j++, state += s->n_key) {
            y[j] = product(state, s->probe, s->n_key);
            advance(state, &plain, s->value[j], 0);
        }
    else
        for (int64_t j = 0; j < s->n_value; j++, state += s->n_key)
            y[j] = advance(state, &plain, s->value[j], 0);
}
