/* apertus.c - Apertus: xIELU with parameters of each layer, norms of queries and keys.
 * Sources: Huang and Schlag 2024 (xIELU); Apertus team 2025, the published model code. */
#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

typedef struct xielu {
    float alpha_n, alpha_p, beta, eps;
} xielu;

/* One number for all layers or an array with one for each; the keys have no prefix. */
static edgellm_status read_number(const el_gguf *file, const char *key, int32_t layer, float *value)
{
    const el_gguf_kv *kv = el_gguf_find(file, key);
    double found = 0;
    edgellm_status status = EDGELLM_OK;

    if (!kv || (kv->type == EL_GGUF_ARR && kv->n <= (uint64_t)layer))
        return el_fail(EDGELLM_EFORMAT, "%s is missing for layer %d; an apertus model needs it", key, layer);
    EL_TRY(el_gguf_item_f64(kv, kv->type == EL_GGUF_ARR ? (uint64_t)layer : 0, &found));
    if (!(found > -1e6 && found < 1e6))
        return el_fail(EDGELLM_EFORMAT, "%s is %g for layer %d; it must be within -1e6 .. 1e6", key, found, layer);
    *value = (float)found;
done:
    return status;
}

static edgellm_status read_layer(const el_gguf *file, int32_t layer, xielu *v)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(read_number(file, "xielu.alpha_n", layer, &v->alpha_n));
    EL_TRY(read_number(file, "xielu.alpha_p", layer, &v->alpha_p));
    EL_TRY(read_number(file, "xielu.beta", layer, &v->beta));
    EL_TRY(read_number(file, "xielu.eps", layer, &v->eps));
done:
    return status;
}

static edgellm_status apertus_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    xielu v;
    edgellm_status status = EDGELLM_OK;

    (void)arch;
    for (int32_t i = 0; i < hp->n_layer; i++)
        EL_TRY(read_layer(file, i, &v));
done:
    return status;
}

static void apertus_load(el_loader *l)
{
    el_model *m = l->model;

    for (int32_t i = 0; i < m->hp.n_layer && l->status == EDGELLM_OK; i++) {
        el_attention *attention = m->layers[i].mixer;
        attention->q_norm.b = attention->k_norm.b = NULL; /* whatever a file holds */
        m->layers[i].own = el_load_memory(l, sizeof(xielu));
        if (m->layers[i].own)
            l->status = read_layer(m->file, i, m->layers[i].own);
    }
}

static struct ggml_tensor *apertus_feed_forward(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];
    const xielu *v = w->own;

    x = ggml_xielu(g->ctx, el_build_linear(g, &w->ffn.up, x), v->alpha_n, v->alpha_p, v->beta, v->eps);
    return el_build_linear(g, &w->ffn.down, x);
}

EL_ARCH(apertus) = {
    .name = "apertus",
    .traits = {.rope = EL_ROPE_HALVES, .ungated = true, .qk_norm = EL_QK_NORM},
    .hparams = apertus_hparams,
    .load = apertus_load,
    .feed_forward = apertus_feed_forward,
};
