/* sample.c - one sampler per sequence: checks the settings, adjusts the logits, chooses, reports log-probabilities. */
#include "sample.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "candidates.h"
#include "penalties.h"
#include "philox.h"
#include "softmax.h"

struct el_sampler {
    edgellm_sampling params; /* its pointers are not used: bias and stop_tokens below are our copies */
    edgellm_logit_bias *bias;
    int32_t *stop_tokens;
    el_penalties penalties;
    int32_t n_vocab;
    uint64_t n_draws;
    float *adjusted; /* n_vocab, or NULL when there is neither bias nor penalty */
    el_candidates candidates;
};

void edgellm_sampling_init(edgellm_sampling *sampling)
{
    if (!sampling)
        return;
    memset(sampling, 0, sizeof *sampling);
    sampling->struct_size = (uint32_t)sizeof *sampling;
    sampling->temperature = 0.8f;
    sampling->top_k = 40;
    sampling->top_p = 0.95f;
    sampling->min_p = 0.05f;
    sampling->typical_p = 1.0f;
    sampling->repeat_penalty = 1.0f;
    sampling->penalty_last_n = 64;
    sampling->n_logprobs = -1;
    sampling->max_tokens = -1;
    sampling->heal_token = -1;
}

/* ---- checks --------------------------------------------------------------------------- */

static edgellm_status check_float(const char *name, float value, float low, float high)
{
    if (value >= low && value <= high) /* false for NaN */
        return EDGELLM_OK;
    return el_fail(EDGELLM_EINVAL, "%s is %g; it must be a number from %g to %g", name, (double)value, (double)low,
                   (double)high);
}

static edgellm_status check_int(const char *name, int32_t value, int32_t low, int32_t high)
{
    if (value >= low && value <= high)
        return EDGELLM_OK;
    return high == INT32_MAX ? el_fail(EDGELLM_EINVAL, "%s is %d; it must be at least %d", name, value, low)
                             : el_fail(EDGELLM_EINVAL, "%s is %d; it must be from %d to %d", name, value, low, high);
}

static edgellm_status check_token(const char *what, size_t i, int32_t token, int32_t n_vocab)
{
    if (token >= 0 && token < n_vocab)
        return EDGELLM_OK;
    return el_fail(EDGELLM_EINVAL, "%s %zu is token %d; the vocabulary has tokens 0 to %d", what, i, token,
                   n_vocab - 1);
}

static edgellm_status check_numbers(const edgellm_sampling *p)
{
    edgellm_status status;

    EL_TRY(check_float("temperature", p->temperature, 0, 1000));
    EL_TRY(check_int("top_k", p->top_k, 0, INT32_MAX));
    EL_TRY(check_float("top_p", p->top_p, 0, 1));
    EL_TRY(check_float("min_p", p->min_p, 0, 1));
    EL_TRY(check_float("typical_p", p->typical_p, 0, 1));
    EL_TRY(check_float("repeat_penalty", p->repeat_penalty, 0.01f, 100));
    EL_TRY(check_float("presence_penalty", p->presence_penalty, -100, 100));
    EL_TRY(check_float("frequency_penalty", p->frequency_penalty, -100, 100));
    EL_TRY(check_int("penalty_last_n", p->penalty_last_n, -1, INT32_MAX));
    EL_TRY(check_int("n_logprobs", p->n_logprobs, -1, (int32_t)EL_COUNT(((edgellm_sampled *)0)->top_tokens)));
    EL_TRY(check_int("max_tokens", p->max_tokens, -1, INT32_MAX));
    EL_TRY(check_int("ignore_eog", p->ignore_eog, 0, 1));
    EL_TRY(check_int("keep_special", p->keep_special, 0, 1));
done:
    return status;
}

static edgellm_status check_lists(const edgellm_sampling *p, int32_t n_vocab)
{
    edgellm_status status = EDGELLM_OK;

    if ((p->n_bias && !p->bias) || (p->n_stop_tokens && !p->stop_tokens))
        return el_fail(EDGELLM_EINVAL, "%s is NULL but its count is %zu",
                       p->n_bias && !p->bias ? "bias" : "stop_tokens",
                       p->n_bias && !p->bias ? p->n_bias : p->n_stop_tokens);
    for (size_t i = 0; i < p->n_bias; i++) {
        const float bias = p->bias[i].bias;

        EL_TRY(check_token("logit bias", i, p->bias[i].token, n_vocab));
        if (!(bias <= 1e30f) || (bias < -1e30f && bias != -INFINITY))
            return el_fail(EDGELLM_EINVAL,
                           "the logit bias of token %d is %g; it must be -infinity or a number from -1e+30 to 1e+30",
                           p->bias[i].token, (double)bias);
    }
    for (size_t i = 0; i < p->n_stop_tokens; i++)
        EL_TRY(check_token("stop token", i, p->stop_tokens[i], n_vocab));
done:
    return status;
}

static edgellm_status check(const edgellm_sampling *p, int32_t n_vocab)
{
    edgellm_status status;

    if (!p || n_vocab < 1)
        return el_fail(EDGELLM_EINVAL, "a sampler needs settings and a vocabulary of at least 1 token");
    if (p->struct_size != sizeof *p)
        return el_fail(EDGELLM_EINVAL,
                       "edgellm_sampling has struct_size %u, this library's has %zu; call edgellm_sampling_init",
                       (unsigned)p->struct_size, sizeof *p);
    EL_TRY(check_numbers(p));
    EL_TRY(check_lists(p, n_vocab));
done:
    return status;
}

/* ---- life ----------------------------------------------------------------------------- */

