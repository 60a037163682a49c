/* test_sample.c - the sampler against slow, obvious versions of the same rules, its statistics, and the text stream
 * against every way to split a text. Exit code 0 when all is well; one line per failure otherwise. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "candidates.h"
#include "penalties.h"
#include "philox.h"
#include "sample.h"
#include "softmax.h"

static int n_failed;

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                                                     \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
            n_failed++;                                                                                                \
        }                                                                                                              \
    } while (0)

/* SplitMix64, Steele et al. 2014: only for test inputs, so that they do not depend on what is tested. */
static uint64_t random_state = 7;
static uint64_t next_random(void)
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
static int below(int n) { return (int)(next_random() % (uint64_t)n); }
static double uniform(void) { return (double)(next_random() >> 11) * 0x1p-53; }

static edgellm_sampling settings(void)
{
    edgellm_sampling p;

    edgellm_sampling_init(&p);
    return p;
}

/* Everything off: draws follow the softmax of the logits. */
static edgellm_sampling plain(uint64_t seed)
{
    edgellm_sampling p = settings();

    p.temperature = 1;
    p.top_k = 0;
    p.top_p = 1;
    p.min_p = 0;
    p.seed = seed;
    return p;
}

static el_sampler *sampler(const edgellm_sampling *p, int32_t n_vocab)
{
    el_sampler *s;

    if (el_sampler_new(&s, p, n_vocab) != EDGELLM_OK) {
        printf("el_sampler_new: %s\n", el_error_text());
        exit(1);
    }
    return s;
}

static int32_t draw(el_sampler *s, const float *logits)
{
    edgellm_sampled out;

    CHECK(el_sampler_choose(s, logits, &out) == EDGELLM_OK, "%s", el_error_text());
    return out.token;
}

/* ---- building blocks ------------------------------------------------------------------ */

/* Known answers from the file kat_vectors of the Random123 library, version 1.14. */
static void test_philox(void)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    for (size_t i = 0; i < EL_COUNT(known); i++) {
        uint32_t out[4];

        el_philox(out, known[i].counter, known[i].key);
        CHECK(memcmp(out, known[i].out, sizeof out) == 0, "case %zu", i);
    }
    for (uint64_t i = 0; i < 1000; i++) {
        const double u = el_philox_uniform(i * i, i);

        CHECK(u >= 0 && u < 1, "draw %d", (int)i);
    }
}

static void test_exp(void)
{
    double worst = 0;

    for (double x = 0; x > -708; x -= 0.00317) {
        const double error = fabs(el_exp_neg(x) / exp(x) - 1);

        worst = error > worst ? error : worst;
    }
    CHECK(worst < 1e-14, "relative error %g", worst);
    CHECK(el_exp_neg(0) == 1 && el_exp_neg(-709) == 0 && el_exp_neg(-INFINITY) == 0 && el_exp_neg(NAN) == 0, "edges");
}

static void test_select_top(void)
{
    for (int round = 0; round < 300; round++) {
        float keys[100];
        int32_t heap[100];
        const int n = 1 + below(100), k = below(110);
        const int m = el_select_top(heap, k, keys, 0);

        CHECK(m == 0, "no keys, %d selected", m);
        for (int i = 0; i < n; i++)
            keys[i] = (float)below(20);
        CHECK(el_select_top(heap, EL_MIN(k, n), keys, n) == EL_MIN(k, n), "count");
        for (int i = 0; i < EL_MIN(k, n); i++) { /* place i belongs to the one that exactly i others beat */
            int n_better = 0;

            for (int j = 0; j < n; j++)
                n_better += keys[j] > keys[heap[i]] || (keys[j] == keys[heap[i]] && j < heap[i]);
            CHECK(n_better == i, "place %d, %d are better", i, n_better);
        }
    }
}

/* ---- settings ------------------------------------------------------------------------- */

static void expect_refused(const edgellm_sampling *p, const char *word)
{
    el_sampler *s = NULL;

    CHECK(el_sampler_new(&s, p, 100) == EDGELLM_EINVAL && !s, "%s accepted", word);
    CHECK(strstr(el_error_text(), word), "'%s' does not name %s", el_error_text(), word);
    el_sampler_free(s);
}

