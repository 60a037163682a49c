/* test_sample.c - the sampler's building blocks, settings, greedy choice, penalties and log-probabilities, and what
 * becomes of it when memory runs out. Exit code 0 when all is well; one line per failure otherwise. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "candidates.h"
#include "penalties.h"
#include "philox.h"
#include "sample_harness.h"
#include "softmax.h"

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

/* ---- memory --------------------------------------------------------------------------- */

/* Whichever allocation fails: ENOMEM, nothing leaks (run under a sanitizer), and the next try works. */
static void test_out_of_memory(void)
{
    const edgellm_logit_bias bias = {1, 2};
    const int32_t stop_token = 3;
    const edgellm_text stop = {"stop", 4};
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
    test_out_of_memory();
    return report("test_sample");
}
