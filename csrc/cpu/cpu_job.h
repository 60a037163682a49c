/* cpu_job.h - what a region computes: the jobs that the planner (cpu_plan.c) makes and the workers run.
 * Jobs read tensors' data when they run, so the planner may place tensors after it has made the jobs. */
#ifndef EL_CPU_JOB_H
#define EL_CPU_JOB_H

#include "cpu_op.h"
#include "cpu_plan.h"
#include "ggml.h"
#include "kernels.h"
#include "mem.h"
#include "workers.h"

enum {
    EL_ROW_OPS = 12,
    EL_EPILOGUE_OPS = 10,
    EL_GROUP = 6,
    EL_MAX_USED_EXPERTS = 64,
    EL_ROWS_PER_CHUNK = 4 /* of regions that go by rows */
};

/* Chunks of a region that goes by rows. */
static inline int32_t el_row_chunks(int64_t n_rows)
{
    return (int32_t)((n_rows + EL_ROWS_PER_CHUNK - 1) / EL_ROWS_PER_CHUNK);
}

/* ---- row programs: one row of floats through a chain of operations ------------------------ */

typedef enum el_row_kind {
    EL_ROW_LOAD,       /* row = a[r] */
    EL_ROW_EMBED,      /* row = dequantized a[ids[r]], a being a weight */
    EL_ROW_ADD,        /* row += a[r] */
    EL_ROW_MUL,        /* row *= a[r] */
    EL_ROW_SUM_VECTOR, /* row += a, the same for all rows */
    EL_ROW_MUL_VECTOR, /* row *= a */
    EL_ROW_NORM,       /* row = row / rms(row) * a, f: epsilon; a NULL: 1 */
    EL_ROW_LAYER_NORM, /* row = (row - mean) / deviation, f: epsilon */
    EL_ROW_SCALE,      /* row *= f */
    EL_ROW_SCALE_BY,   /* row *= a[r], one number */
    EL_ROW_MAP,        /* row = map(row) */
    EL_ROW_GATE,       /* row = map(a[r], row) */
    EL_ROW_STORE       /* a[r] = row */
} el_row_kind;

typedef struct el_row_op {
    el_row_kind kind;
    const struct ggml_tensor *a;
    const struct ggml_tensor *ids; /* row r of a is a[ids[r]]; NULL: a[r] */
    float f;
    el_map map;
    float params[4];
} el_row_op;

typedef struct el_row_program {
    int32_t n_ops;
    bool stores;   /* has an EL_ROW_STORE */
    int64_t width; /* floats in a row */
    int64_t n_rows;
    el_row_op ops[EL_ROW_OPS];
} el_row_program;

/* Leaves row r in `row` (width floats). store: whether this run is the one that stores. */
void el_row_program_run(const el_kernels *k, const el_row_program *p, int64_t r, float *row, bool store);

/* ---- matrix products that share their input ----------------------------------------------- */

typedef enum el_epilogue_kind {
    EL_EPI_BIAS,       /* y += a, a vector over the outputs */
    EL_EPI_MUL,        /* y *= a, a vector over the outputs */
    EL_EPI_DIV,        /* y /= a, a vector over the outputs */
    EL_EPI_HEAD_BIAS,  /* each head += a */
    EL_EPI_HEAD_MUL,   /* each head *= a */
    EL_EPI_NORM,       /* each head /= its rms, f: epsilon, then *= a, unless that is NULL */
    EL_EPI_LAYER_NORM, /* each head = (head - mean) / deviation, f: epsilon */
    EL_EPI_ROPE,       /* rotates by the angles of `rope` */
    EL_EPI_SCALE,      /* y *= a[r], one number */
    EL_EPI_FACTOR,     /* y *= a[0] */
    EL_EPI_SOFTCAP,    /* y = f * tanh(y / f) */
    EL_EPI_MAP,        /* y = map(y) */
    EL_EPI_RESIDUAL,   /* y += a[r] */
    EL_EPI_ROW_MUL     /* y *= a[r], a row */
} el_epilogue_kind;

typedef struct el_epilogue {
    el_epilogue_kind kind;
    const struct ggml_tensor *a;
    const struct el_rope_job *rope;
    float f;
    el_map map;
    float params[4];
} el_epilogue;

typedef struct el_product {
    const struct ggml_tensor *w;
    int32_t n_epilogue;
    el_epilogue epilogue[EL_EPILOGUE_OPS];
    int64_t head;                    /* floats that epilogues need together; 1: none do */
    const struct ggml_tensor *out;   /* rows of floats, or the cache pool when slots are given */
    const struct ggml_tensor *slots; /* out's row of each row; NULL: the same */
    int32_t glu;    /* -1, or the product whose output this one gates (the pair writes to this one's out) */
    el_map glu_map; /* EL_MAP_REGLU and its like */
    float glu_params[4];
    bool gated;    /* computed by the product that has it as glu */
    bool checked;  /* out is the plan's `checked` */
    bool complete; /* the planner knows all that follows */
    int32_t first_chunk, n_chunks;
    int64_t rows_per_chunk;
} el_product;

