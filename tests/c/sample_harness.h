/* sample_harness.h - what the tests of the sampler share: checks that go on after a failure, inputs, samplers. */
#ifndef SAMPLE_HARNESS_H
#define SAMPLE_HARNESS_H

#include <stdio.h>
#include <stdlib.h>

#include "sample.h"

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
static inline uint64_t next_random(void)
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
static inline int below(int n) { return (int)(next_random() % (uint64_t)n); }
static inline double uniform(void) { return (double)(next_random() >> 11) * 0x1p-53; }

static inline edgellm_sampling settings(void)
{
    edgellm_sampling p;

    edgellm_sampling_init(&p);
    return p;
}

/* Everything off: draws follow the softmax of the logits. */
static inline edgellm_sampling plain(uint64_t seed)
{
    edgellm_sampling p = settings();

    p.temperature = 1;
    p.top_k = 0;
    p.top_p = 1;
    p.min_p = 0;
    p.seed = seed;
    return p;
}

static inline el_sampler *sampler(const edgellm_sampling *p, int32_t n_vocab)
{
    el_sampler *s;

    if (el_sampler_new(&s, p, n_vocab) != EDGELLM_OK) {
        printf("el_sampler_new: %s\n", el_error_text());
        exit(1);
    }
    return s;
}

static inline int32_t draw(el_sampler *s, const float *logits)
{
    edgellm_sampled out;

    CHECK(el_sampler_choose(s, logits, &out) == EDGELLM_OK, "%s", el_error_text());
    return out.token;
}

/* The exit code. */
static inline int report(const char *name)
{
    if (n_failed)
        printf("%s: %d checks failed\n", name, n_failed);
    return n_failed != 0;
}

#endif
