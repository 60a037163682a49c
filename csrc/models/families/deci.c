/* deci.c - Nemotron models made by pruning LLaMA (DeciLM, Llama-Nemotron): a layer may lack attention, or have one
 * matrix in its place, and may lack the feed-forward block. Source: Bercovich et al. 2024 (Puzzle), section 2. */
#include "arch.h"
#include "graph.h"
#include "layer_blocks.h"

static void *linear_load(el_loader *l, const el_layer_hparams *lh)
{
    el_linear *w = el_load_memory(l, sizeof *w);

    (void)lh;
    if (w)
        w->w = el_load(l, "attn_output.weight", EL_REQUIRED, EL_MATRIX, l->model->hp.n_embd, l->model->hp.n_embd, 1);
    return w;
}

static struct ggml_tensor *linear_build(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    return el_nobody_reads(g, layer) ? NULL : el_build_linear(g, g->model->layers[layer].mixer, x);
}

static const el_mixer linear = {"one matrix", NULL, linear_load, linear_build};

/* A layer without a feed-forward block does nothing at all, whatever else the file holds for it. */
static edgellm_status deci_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_mixers(hp, file, arch, &linear));
    for (int32_t i = 0; i < hp->n_layer; i++)
        if (hp->layers[i].n_head == 0 || hp->layers[i].n_ff == 0)
            hp->layers[i].mixer = NULL;
done:
    return status;
}

EL_ARCH(deci) = {
    .name = "deci",
    .traits = {.attn_norm_optional = true},
    .hparams = deci_hparams,
};
