/* hrm.c - HRM-Text: two stacks of layers gone through in cycles. The low one runs several times for each time of the
 * high one, each time with keys and values of its own; norms have no weights. Source: Wang et al. 2025 (hierarchical
 * reasoning), section 2; the published model code. */
#include <string.h>

#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

enum { MAX_CYCLES = 64 };

typedef struct cycles {
    int32_t per_stack, high, low; /* layers of a stack; times the high one runs; of the low one, each time */
    struct ggml_tensor *start;    /* [n_embd]: of the low state */
} cycles;

static edgellm_status read_cycles(cycles *c, const el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    *c = (cycles){0};
    EL_TRY(el_key_i32(file, arch, "hrm.layers_per_stack", 1, EL_MAX_LAYERS / 2, &c->per_stack));
    EL_TRY(el_key_i32(file, arch, "hrm.h_cycles", 1, MAX_CYCLES, &c->high));
    EL_TRY(el_key_i32(file, arch, "hrm.l_cycles", 1, MAX_CYCLES, &c->low));
    EL_TRY(el_key_require(c->per_stack, arch, "hrm.layers_per_stack"));
    EL_TRY(el_key_require(c->high, arch, "hrm.h_cycles"));
    EL_TRY(el_key_require(c->low, arch, "hrm.l_cycles"));
    if ((int64_t)c->per_stack * c->high * (c->low + 1) != hp->n_layer)
        return el_fail(EDGELLM_EFORMAT, "%s.block_count is %d; the cycles of its two stacks make %lld", arch->name,
                       hp->n_layer, (long long)c->per_stack * c->high * (c->low + 1));
done:
    return status;
}

static edgellm_status hrm_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    cycles c;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(read_cycles(&c, hp, file, arch));
    EL_TRY(el_key_f32(file, arch, "embedding_scale", 1e-6f, 1e6f, &hp->embedding_scale));
    for (int32_t i = 0; i < hp->n_layer; i++)
        EL_TRY(el_key_require(hp->layers[i].n_ff, arch, "feed_forward_length"));
    hp->n_layer_stored = 2 * c.per_stack; /* the low stack's, then the high one's */
done:
    return status;
}

/* Puts each layer of the file wherever its stack runs. */
static void hrm_load(el_loader *l)
{
    el_model *m = l->model;
    cycles *c = el_load_memory(l, sizeof *c);
    el_layer *stored = el_load_memory(l, (size_t)m->hp.n_layer_stored * sizeof *stored);

    if (!c || !stored)
        return;
    l->status = read_cycles(c, &m->hp, m->file, m->arch);
    if (l->status != EDGELLM_OK)
        return;
    c->start = el_load_vector(l, el_has(l, "hrm.z_l_init") ? "hrm.z_l_init" : "hrm.z_l_init.weight", EL_REQUIRED,
                              m->hp.n_embd);
    m->own = c;
    memcpy(stored, m->layers, (size_t)m->hp.n_layer_stored * sizeof *stored);
    for (int32_t i = 0; i < m->hp.n_layer; i++) {
        const bool high = i / c->per_stack % (c->low + 1) == c->low;
        m->layers[i] = stored[i % c->per_stack + (high ? c->per_stack : 0)];
    }
}

/* The stack whose first layer is `first`; NULL when only memory was wanted. The head has the norm of the last one. */
static struct ggml_tensor *stack(el_graph *g, int32_t first, struct ggml_tensor *x)
{
    const int32_t end = first + ((const cycles *)g->model->own)->per_stack;

    for (int32_t layer = first; layer < end && x; layer++) {
        x = el_build_layer(g, layer, x);
        if (x)
            el_build_now(g, x);
    }
    return end == g->model->hp.n_layer ? x : el_build_rms_norm(g, x, NULL);
}

static void hrm_build(el_graph *g)
{
    const cycles *c = g->model->own;
    struct ggml_tensor *high = el_build_embeddings(g), *low = c->start;
    int32_t first = 0;

    for (int32_t h = 0; h < c->high; h++) {
        for (int32_t i = 0; i < c->low; i++, first += c->per_stack)
            low = stack(g, first, ggml_add(g->ctx, high, low));
        high = stack(g, first, ggml_add(g->ctx, high, low));
        first += c->per_stack;
    }
    if (high)
        el_build_head(g, high);
}

EL_ARCH(hrm_text) = {
    .name = "hrm_text",
    .traits = {.rope = EL_ROPE_HALVES, .no_norms = true, .attn_gate = EL_ATTN_GATE_SIGMOID},
    .hparams = hrm_hparams,
    .load = hrm_load,
    .build = hrm_build,
};