static void test_settings(void)
{
    static const float bad_floats[] = {NAN, INFINITY, -INFINITY, -0.5f, 1e30f};
    const edgellm_logit_bias bias[] = {{3, 1}, {-1, 1}, {100, 1}, {3, NAN}, {3, INFINITY}, {3, -2e30f}};
    const int32_t stops[] = {5, 99, 100, -1};
    edgellm_sampling p = settings();

    CHECK(p.struct_size == sizeof p && p.top_k == 40 && p.penalty_last_n == 64 && p.n_logprobs == -1, "defaults");
    el_sampler_free(sampler(&p, 1));
    for (size_t i = 0; i < EL_COUNT(bad_floats); i++) {
        p = settings(), p.temperature = bad_floats[i], expect_refused(&p, "temperature");
        p = settings(), p.top_p = bad_floats[i], expect_refused(&p, "top_p");
        p = settings(), p.min_p = bad_floats[i], expect_refused(&p, "min_p");
        p = settings(), p.typical_p = bad_floats[i], expect_refused(&p, "typical_p");
        p = settings(), p.repeat_penalty = bad_floats[i], expect_refused(&p, "repeat_penalty");
    }
    p = settings(), p.repeat_penalty = 0, expect_refused(&p, "repeat_penalty");
    p = settings(), p.presence_penalty = NAN, expect_refused(&p, "presence_penalty");
    p = settings(), p.frequency_penalty = -INFINITY, expect_refused(&p, "frequency_penalty");
    p = settings(), p.top_k = -1, expect_refused(&p, "top_k is -1");
    p = settings(), p.penalty_last_n = -2, expect_refused(&p, "penalty_last_n is -2");
    p = settings(), p.n_logprobs = 21, expect_refused(&p, "n_logprobs is 21");
    p = settings(), p.n_logprobs = -2, expect_refused(&p, "n_logprobs is -2");
    p = settings(), p.max_tokens = -2, expect_refused(&p, "max_tokens is -2");
    p = settings(), p.ignore_eog = 2, expect_refused(&p, "ignore_eog is 2");
    p = settings(), p.keep_special = -1, expect_refused(&p, "keep_special is -1");
    p = settings(), p.struct_size = 4, expect_refused(&p, "struct_size 4");
    p = settings(), p.n_bias = 1, expect_refused(&p, "bias is NULL");
    p = settings(), p.n_stop_tokens = 1, expect_refused(&p, "stop_tokens is NULL");
    for (size_t i = 1; i < EL_COUNT(bias); i++)
        p = settings(), p.bias = &bias[i], p.n_bias = 1, expect_refused(&p, "bias");
    for (size_t i = 2; i < EL_COUNT(stops); i++)
        p = settings(), p.stop_tokens = &stops[i], p.n_stop_tokens = 1, expect_refused(&p, "stop token 0");
    p = settings();
    p.stop_tokens = stops;
    p.n_stop_tokens = 2;
    el_sampler *s = sampler(&p, 100);
    CHECK(el_sampler_is_stop_token(s, 99) && !el_sampler_is_stop_token(s, 98), "stop tokens");
    CHECK(el_sampler_accept(s, 100) == EDGELLM_EINVAL && el_sampler_accept(s, -1) == EDGELLM_EINVAL, "history");
    el_sampler_free(s);
}

static void test_unsound_logits(void)
{
    static const float bad[] = {NAN, INFINITY};
    edgellm_sampling p = settings();
    edgellm_sampled out;
    float logits[37] = {0};
    edgellm_logit_bias never[37];

    for (int greedy = 0; greedy < 2; greedy++) {
        p.temperature = greedy ? 0 : 1;
        el_sampler *s = sampler(&p, 37);
        for (int i = 0; i < 37; i++)
            for (int k = 0; k < 2; k++) {
                logits[i] = bad[k];
                CHECK(el_sampler_choose(s, logits, &out) == EDGELLM_ENUMERIC, "logit %d", i);
                logits[i] = 0;
            }
        for (int i = 0; i < 37; i++)
            logits[i] = -INFINITY;
        CHECK(el_sampler_choose(s, logits, &out) == EDGELLM_ENUMERIC, "all -infinity");
        logits[36] = -FLT_MAX; /* finite, so the only choice */
        CHECK(draw(s, logits) == 36, "one finite logit");
        logits[35] = FLT_MAX;
        CHECK(draw(s, logits) == 35, "largest finite logit");
        el_sampler_free(s);
        memset(logits, 0, sizeof logits);
    }
    for (int i = 0; i < 37; i++)
        never[i] = (edgellm_logit_bias){i, -INFINITY};
    p.bias = never;
    p.n_bias = 37;
    el_sampler *s = sampler(&p, 37);
    CHECK(el_sampler_choose(s, logits, &out) == EDGELLM_EINVAL, "all forbidden");
    el_sampler_free(s);
}

/* ---- greedy, penalties, log-probabilities ----------------------------------------------- */

static void test_greedy(void)
{
    edgellm_sampling p = settings();

    p.temperature = 0;
    p.typical_p = 0.01f; /* filters do not matter */
    for (int round = 0; round < 500; round++) {
        float logits[100];
        const int n = 1 + below(100);
        el_sampler *s = sampler(&p, n);
        int32_t best = 0;

        for (int i = 0; i < n; i++)
            logits[i] = (float)below(10) - 5;
        for (int i = n - 1; i >= 0; i--)
            best = logits[i] >= logits[best] ? i : best;
        CHECK(draw(s, logits) == best, "n %d", n);
        el_sampler_free(s);
    }
}

