/* print_logits.c - a line per model: its name and a hash of the logits' bits after a prompt and a few tokens chosen
 * from them. No test by itself: tools/arm_logits.py compares the lines of two processors. print_logits N_THREADS
 * MODEL... */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgellm.h"

enum { N_PROMPT = 40, N_STEPS = 6 };

static int failed(const char *model)
{
    fprintf(stderr, "%s: %s\n", model, edgellm_last_error());
    return 1;
}

/* FNV-1a over the words (Fowler, Noll and Vo). */
static uint64_t hash_floats(uint64_t hash, const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        hash = (hash ^ bits) * 1099511628211u;
    }
    return hash;
}

static int32_t best_of(const float *x, int32_t n)
{
    int32_t best = 0;

    for (int32_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

static int run(edgellm_engine *engine, int32_t n_vocab, const char *name)
{
    int32_t tokens[N_PROMPT], seq, n_rows;
    edgellm_item item = {.tokens = tokens, .n_tokens = N_PROMPT, .outputs = EDGELLM_OUT_LAST};
    uint64_t hash = 14695981039346656037u;

    for (int32_t i = 0; i < N_PROMPT; i++)
        tokens[i] = (i * 37 + 11) % n_vocab;
    if (edgellm_seq_open(engine, &seq) != EDGELLM_OK)
        return failed(name);
    item.seq = seq;
    for (int step = 0; step < N_STEPS; step++) {
        edgellm_status status = edgellm_step_begin(engine, &item, 1);
        const float *logits;
        while (status == EDGELLM_OK && (status = edgellm_step_run(engine, 0)) == EDGELLM_AGAIN)
            status = EDGELLM_OK;
        if (status != EDGELLM_OK || edgellm_step_logits(engine, 0, &logits, &n_rows) != EDGELLM_OK)
            return failed(name);
        hash = hash_floats(hash, logits, n_vocab);
        tokens[0] = best_of(logits, n_vocab);
        item.n_tokens = 1;
    }
    printf("%s %016llx\n", name, (unsigned long long)hash);
    return 0;
}

static int one_model(const char *path, int32_t n_threads)
{
    edgellm_model *model = NULL;
    edgellm_engine *engine = NULL;
    edgellm_engine_options options;
    int result = 1;

    edgellm_engine_options_init(&options);
    options.n_ctx = 64;
    options.n_threads = n_threads;
    if (edgellm_model_open(&model, path) != EDGELLM_OK || edgellm_engine_new(&engine, model, &options) != EDGELLM_OK)
        failed(path);
    else
        result = run(engine, edgellm_vocab_size(edgellm_model_vocab(model)), path);
    edgellm_engine_free(engine);
    edgellm_model_free(model);
    return result;
}

int main(int argc, char **argv)
{
    int result = argc < 3;

    for (int i = 2; i < argc; i++)
        result |= one_model(argv[i], atoi(argv[1]));
    return result;
}
