/* minimax_01.c - MiniMax-Text-01: seven layers of eight are lightning attention, linear attention with a fixed decay
 * for each head; what a block's norm gave goes past the block, not what went into the norm. Sources: MiniMax 2025
 * (MiniMax-01), section 2; Qin et al. 2024 (Lightning Attention-2); the published model code. */
#include <math.h>

#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"
#include "op_wkv.h"

typedef struct lightning { /* weights */
    el_linear qkv, gate, out;
    el_norm norm;
    struct ggml_tensor *decay; /* [head, n_head] */
} lightning;

static edgellm_status hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    (void)hp;
    EL_TRY(el_key_require(layer->n_head, arch, "attention.head_count"));
    EL_TRY(el_key_require(layer->head_k, arch, "attention.key_length"));
    if (layer->head_v != layer->head_k || layer->head_k > EL_WKV_MAX_HEAD)
        return el_fail(EDGELLM_EFORMAT,
                       "layer %d of lightning attention has keys of %d and values of %d; they must be "
                       "equal and at most %d",
                       i, layer->head_k, layer->head_v, EL_WKV_MAX_HEAD);
    layer->state_width = (int64_t)layer->n_head * layer->head_k * layer->head_k;
done:
    return status;
}

/* Slopes as ALiBi has them, less steep from layer to layer. */
static void fill_decay(const el_loader *l, const el_layer_hparams *lh, float *decay)
{
    const float share = (float)(1.0 - (double)l->layer / EL_MAX(l->model->hp.n_layer - 1, 1) + 1e-5);
    const float first = powf(2, -powf(2, -(log2f((float)lh->n_head) - 3)));

    for (int32_t h = 0; h < lh->n_head; h++)
        for (int32_t i = 0; i < lh->head_k; i++)
            decay[h * lh->head_k + i] = expf(-first * powf(first, (float)h) * share);
}

static void *load(el_loader *l, const el_layer_hparams *lh)
{
    const int64_t n_embd = l->model->hp.n_embd, n = (int64_t)lh->n_head * lh->head_k;
    lightning *w = el_load_memory(l, sizeof *w);

    if (!w)
        return NULL;
    w->qkv = el_load_linear(l, "attn_qkv", EL_REQUIRED, n_embd, 3 * n);
    w->gate = el_load_linear(l, "attn_gate", EL_REQUIRED, n_embd, n);
    w->out = el_load_linear(l, "attn_output", EL_REQUIRED, n, n_embd);
    w->norm = el_load_norm(l, "attn_norm_2", EL_REQUIRED, n);
    w->decay = el_load_computed(l, lh->head_k, lh->n_head);
    if (w->decay)
        fill_decay(l, lh, w->decay->data);
    return w;
}

static struct ggml_tensor *build(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer_hparams *lh = &g->model->hp.layers[layer];
    const lightning *w = g->model->layers[layer].mixer;
    const int64_t head = lh->head_k, rows = x->ne[1];
    const size_t f = (size_t)head * sizeof(float);
    struct ggml_tensor *qkv = ggml_silu(g->ctx, el_build_linear(g, &w->qkv, x)), *y;
    const el_wkv t = {.r = ggml_view_3d(g->ctx, qkv, head, lh->n_head, rows, 3 * f, qkv->nb[1], 0),
                      .k = ggml_view_3d(g->ctx, qkv, head, lh->n_head, rows, 3 * f, qkv->nb[1], f),
                      .v = ggml_view_3d(g->ctx, qkv, head, lh->n_head, rows, 3 * f, qkv->nb[1], 2 * f),
                      .decay = w->decay,
                      .memory = g->memory[layer].state,
                      .runs = g->in.runs,
                      .scale = 1};

    y = el_op_wkv(g->ctx, &t);
    if (el_nobody_reads(g, layer)) {
        el_build_now(g, y);
        return NULL;
    }
    y = el_build_norm(g, ggml_reshape_2d(g->ctx, y, head * lh->n_head, rows), &w->norm);
    return el_build_linear(g, &w->out, ggml_mul(g->ctx, y, ggml_sigmoid(g->ctx, el_build_linear(g, &w->gate, x))));
}

static const el_mixer mixer = {"lightning attention", hparams, load, build};

static edgellm_status minimax_01_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_require(hp->expert.n, arch, "expert_count"));
    hp->expert.n_ff = 0; /* as wide as the tensors are, which is feed_forward_length */
    EL_TRY(el_key_f32(file, arch, "residual_scale", 1e-6f, 1e6f, &hp->residual_scale));
    EL_TRY(el_key_recurrent(hp, file, arch, 8, &mixer, &el_mixer_attention));
done:
    return status;
}

static struct ggml_tensor *layer_of(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];
    const float scale = g->model->hp.residual_scale;
    struct ggml_tensor *y;

    x = el_build_norm(g, x, &w->attn_norm);
    y = g->model->hp.layers[layer].mixer->build(g, layer, x);
    if (!y)
        return NULL;
    x = ggml_add(g->ctx, el_keep_outputs(g, layer, y), el_build_scale(g, el_keep_outputs(g, layer, x), scale));
    x = el_build_norm(g, x, &w->ffn_norm);
    return ggml_add(g->ctx, el_build_feed_forward(g, layer, x), el_build_scale(g, x, scale));
}

EL_ARCH(minimax_01) = {
    .name = "minimax-01",
    .traits = {.rope = EL_ROPE_HALVES, .may_have_experts = true, .experts_normalise = true},
    .hparams = minimax_01_hparams,
    .layer = layer_of,
};