static void test_penalties(void)
{
    enum { N_VOCAB = 60, N_HISTORY = 1500 };
    static const int windows[] = {-1, 0, 1, 2, 63, 64, 65, 200, INT32_MAX};

    for (size_t w = 0; w < EL_COUNT(windows); w++) {
        edgellm_sampling p = settings();
        el_penalties penalties;
        int32_t history[N_HISTORY];

        p.penalty_last_n = windows[w];
        p.repeat_penalty = 1.3f;
        p.presence_penalty = 0.25f;
        p.frequency_penalty = -0.125f;
        el_penalties_init(&penalties, &p);
        for (int n = 0; n < N_HISTORY; n++) {
            float actual[N_VOCAB], expected[N_VOCAB];

            history[n] = below(N_VOCAB) * below(N_VOCAB) / N_VOCAB; /* some often, some seldom */
            CHECK(el_penalties_accept(&penalties, history[n]) == EDGELLM_OK, "accept");
            for (int i = 0; i < N_VOCAB; i++) {
                int count = 0;
                float x = (float)below(100) / 8 - 6;

                actual[i] = x;
                for (int k = n; k >= 0 && (windows[w] < 0 || n - k < windows[w]); k--)
                    count += history[k] == i;
                if (count > 0) {
                    x = x > 0 ? x / 1.3f : x * 1.3f;
                    x -= (float)count * -0.125f + 0.25f;
                }
                expected[i] = x;
            }
            el_penalties_apply(&penalties, actual, N_VOCAB);
            CHECK(memcmp(actual, expected, sizeof actual) == 0, "window %d, token %d", windows[w], n);
        }
        el_penalties_free(&penalties);
    }
}

/* Many more different tokens than the window holds: the hash forgets those that left. */
static void test_penalty_memory(void)
{
    edgellm_sampling p = settings();
    el_penalties penalties;

    p.repeat_penalty = 2;
    el_penalties_init(&penalties, &p);
    for (int32_t i = 0; i < 200000; i++)
        CHECK(el_penalties_accept(&penalties, i) == EDGELLM_OK, "accept");
    CHECK(penalties.n_slots <= 512 && penalties.ring_cap <= 64, "%zu slots", penalties.n_slots);
    el_penalties_free(&penalties);
}

static void test_bias_and_penalties_in_choose(void)
{
    const edgellm_logit_bias bias[] = {{2, 5}, {0, -INFINITY}, {2, -1}};
    const float logits[] = {9, 3, 0, 3.5f};
    edgellm_sampling p = settings();
    edgellm_sampled out;

    p.temperature = 0;
    p.bias = bias;
    p.n_bias = 3;
    p.frequency_penalty = 1;
    p.n_logprobs = 4;
    el_sampler *s = sampler(&p, 4);
    CHECK(draw(s, logits) == 2, "0 is forbidden, 2 was raised to 4");
    el_sampler_accept(s, 2);
    CHECK(draw(s, logits) == 3, "one occurrence lowers 2 to 3");
    CHECK(el_sampler_choose(s, logits, &out) == EDGELLM_OK && out.top_tokens[0] == 0 && out.n_top == 4,
          "log-probabilities are of the model's own distribution");
    el_sampler_free(s);
}

static void test_logprobs(void)
{
    enum { N = 500 };

    for (int round = 0; round < 50; round++) {
        edgellm_sampling p = plain((uint64_t)round);
        const int n = 1 + below(N);
        const float scale = (float)(1 << below(8));
        float logits[N];
        long double sum = 0;
        edgellm_sampled out;

        p.n_logprobs = below(22) - 1;
        for (int i = 0; i < n; i++) {
            logits[i] = below(10) ? (float)(uniform() - 0.5) * scale : -INFINITY;
            logits[i] = i == n / 2 ? scale : logits[i];
            sum += expl((long double)logits[i] - scale);
        }
        el_sampler *s = sampler(&p, n);
        CHECK(el_sampler_choose(s, logits, &out) == EDGELLM_OK, "%s", el_error_text());
        if (p.n_logprobs < 0) {
            CHECK(out.logprob == 0 && out.n_top == 0, "none asked for");
        } else {
            const double expected = (double)((long double)logits[out.token] - scale - logl(sum));

            CHECK(fabs(out.logprob - expected) <= 1e-6 * (1 + fabs(expected)), "%g %g", (double)out.logprob, expected);
            CHECK(out.n_top <= p.n_logprobs && (out.n_top == 0 || out.top_tokens[0] == n / 2), "%d top", out.n_top);
        }
        for (int i = 1; i < out.n_top; i++)
            CHECK(out.top_logprobs[i] <= out.top_logprobs[i - 1] && out.top_logprobs[i] > -INFINITY, "order");
        el_sampler_free(s);
    }
}

