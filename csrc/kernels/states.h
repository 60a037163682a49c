/* states.h - one token of linear attention over a head's state: el_kernels.state_step. Included by each rows_ISA.c, for
 * the dot there; the rest is plain C in which nothing is summed, so compilers may take any width.
 *
 * Sources: Katharopoulos et al. 2020 (linear attention as a recurrence); Yang et al. 2024 (DeltaNet); Peng et al. 2025
 * (RWKV-7): all of them are state = state diag(decay) + (state probe) erase' + value key'. */

static void forget(float *restrict row, const el_state_step *s, float value)
{
    for (int64_t i = 0; i < s->n_key; i++)
        row[i] = fmaf(row[i], s->decay[i], value * s->key[i]);
}

static void forget_and_erase(float *restrict row, const el_state_step *s, float value, float probed)
{
    for (int64_t i = 0; i < s->n_key; i++)
        row[i] = fmaf(row[i], s->decay[i], fmaf(value, s->key[i], probed * s->erase[i]));
}

static void state_step(float *y, float *state, const el_state_step *s)
{
    for (int64_t j = 0; j < s->n_value; j++, state += s->n_key) {
        const float probed = s->probe ? dot(state, s->probe, s->n_key) : 0;
        if (s->erase)
            forget_and_erase(state, s, s->value[j], probed);
        else
            forget(state, s, s->value[j]);
        y[j] = s->probe && !s->erase ? probed : dot(state, s->query, s->n_key);
    }
}
