/* stock.h - a graph run by ggml's own CPU backend, behind the same five calls as ours (cpu_plan.h). Its results are
 * llama.cpp's to the last bit where the shapes of the steps agree, which makes it the one to compare with. */
#ifndef EL_STOCK_H
#define EL_STOCK_H

#include <stdatomic.h>
#include <stdbool.h>

#include "ggml_cpu.h"

struct ggml_cgraph;
typedef struct el_stock el_stock;

/* Someone who wants to see every product with a matrix of weights when it has just been computed and its inputs are
 * still in their place. An error ends the run. */
typedef struct el_watch {
    edgellm_status (*seen)(void *data, const struct ggml_tensor *product);
    void *data;
} el_watch;

bool el_is_watched(const struct ggml_tensor *t);

/* Gives every tensor of the graph without data a place; it lasts as long as the el_stock. watch: NULL for nobody. */
edgellm_status el_stock_new(el_stock **out, struct ggml_cgraph *graph, const el_ggml_cpu *ggml, int32_t n_threads,
                            const el_watch *watch);
void el_stock_free(el_stock *s); /* NULL is fine */
size_t el_stock_bytes(const el_stock *s);
void el_stock_begin(el_stock *s);
/* As el_cpu_plan_run. */
edgellm_status el_stock_run(el_stock *s, int32_t budget_ms, const _Atomic bool *cancel);

#endif
