/* nanbeige.c - Nanbeige 4: LLaMA whose stack may be gone through several times, each time with its own keys and values.
 * Source: Nanbeige LLM Lab 2025, the published model code. */
#include <string.h>

#include "arch.h"
#include "graph.h"
#include "layer_blocks.h"

enum { MAX_LOOPS = 64 };

/* Layers n .. 2 n - 1 are layers 0 .. n - 1 again, and so on. */
static edgellm_status nanbeige_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    const int32_t n = hp->n_layer;
    int32_t n_loops = 1;
    el_layer_hparams *grown;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_i32(file, arch, "num_loops", 1, MAX_LOOPS, &n_loops));
    if (n * n_loops > EL_MAX_LAYERS)
        return el_fail(EDGELLM_EFORMAT, "%s.num_loops is %d; with %d layers that makes more than %d", arch->name,
                       n_loops, n, EL_MAX_LAYERS);
    grown = el_realloc(hp->layers, (size_t)(n * n_loops), sizeof *grown);
    if (!grown)
        return el_no_memory((size_t)(n * n_loops) * sizeof *grown);
    hp->layers = grown;
    for (int32_t i = n; i < n * n_loops; i++) {
        hp->layers[i] = hp->layers[i % n];
        hp->layers[i].kv_of = i;
    }
    hp->n_layer_stored = n;
    hp->n_layer = n * n_loops;
done:
    return status;
}

/* Between two rounds comes the final norm, unless the file says otherwise. */
static struct ggml_tensor *nanbeige_layer(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_hparams *hp = &g->model->hp;
    bool skip = false;

    x = el_build_layer(g, layer, x);
    if (!x || layer == hp->n_layer - 1 || (layer + 1) % hp->n_layer_stored != 0)
        return x;
    (void)el_key_bool(g->model->file, g->model->arch, "skip_loop_final_norm", &skip);
    return skip ? x : el_build_norm(g, x, &g->model->output_norm);
}

EL_ARCH(nanbeige) = {.name = "nanbeige", .hparams = nanbeige_hparams, .layer = nanbeige_layer};
