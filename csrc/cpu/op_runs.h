/* op_runs.h - how operations with a recurrent memory read a step that holds pieces of several sequences. */
#ifndef EL_OP_RUNS_H
#define EL_OP_RUNS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "ggml.h"

typedef struct el_run { /* one column of el_graph_inputs.runs */
    int32_t first_row, n_rows;
    int32_t from; /* slot of the memory to read; -1: the sequence begins, its memory is zeros */
    int32_t to;   /* slot to write, never the one that is read */
} el_run;

static inline el_run el_run_at(const struct ggml_tensor *runs, int32_t i) { return ((const el_run *)runs->data)[i]; }

/* Row i of t, its first value at `at`. */
static inline float *el_row_of(const struct ggml_tensor *t, int64_t i, int64_t at)
{
    return (float *)(void *)((char *)t->data + (size_t)i * t->nb[1]) + at;
}

/* The part of the run's memory that this step writes, n floats from `at`, as the step before it left them. */
static inline float *el_run_state(const struct ggml_tensor *memory, el_run run, int64_t at, int64_t n)
{
    float *state = el_row_of(memory, run.to, at);

    if (run.from < 0)
        memset(state, 0, (size_t)n * sizeof *state);
    else
        memcpy(state, el_row_of(memory, run.from, at), (size_t)n * sizeof *state);
    return state;
}

#endif