/* How rows of activations are kept for a weight type: by our kernels, or by ggml's where we have none. */
typedef struct el_act_format {
    bool own;
    int kind; /* el_act_kind, or ggml_type */
    size_t stride;
} el_act_format;

typedef struct el_matmul_job {
    el_cpu_plan *plan;
    el_row_program input;          /* one row of activations */
    const struct ggml_tensor *act; /* rows quantized by an earlier region, or NULL: each worker does them itself */
    int64_t n_rows;
    int32_t n_products;
    el_product products[EL_GROUP];
    el_act_format format;
    int64_t rows_per_block; /* of activations, in a chunk */
    int32_t n_blocks;
} el_matmul_job;

/* One row of n activations into that format. */
void el_act_from_row(const el_cpu_plan *plan, const el_act_format *format, char *to, const float *row, int64_t n);
/* tile[j * ld + i]: row i of `rows` (which lie in w) times activation row j */
void el_multiply(const el_cpu_plan *plan, const el_act_format *format, float *tile, int64_t ld,
                 const struct ggml_tensor *w, const char *rows, int64_t n_rows, const char *act, int64_t n_act,
                 void *scratch);

void el_gate_row(const el_kernels *k, el_map map, float *y, const float *gate, const float *up, int64_t n,
                 const float *params);

void el_matmul_chunk(const void *job, int32_t chunk, int32_t worker);
bool el_matmul_ahead(const void *job, int32_t chunk, int32_t part);
void el_quantize_chunk(const void *job, int32_t chunk, int32_t worker); /* the same job: its input rows to act */

/* ---- row programs as a region of their own ------------------------------------------------ */

typedef struct el_rows_job {
    el_cpu_plan *plan;
    el_row_program program;
    int64_t rows_per_chunk;
} el_rows_job;

void el_rows_chunk(const void *job, int32_t chunk, int32_t worker);

/* ---- angles of rope, once per step for all layers that share them --------------------------- */

typedef struct el_rope_job {
    const struct ggml_tensor *positions, *factors; /* factors: NULL or divisors of the angles */
    const struct ggml_tensor *node;                /* the GGML_OP_ROPE whose parameters these are */
    int64_t n_rows;
    int32_t n_rot;
    bool halves;
    float *cosines, *sines; /* [n_rows][n_rot / 2] */
} el_rope_job;

void el_rope_chunk(const void *job, int32_t chunk, int32_t worker);

/* ---- attention ---------------------------------------------------------------------------- */

typedef struct el_attention_job {
    el_cpu_plan *plan;
    const struct ggml_tensor *q, *k, *v, *ranges, *tables, *out;
    const struct ggml_tensor *sinks; /* F32 [n_head]: scores without a value; or NULL */
    const float *slopes;             /* ALiBi's, [n_head]; NULL: none */
    el_attn shape;                   /* what does not change from call to call */
    int64_t n_head, n_head_kv, n_rows;
    int64_t heads_per_chunk; /* query heads that one chunk computes; divides the group of a key-value head */
    int64_t rows_per_chunk;
    int32_t n_segments;    /* at most, of a row */
    bool split;            /* a chunk is one segment, and a region after this one combines them */
    size_t partial_floats; /* of one query and segment */
    float *partials;       /* [row][head][segment], when split */
} el_attention_job;

void el_attention_chunk(const void *job, int32_t chunk, int32_t worker);
void el_combine_chunk(const void *job, int32_t chunk, int32_t worker);

/* ---- mixture of experts ------------------------------------------------------------------- */

/* Which rows go to which expert. An entry is one row's expert of one rank, number row * n_used + rank. */
typedef struct el_grouping {
    const struct ggml_tensor *ids; /* I32, a row for each row, of which the first n_used count */
    int64_t n_rows;
    int32_t n_used, n_expert;
    int32_t n_slots; /* experts that a step can need at most */
} el_grouping;

typedef struct el_groups {
    int32_t n;              /* experts that were chosen at all, ascending */
    const int32_t *experts; /* [n] */
    const int32_t *starts;  /* [n + 1]: their entries are entries[starts[i]] .. entries[starts[i + 1] - 1] */
    const int32_t *entries; /* ascending within an expert */
    const int32_t *places;  /* the other way round: where in `entries` an entry stands */
} el_groups;

struct el_worker_scratch;
size_t el_grouping_ints(const el_grouping *g); /* of a worker's scratch */
/* Every worker counts for itself: cheaper than waiting for one of them. tag: of the region and run. */
el_groups el_group_entries(const el_grouping *g, struct el_worker_scratch *s, uint64_t tag);