/* ---- filters against the obvious version ------------------------------------------------ */

typedef struct slow_token {
    int id;
    double logit, p, order;
} slow_token;

static int by_order(const void *a, const void *b)
{
    const slow_token *x = a, *y = b;

    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return x->id - y->id;
}

static int by_id(const void *a, const void *b) { return ((const slow_token *)a)->id - ((const slow_token *)b)->id; }

static void slow_softmax(slow_token *t, int n, double temperature)
{
    double peak = -INFINITY, sum = 0;

    for (int i = 0; i < n; i++)
        peak = fmax(peak, t[i].logit);
    for (int i = 0; i < n; i++)
        sum += t[i].p = exp((t[i].logit - peak) / temperature);
    for (int i = 0; i < n; i++)
        t[i].p /= sum;
}

static int slow_share(slow_token *t, int n, double share)
{
    double sum = 0;
    int kept = 0;

    qsort(t, (size_t)n, sizeof *t, by_order);
    while (kept == 0 || (kept < n && sum < share))
        sum += t[kept++].p;
    return kept;
}

/* Sorts everything for every filter, as the papers describe them. */
static int slow_draw(const edgellm_sampling *p, const float *logits, int n, double u)
{
    slow_token t[400];
    double entropy = 0, best = 0, sum = 0;

    for (int i = 0; i < n; i++)
        t[i] = (slow_token){i, logits[i], 0, -(double)logits[i]};
    qsort(t, (size_t)n, sizeof *t, by_order);
    if (p->top_k > 0 && p->top_k < n)
        n = p->top_k;
    if (p->typical_p < 1) {
        qsort(t, (size_t)n, sizeof *t, by_id);
        slow_softmax(t, n, 1);
        for (int i = 0; i < n; i++)
            entropy -= t[i].p > 0 ? t[i].p * log(t[i].p) : 0;
        for (int i = 0; i < n; i++) /* float: equal logits of a tie must stay equal, near ones may */
            t[i].order = (float)fabs(-log(t[i].p) - entropy);
        n = slow_share(t, n, p->typical_p);
    }
    for (int i = 0; i < n; i++)
        t[i].order = -t[i].logit;
    if (p->top_p < 1) {
        slow_softmax(t, n, 1);
        n = slow_share(t, n, p->top_p);
    }
    qsort(t, (size_t)n, sizeof *t, by_order);
    slow_softmax(t, n, 1);
    best = t[0].p;
    while (p->min_p > 0 && n > 1 && t[n - 1].p < best * p->min_p * (1 - 1e-12))
        n--;
    qsort(t, (size_t)n, sizeof *t, by_id);
    slow_softmax(t, n, p->temperature);
    for (int i = 0; i < n; i++)
        if ((sum += t[i].p) > u)
            return t[i].id;
    return -1;
}

static void test_filters(void)
{
    for (int round = 0; round < 6000; round++) {
        edgellm_sampling p = plain(next_random());
        const int n = 1 + below(round % 3 ? 12 : 400);
        const double scale = pow(2, below(7) - 2);
        float logits[400];

        for (int i = 0; i < n; i++) { /* a third of the rounds with ties, some tokens impossible */
            logits[i] = (float)(uniform() * scale);
            if (round % 3 == 0)
                logits[i] = (float)below(8);
            if (i > 0 && below(20) == 0)
                logits[i] = -INFINITY;
        }
        p.top_k = below(2) ? below(60) : 0;
        p.typical_p = below(3) ? 1 : (float)uniform();
        p.top_p = below(2) ? 1 : (float)uniform();
        p.min_p = below(2) ? 0 : (float)uniform();
        p.temperature = (float)(0.05 + 3 * uniform());
        el_sampler *s = sampler(&p, n);
        for (uint64_t i = 0; i < 8; i++) {
            const int expected = slow_draw(&p, logits, n, el_philox_uniform(p.seed, i));
            const int actual = draw(s, logits);

            CHECK(actual == expected,
                  "round %d draw %d: %d, expected %d (n %d, top_k %d, typical %g, top_p %g, min_p %g)", round, (int)i,
                  actual, expected, n, p.top_k, (double)p.typical_p, (double)p.top_p, (double)p.min_p);
        }
        el_sampler_free(s);
    }
}