static edgellm_status copy_list(void **out, const void *items, size_t n, size_t size)
{
    *out = NULL;
    if (n == 0)
        return EDGELLM_OK;
    *out = el_alloc(n, size);
    if (!*out)
        return el_no_memory(n * size); /* the caller holds as many: no overflow */
    memcpy(*out, items, n * size);
    return EDGELLM_OK;
}

edgellm_status el_sampler_new(el_sampler **out, const edgellm_sampling *params, int32_t n_vocab)
{
    edgellm_status status;
    el_sampler *s = NULL;
    void *copy;

    *out = NULL;
    EL_TRY(check(params, n_vocab));
    s = el_alloc(1, sizeof *s);
    if (!s)
        return el_no_memory(sizeof *s);
    s->params = *params;
    s->n_vocab = n_vocab;
    el_penalties_init(&s->penalties, params);
    EL_TRY(copy_list(&copy, params->bias, params->n_bias, sizeof *s->bias));
    s->bias = copy;
    EL_TRY(copy_list(&copy, params->stop_tokens, params->n_stop_tokens, sizeof *s->stop_tokens));
    s->stop_tokens = copy;
    if (params->n_bias || el_penalties_active(&s->penalties)) {
        s->adjusted = el_alloc((size_t)n_vocab, sizeof *s->adjusted);
        if (!s->adjusted)
            EL_TRY(el_no_memory((size_t)n_vocab * sizeof *s->adjusted));
    }
    *out = s;
    s = NULL;
done:
    el_sampler_free(s);
    return status;
}

void el_sampler_free(el_sampler *s)
{
    if (!s)
        return;
    el_free(s->bias);
    el_free(s->stop_tokens);
    el_free(s->adjusted);
    el_penalties_free(&s->penalties);
    el_candidates_free(&s->candidates);
    el_free(s);
}

edgellm_status el_sampler_accept(el_sampler *s, int32_t token)
{
    edgellm_status status;

    EL_TRY(check_token("history entry", 0, token, s->n_vocab));
    EL_TRY(el_penalties_accept(&s->penalties, token));
done:
    return status;
}

bool el_sampler_is_stop_token(const el_sampler *s, int32_t token)
{
    for (size_t i = 0; i < s->params.n_stop_tokens; i++)
        if (s->stop_tokens[i] == token)
            return true;
    return false;
}

/* ---- choosing ------------------------------------------------------------------------- */

/* What is wrong with logits that el_peak found unsound. */
static edgellm_status refuse(const float *logits, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (!(logits[i] <= FLT_MAX))
            return el_fail(EDGELLM_ENUMERIC,
                           "the logit of token %d of %d is %g: the model's weights are damaged or overflow", i, n,
                           (double)logits[i]);
    return el_fail(EDGELLM_ENUMERIC, "all %d logits are -infinity: the model's weights are damaged or overflow", n);
}

/* Logits after bias and penalties: the caller's own when there is nothing to do. */
static const float *adjust(el_sampler *s, const float *logits)
{
    if (!s->adjusted)
        return logits;
    memcpy(s->adjusted, logits, (size_t)s->n_vocab * sizeof *logits);
    for (size_t i = 0; i < s->params.n_bias; i++)
        s->adjusted[s->bias[i].token] += s->bias[i].bias;
    el_penalties_apply(&s->penalties, s->adjusted, s->n_vocab);
    return s->adjusted;
}

static edgellm_status choose(el_sampler *s, const float *logits, float peak, int32_t *token)
{
    const edgellm_sampling *p = &s->params;
    edgellm_status status = EDGELLM_OK;
    el_candidates *c = &s->candidates;

    if (p->temperature == 0) {
        *token = el_argmax(logits, s->n_vocab, peak);
        return EDGELLM_OK;
    }
    el_candidates_start(c, logits, s->n_vocab);
    EL_TRY(el_keep_top_k(c, p->top_k));
    EL_TRY(el_keep_typical(c, p->typical_p));
    EL_TRY(el_keep_top_p(c, p->top_p));
    EL_TRY(el_keep_min_p(c, p->min_p));
    *token = el_draw(c, p->temperature, el_philox_uniform(p->seed, s->n_draws));
done:
    return status;
}

/* Of the model's own distribution, so from the logits before bias and penalties. */
static void report(const el_sampler *s, const float *logits, float peak, edgellm_sampled *out)
{
    double log_sum;
    int32_t n_top;

    if (s->params.n_logprobs < 0)
        return;
    log_sum = el_log_sum_exp(logits, s->n_vocab, peak);
    out->logprob = (float)((double)logits[out->token] - peak - log_sum);
    n_top = el_select_top(out->top_tokens, s->params.n_logprobs, logits, s->n_vocab);
    for (int32_t i = 0; i < n_top; i++) {
        const float logit = logits[out->top_tokens[i]];

        if (logit < -FLT_MAX) /* the model itself forbids it, and all after it */
            break;
        out->top_logprobs[i] = (float)((double)logit - peak - log_sum);
        out->n_top = i + 1;
    }
}

edgellm_status el_sampler_choose(el_sampler *s, const float *logits, edgellm_sampled *out)
{
    edgellm_status status = EDGELLM_OK;
    bool sound;
    const float peak = el_peak(logits, s->n_vocab, &sound);
    const float *adjusted;
    float adjusted_peak = peak;

    memset(out, 0, sizeof *out);
    if (!sound)
        return refuse(logits, s->n_vocab);
    adjusted = adjust(s, logits);
    if (adjusted != logits)
        adjusted_peak = el_peak(adjusted, s->n_vocab, &sound);
    if (!sound)
        return el_fail(EDGELLM_EINVAL, "logit bias and penalties forbid all %d tokens; allow at least one", s->n_vocab);
    EL_TRY(choose(s, adjusted, adjusted_peak, &out->token));
    report(s, logits, peak, out);
    s->n_draws++;
done:
    return status;
}