typedef enum el_gating { /* a router's logits to the experts' probabilities */
                         EL_GATE_NONE,
                         EL_GATE_SOFTMAX,
                         EL_GATE_SIGMOID,
                         EL_GATE_SOFTPLUS,
                         EL_GATE_SQRT_SOFTPLUS
} el_gating;

/* Everything between the router's logits and the layer's result, for all regions that do a part of it. Rank 0 is the
 * best. */
typedef struct el_experts_job {
    el_cpu_plan *plan;
    el_grouping grouping;             /* its ids are written by the first region */
    const struct ggml_tensor *logits; /* [n_expert, n_rows] */
    el_gating gating;
    const struct ggml_tensor *choice_bias; /* [n_expert], for the choice alone; or NULL */
    const struct ggml_tensor *weights;     /* F32 [n_used, n_rows] */
    bool softmax_chosen;                   /* of the chosen ones' weights */
    bool normalise;                        /* weights are divided by their sum, which counts as at least min_sum */
    float min_sum, factor;

    el_row_program input;
    el_act_format format;                                      /* of the input */
    const struct ggml_tensor *act;                             /* the input rows in that format */
    const struct ggml_tensor *gate, *up, *down;                /* gate NULL: the activation is of up alone */
    const struct ggml_tensor *gate_bias, *up_bias, *down_bias; /* F32, a row for each expert; or NULL */
    el_map map;
    float params[4];
    const struct ggml_tensor *hidden; /* F32 [n_ff, entries]: act(gate) * up */
    el_act_format hidden_format;
    const struct ggml_tensor *hidden_act; /* entries in that format, or NULL: each worker does them itself */
    const struct ggml_tensor *products;   /* F32 [n_embd, entries] of down; not written when rows are few */
    const struct ggml_tensor *residual;   /* or NULL */
    const struct ggml_tensor *out;        /* [n_embd, n_rows] */

    int64_t up_per_chunk, down_per_chunk; /* outputs */
    int32_t up_chunks, down_chunks;       /* of one expert */
    int64_t entries_per_block;            /* that a chunk gathers at a time */
} el_experts_job;

void el_choose_chunk(const void *job, int32_t chunk, int32_t worker);         /* which experts; input rows to act */
void el_experts_up_chunk(const void *job, int32_t chunk, int32_t worker);     /* gate and up: hidden */
void el_experts_hidden_chunk(const void *job, int32_t chunk, int32_t worker); /* hidden to hidden_act */
void el_experts_down_chunk(const void *job, int32_t chunk, int32_t worker);   /* many rows: products */
void el_experts_sum_chunk(const void *job, int32_t chunk, int32_t worker);    /* many rows: products to out */
void el_experts_out_chunk(const void *job, int32_t chunk, int32_t worker);    /* few rows: both at once */

/* ---- nodes that are a region each: their jobs begin with the node -------------------------- */

typedef struct el_op_job { /* an operation of our own */
    const struct ggml_tensor *node;
    const el_op *op;
} el_op_job;

void el_op_chunk(const void *job, int32_t chunk, int32_t worker);

struct el_worker_scratch;
typedef struct el_node_job el_node_job;
typedef void el_node_row(const el_node_job *job, int64_t row, const struct el_worker_scratch *s);

struct el_node_job { /* row by row */
    const struct ggml_tensor *node;
    el_cpu_plan *plan;
    el_node_row *row;
    int64_t n_rows, rows_per_chunk;
    el_map map;
    float params[4];
    bool halves, swapped; /* GLU: both arguments in one row, the value before the gate; argsort: ascending */
    const struct el_rope_job *rope;
};

el_node_row el_map_row, el_norm_row, el_sum_row, el_sort_row, el_softmax_row, el_copy_row, el_repeat_row, el_concat_row,
    el_gather_row, el_scatter_row, el_add_id_row, el_rope_row, el_fill_row;
void el_node_chunk(const void *job, int32_t chunk, int32_t worker);

typedef struct el_batched_job { /* a product of any shape */
    const struct ggml_tensor *node;
    el_cpu_plan *plan;
    el_act_format format;
    int64_t out_per_chunk, rows_per_chunk; /* a chunk: some outputs of some rows of one matrix */
    int64_t out_blocks, row_blocks;
    el_grouping grouping; /* when ids name the matrix */
} el_batched_job;

void el_batched_chunk(const void *job, int32_t chunk, int32_t worker);
void el_by_id_chunk(const void *job, int32_t chunk, int32_t worker);

/* ---- everything else: ggml's own code on one thread --------------------------------------- */

typedef struct el_fallback_job {
    const struct ggml_tensor *node;
    el_cpu_plan *plan;
    struct ggml_cgraph *nodes;
} el_fallback_job;

void el_fallback_chunk(const void *job, int32_t chunk, int32_t worker);

#endif