static void test_extreme_settings(void)
{
    static const float logits[] = {1, 3, 2, 3};
    static const float tiny[] = {1e-30f, 1e-45f};
    edgellm_sampling p = plain(1);

    for (int i = 0; i < 2; i++) { /* all weight on the two best */
        p.temperature = tiny[i];
        el_sampler *s = sampler(&p, 4);
        for (int k = 0; k < 50; k++)
            CHECK(draw(s, logits) % 2 == 1, "temperature %g", (double)tiny[i]);
        el_sampler_free(s);
    }
    p = plain(1);
    p.top_p = 0; /* at least one stays: the lowest id of the best */
    el_sampler *s = sampler(&p, 4);
    for (int k = 0; k < 50; k++)
        CHECK(draw(s, logits) == 1, "top_p 0");
    el_sampler_free(s);
    p = plain(1);
    p.top_k = 1;
    s = sampler(&p, 4);
    for (int k = 0; k < 50; k++)
        CHECK(draw(s, logits) == 1, "top_k 1");
    el_sampler_free(s);
}

/* ---- statistics ----------------------------------------------------------------------- */

/* Chi-square of counts against expected ones; more than df + 4 sqrt(2 df) happens about once in 20,000 times, and
 * the seeds are fixed. */
static void check_chi_square(const char *name, const int *counts, const double *expected, int n, int df)
{
    double chi = 0;

    for (int i = 0; i < n; i++)
        chi += (counts[i] - expected[i]) * (counts[i] - expected[i]) / expected[i];
    CHECK(chi < df + 4 * sqrt(2.0 * df), "%s: chi-square %.1f with %d degrees of freedom", name, chi, df);
    CHECK(chi > df - 4 * sqrt(2.0 * df), "%s: too even, chi-square %.1f", name, chi);
}

static void test_statistics(void)
{
    enum { N = 50, DRAWS = 100000 };
    float logits[N];
    double expected[N], sum = 0;
    int along[N] = {0}, across[N] = {0};
    edgellm_sampling p = plain(12345);
    el_sampler *s = sampler(&p, N);

    for (int i = 0; i < N; i++)
        sum += expected[i] = exp((double)(logits[i] = (float)(3 * uniform())) * 0.5);
    for (int i = 0; i < N; i++)
        expected[i] *= DRAWS / sum;
    el_sampler_free(s);
    p.temperature = 2;
    s = sampler(&p, N);
    for (int i = 0; i < DRAWS; i++)
        along[draw(s, logits)]++;
    el_sampler_free(s);
    for (int i = 0; i < DRAWS; i++) { /* the first draw of many seeds in a row */
        p.seed = (uint64_t)i;
        s = sampler(&p, N);
        across[draw(s, logits)]++;
        el_sampler_free(s);
    }
    check_chi_square("draws of one seed", along, expected, N, N - 1);
    check_chi_square("first draws of many seeds", across, expected, N, N - 1);
}

/* Pairs (this draw, the next one) and (this seed, the next one) fill an 8 x 8 table evenly. */
static void test_independence(void)
{
    enum { SIDE = 8, PAIRS = 64000 };
    static const float logits[SIDE] = {0};
    double expected[SIDE * SIDE];
    int next_draw[SIDE * SIDE] = {0}, next_seed[SIDE * SIDE] = {0};
    edgellm_sampling p = plain(0);
    el_sampler *s = sampler(&p, SIDE);
    int last = draw(s, logits), last_of_seed = last;

    for (int i = 0; i < SIDE * SIDE; i++)
        expected[i] = (double)PAIRS / (SIDE * SIDE);
    for (int i = 0; i < PAIRS; i++) {
        const int token = draw(s, logits);

        next_draw[last * SIDE + token]++;
        last = token;
        p.seed = (uint64_t)i + 1;
        el_sampler *other = sampler(&p, SIDE);
        const int first = draw(other, logits);
        next_seed[last_of_seed * SIDE + first]++;
        last_of_seed = first;
        el_sampler_free(other);
    }
    el_sampler_free(s);
    check_chi_square("neighbouring draws", next_draw, expected, SIDE * SIDE, SIDE * SIDE - 1);
    check_chi_square("neighbouring seeds", next_seed, expected, SIDE * SIDE, SIDE * SIDE - 1);
}

/* What one sequence draws is the same alone and with another one drawing in between. */
static void test_neighbours(void)
{
    enum { N = 300, STEPS = 200 };
    float logits[N];
    int alone[STEPS];
    edgellm_sampling p = settings(), q = plain(9);

    for (int i = 0; i < N; i++)
        logits[i] = (float)(6 * uniform());
    p.seed = 77;
    p.repeat_penalty = 1.1f;
    for (int together = 0; together < 2; together++) {
        el_sampler *s = sampler(&p, N), *other = sampler(&q, N);

        for (int i = 0; i < STEPS; i++) {
            const int token = draw(s, logits);

            el_sampler_accept(s, token);
            if (together) {
                CHECK(token == alone[i], "step %d", i);
                draw(other, logits);
            }
            alone[i] = token;
        }
        el_sampler_free(s);
        el_sampler_free(other);
    }
}

