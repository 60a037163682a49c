/* cpu_planner.h - what the planner's parts share while a plan is made. */
#ifndef EL_CPU_PLANNER_H
#define EL_CPU_PLANNER_H

#include "cpu_internal.h"

struct ggml_cgraph;

enum {
    EL_SMALL_ROWS =
        8, /* up to here every worker prepares the input rows itself instead of waiting for a region that does */
    EL_SHARED_ROWS = 16, /* up to here no memory is reused within a run, so no region waits for stragglers */
    EL_PLAN_ALIGN = 64
};

typedef enum el_node_state {
    EL_NODE_NEW,
    EL_NODE_PENDING, /* a row operation that waits for someone to need its rows */
    EL_NODE_FUSED,   /* part of a region that does not store it */
    EL_NODE_DONE     /* a region before this point of the list stores it */
} el_node_state;

typedef struct el_node_info {
    el_node_state state;
    int32_t n_uses;
    int32_t user; /* the last node that reads it */
    int32_t first_region, last_region;
    int32_t n_ops; /* of the row program that makes it, while it is pending */
} el_node_info;

typedef struct el_planner {
    el_cpu_plan *plan;
    el_cpu_arena **shared;
    struct ggml_cgraph *graph;
    el_node_info *info; /* by node, then by leaf */
    struct ggml_tensor **keys;
    int32_t *values;
    size_t n_slots;
    size_t act_bytes, row_floats, tile_floats, query_floats, kernel_bytes, group_ints; /* of each worker's scratch */
    int64_t max_rows;
    edgellm_status status;
} el_planner;

static inline size_t el_aligned(size_t n) { return (n + EL_PLAN_ALIGN - 1) / EL_PLAN_ALIGN * EL_PLAN_ALIGN; }

/* ---- plan_index.c ------------------------------------------------------------------------- */

edgellm_status el_index_graph(el_planner *p);
bool el_is_alias(const struct ggml_tensor *t);
struct ggml_tensor *el_base_of(const struct ggml_tensor *t); /* what t is a view of */
bool el_is_whole(const struct ggml_tensor *t);
bool el_are_same(const struct ggml_tensor *a, const struct ggml_tensor *b);
el_node_info *el_info_of(const el_planner *p, const struct ggml_tensor *t);
bool el_ready(const el_planner *p, const struct ggml_tensor *t);
struct ggml_tensor *el_only_user(const el_planner *p, const struct ggml_tensor *t);
float el_param(const struct ggml_tensor *t, int i);
/* Zeroed memory that lives as long as the plan; NULL sets the planner's status. */
void *el_own(el_planner *p, size_t n_bytes);
/* Appends a region; returns its number. */
int32_t el_emit(el_planner *p, el_chunk_fn *run, const void *job, int32_t n_chunks, bool exclusive);

/* ---- plan_rows.c -------------------------------------------------------------------------- */

bool el_is_rows(const struct ggml_tensor *t);
bool el_is_vector(const struct ggml_tensor *t, int64_t n);
bool el_can_pend(const struct ggml_tensor *t);
void el_pend(el_planner *p, const struct ggml_tensor *t);
void el_make_rows(el_planner *p, el_row_program *program, const struct ggml_tensor *t);
void el_store_rows(el_planner *p, const struct ggml_tensor *t);

/* ---- plan_products.c, plan_experts.c, plan_attention.c ------------------------------------ */

el_act_format el_format_for(const el_planner *p, const struct ggml_tensor *w);
bool el_is_weight(const el_planner *p, const struct ggml_tensor *w); /* one that products can be made with */
/* The header of n_rows quantized rows, which have no place yet. */
const struct ggml_tensor *el_act_rows(el_planner *p, const el_act_format *format, int64_t n_rows);

bool el_is_product(const el_planner *p, const struct ggml_tensor *t);
void el_plan_products(el_planner *p, int32_t first);
/* Regions for the experts whose router is that product, the product included; false: it is not a router, or what
 * follows is not what csrc/models builds. */
bool el_plan_experts(el_planner *p, int32_t router);
bool el_is_experts_region(const el_region *region);
bool el_is_cache_type(enum ggml_type type); /* of rows that attention reads and products write */
bool el_is_attention(const el_planner *p, const struct ggml_tensor *t);
void el_plan_attention(el_planner *p, struct ggml_tensor *t);

/* ---- plan_epilogues.c --------------------------------------------------------------------- */

/* The region that computes the angles of that rope node, made unless an earlier layer has it. NULL: no memory. */
const el_rope_job *el_rope_for(el_planner *p, const struct ggml_tensor *node);
/* Whether t reads all of that tensor, in its order, and leaves it as it is. */
bool el_takes_whole(const struct ggml_tensor *t, const struct ggml_tensor *of);
bool el_add_epilogue(el_product *product, el_epilogue e); /* false: there is no room */
/* Takes in what follows the product mm, as far as it can. Returns the last tensor taken in, NULL when that went to the
 * cache; *gate is the gating node that comes next, if one does. */
const struct ggml_tensor *el_follow_product(el_planner *p, const el_row_program *input, el_product *product,
                                            const struct ggml_tensor *mm, const struct ggml_tensor **gate);

/* ---- plan_nodes.c: nodes that are a region each ------------------------------------------- */

/* Before a region that reads t's sources as they lie in memory: those still pending are stored, and if t changes memory
 * in place, so is whatever pending node wants to read that memory as it was before. */
void el_store_sources(el_planner *p, const struct ggml_tensor *t);
bool el_writes_in_place(const struct ggml_tensor *t);
void el_plan_op(el_planner *p, struct ggml_tensor *t); /* an operation of our own (cpu_op.h) */
/* False: not an operation that goes by rows, or of types that are not supported there. */
bool el_plan_node(el_planner *p, struct ggml_tensor *t);
bool el_plan_any_product(el_planner *p, struct ggml_tensor *t); /* false: no product, or not of these types */
int el_map_of(const struct ggml_tensor *t, float params[4]);    /* the el_map that t applies, or -1 */

/* ---- plan_memory.c ------------------------------------------------------------------------ */

/* Before the plan is freed. */
void el_leave_arena(el_cpu_plan *plan);
void el_place_all(el_planner *p);
void el_make_scratch(el_planner *p);

#endif
