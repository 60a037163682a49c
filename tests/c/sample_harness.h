/* sample_harness.h - what the tests of the sampler share: numbers, settings, samplers. */
#ifndef SAMPLE_HARNESS_H
#define SAMPLE_HARNESS_H

#include <stdio.h>
#include <stdlib.h>

#include "harness.h"
#include "sample.h"

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