/* A vocabulary of Gemma's size through every path; also that scratch is kept: nothing is allocated after a while. */
static void test_large_vocabulary(void)
{
    enum { N = 262144 };
    float *logits = malloc(N * sizeof *logits);
    edgellm_sampled out;

    if (!logits)
        exit(1);
    for (int i = 0; i < N; i++)
        logits[i] = (float)(20 * uniform() * uniform() * uniform());
    for (int mode = 0; mode < 4; mode++) {
        edgellm_sampling p = mode ? plain((uint64_t)mode) : settings();

        p.n_logprobs = 20;
        p.top_p = mode == 1 ? 0.9f : p.top_p;
        p.typical_p = mode == 2 ? 0.9f : 1;
        el_sampler *s = sampler(&p, N);
        CHECK(el_sampler_choose(s, logits, &out) == EDGELLM_OK && out.n_top == 20, "%s", el_error_text());
        el_test_fail_after(1);
        for (int i = 0; i < 3; i++)
            CHECK(el_sampler_choose(s, logits, &out) == EDGELLM_OK, "%s", el_error_text());
        el_test_fail_after(-1);
        el_sampler_free(s);
    }
    free(logits);
}

/* ---- text stream ---------------------------------------------------------------------- */

static edgellm_text text_of(const char *s) { return (edgellm_text){s, strlen(s)}; }

static el_text_stream *stream_of(const edgellm_text *stops, size_t n)
{
    el_text_stream *s;

    if (el_text_stream_new(&s, stops, n) != EDGELLM_OK) {
        printf("el_text_stream_new: %s\n", el_error_text());
        exit(1);
    }
    return s;
}

/* Takes all that is ready in bites of cap bytes; every bite is whole code points. Returns the new length. */
static size_t take_all(el_text_stream *s, char *out, size_t n, size_t cap)
{
    char bite[64];
    size_t got;

    while ((got = el_text_stream_take(s, bite, cap)) > 0) {
        CHECK(got <= cap && (bite[0] & 0xC0) != 0x80, "bite of %zu", got);
        memcpy(out + n, bite, got);
        n += got;
    }
    return n;
}

/* The rule itself: the text up to the first place where a stop string begins. */
static size_t slow_stop(const char *text, size_t n, const edgellm_text *stops, size_t n_stops)
{
    for (size_t at = 0; at < n; at++)
        for (size_t i = 0; i < n_stops; i++)
            if (stops[i].n_bytes <= n - at && memcmp(text + at, stops[i].data, stops[i].n_bytes) == 0)
                return at;
    return n;
}

/* Pushes text[0 .. n) cut at a and b, and compares with what is expected. */
static void check_split(const char *text, size_t n, size_t a, size_t b, const edgellm_text *stops, size_t n_stops,
                        const char *expected, size_t n_expected)
{
    el_text_stream *s = stream_of(stops, n_stops);
    char out[512];
    size_t length = 0;
    bool stopped = false;

    CHECK(el_text_stream_push(s, text, a, &stopped) == EDGELLM_OK, "push");
    length = take_all(s, out, length, 4);
    CHECK(el_text_stream_push(s, text + a, b - a, &stopped) == EDGELLM_OK, "push");
    length = take_all(s, out, length, 64);
    CHECK(el_text_stream_push(s, text + b, n - b, &stopped) == EDGELLM_OK, "push");
    length = take_all(s, out, length, 5);
    CHECK(length <= n_expected, "gave %zu bytes, only %zu are text", length, n_expected);
    CHECK(el_text_stream_finish(s) == EDGELLM_OK, "finish");
    length = take_all(s, out, length, 7);
    CHECK(length == n_expected && memcmp(out, expected, length) == 0, "'%.*s' cut at %zu, %zu gives '%.*s'", (int)n,
          text, a, b, (int)length, out);
    el_text_stream_free(s);
}

static void check_all_splits(const char *text, size_t n, const edgellm_text *stops, size_t n_stops,
                             const char *expected, size_t n_expected)
{
    for (size_t a = 0; a <= n; a++)
        for (size_t b = a; b <= n; b++)
            check_split(text, n, a, b, stops, n_stops, expected, n_expected);
}

