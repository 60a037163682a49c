/* test_draws.c - what the sampler draws: its filters against slow, obvious versions of the same rules, and statistics.
 * Exit code 0 when all is well; one line per failure otherwise. */
#include <math.h>
#include <string.h>

#include "philox.h"
#include "sample_harness.h"

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

int main(void)
{
    test_filters();
    test_extreme_settings();
    test_statistics();
    test_independence();
    test_neighbours();
    test_large_vocabulary();
    return report("test_draws");
}