static void test_stop_strings(void)
{
    static const struct {
        const char *text, *stops[3], *expected;
    } cases[] = {
        {"one\n\nUser: two", {"\n\nUser:", "###"}, "one"},
        {"one\n\nUse two", {"\n\nUser:", "###"}, "one\n\nUse two"},
        {"a##b###c", {"###"}, "a##b"},
        {"a##b####", {"###"}, "a##b"},
        {"xabcd", {"bc", "abcd"}, "x"},
        {"xabce", {"bc", "abcd"}, "xa"},
        {"xabc", {"bc", "abcd"}, "xa"},
        {"xababac", {"abac", "bab"}, "xa"},
        {"STOP", {"STOP"}, ""},
        {"Zeit läuft – ende", {"–", "ß"}, "Zeit läuft "},
        {"naïve 😀 stop 😀😁", {"😀😁"}, "naïve 😀 stop "},
        {"ends with STO", {"STOP"}, "ends with STO"},
    };

    for (size_t i = 0; i < EL_COUNT(cases); i++) {
        edgellm_text stops[3];
        size_t n = 0;

        while (n < 3 && cases[i].stops[n]) {
            stops[n] = text_of(cases[i].stops[n]);
            n++;
        }
        check_all_splits(cases[i].text, strlen(cases[i].text), stops, n, cases[i].expected, strlen(cases[i].expected));
    }
}

/* Few letters make many overlaps. One byte at a time, against the rule. */
static void test_random_stops(void)
{
    for (int round = 0; round < 20000; round++) {
        char text[40], words[3][8], out[64];
        edgellm_text stops[3];
        const size_t n = (size_t)below(40), n_stops = 1 + (size_t)below(3);
        size_t length = 0;
        bool stopped = false;

        for (size_t i = 0; i < n; i++)
            text[i] = (char)('a' + below(2));
        for (size_t i = 0; i < n_stops; i++) {
            stops[i] = (edgellm_text){words[i], 1 + (size_t)below(8)};
            for (size_t k = 0; k < stops[i].n_bytes; k++)
                words[i][k] = (char)('a' + below(2));
        }
        el_text_stream *s = stream_of(stops, n_stops);
        const size_t expected = slow_stop(text, n, stops, n_stops);
        for (size_t i = 0; i < n; i++) {
            CHECK(el_text_stream_push(s, &text[i], 1, &stopped) == EDGELLM_OK, "push");
            length = take_all(s, out, length, 64);
            CHECK(length <= expected && (stopped || length + 8 > i), "at most 7 bytes wait");
        }
        CHECK(!stopped || expected < n, "stopped without a stop string");
        CHECK(el_text_stream_finish(s) == EDGELLM_OK, "finish");
        length = take_all(s, out, length, 64);
        CHECK(length == expected && memcmp(out, text, length) == 0, "round %d: %zu bytes, expected %zu", round, length,
              expected);
        el_text_stream_free(s);
    }
}

static void test_stopped(void)
{
    const edgellm_text stop = text_of("END");
    el_text_stream *s = stream_of(&stop, 1);
    char out[64];
    bool stopped = true;

    CHECK(el_text_stream_push(s, "text EN", 7, &stopped) == EDGELLM_OK && !stopped, "not yet");
    CHECK(take_all(s, out, 0, 64) == 5, "EN waits");
    CHECK(el_text_stream_push(s, "D more", 6, &stopped) == EDGELLM_OK && stopped, "found");
    CHECK(el_text_stream_push(s, "more", 4, &stopped) == EDGELLM_OK && stopped, "still stopped");
    CHECK(el_text_stream_finish(s) == EDGELLM_OK && take_all(s, out, 0, 64) == 0, "nothing after it");
    el_text_stream_free(s);
}

static void test_bad_stops(void)
{
    static char long_text[5000];
    const edgellm_text bad[] = {{"", 0}, {NULL, 3}, {"\xC3", 1}, {"a\xFFz", 3}, {long_text, sizeof long_text}};
    el_text_stream *s;

    memset(long_text, 'a', sizeof long_text);
    for (size_t i = 0; i < EL_COUNT(bad); i++) {
        CHECK(el_text_stream_new(&s, &bad[i], 1) == EDGELLM_EINVAL && !s, "case %zu", i);
        CHECK(strstr(el_error_text(), "stop string 0"), "%s", el_error_text());
    }
    CHECK(el_text_stream_new(&s, NULL, 2) == EDGELLM_EINVAL && !s, "NULL");
    CHECK(el_text_stream_new(&s, bad, 257) == EDGELLM_EINVAL && !s, "too many");
}

#define BAD "\xEF\xBF\xBD"

/* Expected: b"...".decode("utf-8", "replace") in Python. */
static void test_utf8(void)
{
    static const char *cases[][2] = {
        {"aé\xE2\x82\xAC😀z", "aé€😀z"},
        {"\xE2\x82"
         "A",
         BAD "A"},
        {"\xF0\x80\x80", BAD BAD BAD},
        {"\xED\xA0\x80", BAD BAD BAD},
        {"\xC0\xAF", BAD BAD},
        {"\xF0\x9F\x98", BAD},
        {"\xF0\x9F\x98\xE2\x82\xAC", BAD "€"},
        {"\xF4\x90\x80\x80", BAD BAD BAD BAD},
        {"x\x80\xBFy", "x" BAD BAD "y"},
        {"\xE2\xE2\x82", BAD BAD},
        {"\xFF\xFE", BAD BAD},
    };
    const edgellm_text stop = text_of("€uro");

    for (size_t i = 0; i < EL_COUNT(cases); i++)
        for (size_t n_stops = 0; n_stops < 2; n_stops++)
            check_all_splits(cases[i][0], strlen(cases[i][0]), &stop, n_stops, cases[i][1], strlen(cases[i][1]));
    check_all_splits("ab\xE2\x82€uro", 11, &stop, 1, "ab" BAD, 5);
    check_all_splits("a\0b", 3, &stop, 1, "a\0b", 3);
}

/* The cost of a byte stays bounded when almost everything is held back: a quadratic version would not end. */
static void test_long_holdback(void)
{
    static char stop_text[4096], piece[1024];
    edgellm_text stops[16];
    char out[4096];
    size_t n = 0;
    bool stopped;

    memset(stop_text, 'a', sizeof stop_text);
    stop_text[4095] = 'b';
    memset(piece, 'a', sizeof piece);
    for (int i = 0; i < 16; i++)
        stops[i] = (edgellm_text){stop_text, sizeof stop_text};
    el_text_stream *s = stream_of(stops, 16);
    for (int i = 0; i < 100000; i++) {
        CHECK(el_text_stream_push(s, piece, i % 10 ? 1 : 30, &stopped) == EDGELLM_OK && !stopped, "push");
        n += el_text_stream_take(s, out, sizeof out);
    }
    CHECK(n == 390000 - 4095, "%zu bytes", n);
    el_text_stream_free(s);
}

/* ---- memory --------------------------------------------------------------------------- */

/* Whichever allocation fails: ENOMEM, nothing leaks (run under a sanitizer), and the next try works. */
static void test_out_of_memory(void)
{
    const edgellm_logit_bias bias = {1, 2};
    const int32_t stop_token = 3;
    const edgellm_text stop = text_of("stop");
    float logits[200];
    int n_refused = 0;

    for (int i = 0; i < 200; i++)
        logits[i] = (float)uniform();
    for (int n = 1; n < 40; n++) {
        edgellm_sampling p = plain(4);
        el_sampler *s = NULL;
        el_text_stream *t = NULL;
        edgellm_sampled out;
        edgellm_status status;
        bool stopped;

        p.bias = &bias;
        p.n_bias = 1;
        p.stop_tokens = &stop_token;
        p.n_stop_tokens = 1;
        p.repeat_penalty = 1.5f;
        p.top_k = 100;
        p.typical_p = 0.9f;
        p.top_p = 0.9f;
        el_test_fail_after(n);
        status = el_sampler_new(&s, &p, 200);
        for (int i = 0; i < 100 && status == EDGELLM_OK; i++)
            status = el_sampler_accept(s, i);
        if (status == EDGELLM_OK)
            status = el_sampler_choose(s, logits, &out);
        if (status == EDGELLM_OK)
            status = el_text_stream_new(&t, &stop, 1);
        for (int i = 0; i < 100 && status == EDGELLM_OK; i++)
            status = el_text_stream_push(t, "text st", 7, &stopped);
        if (status == EDGELLM_OK)
            status = el_text_stream_finish(t);
        CHECK(status == EDGELLM_OK || status == EDGELLM_ENOMEM, "status %d", (int)status);
        n_refused += status == EDGELLM_ENOMEM;
        el_test_fail_after(-1);
        if (s)
            draw(s, logits);
        el_sampler_free(s);
        el_text_stream_free(t);
    }
    CHECK(n_refused >= 10 && n_refused < 39, "%d refused", n_refused);
    el_sampler_free(NULL);
    el_text_stream_free(NULL);
}

int main(void)
{
    test_philox();
    test_exp();
    test_select_top();
    test_settings();
    test_unsound_logits();
    test_greedy();
    test_penalties();
    test_penalty_memory();
    test_bias_and_penalties_in_choose();
    test_logprobs();
    test_filters();
    test_extreme_settings();
    test_statistics();
    test_independence();
    test_neighbours();
    test_large_vocabulary();
    test_stop_strings();
    test_random_stops();
    test_stopped();
    test_bad_stops();
    test_utf8();
    test_long_holdback();
    test_out_of_memory();
    if (n_failed)
        printf("test_sample: %d checks failed\n", n_failed);
    return n_failed != 0;
}
