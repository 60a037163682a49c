/* qwen_next.c - Qwen3-Next and Qwen3.5 (dense and with experts): three layers of four are linear attention by the gated
 * delta rule, the fourth is attention whose result is gated. In a text all sections of Qwen3.5's multi-section rope
 * have the same position, so it is rope on halves. Norms are stored with the 1 already added.
 * Sources: Qwen Team 2025 (Qwen3-Next), 2026 (Qwen3.5), the published model code. */
#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

/* ---- attention with a gate ---------------------------------------------------------------- */

static void *gated_load(el_loader *l, const el_layer_hparams *lh)
{
    const int64_t n_embd = l->model->hp.n_embd, n_q = (int64_t)lh->n_head * lh->head_k;
    el_attention *w = el_load_memory(l, sizeof *w);

    if (!w)
        return NULL;
    el_load_qkv(l, w, 2 * n_q, (int64_t)lh->n_head_kv * lh->head_k, (int64_t)lh->n_head_kv * lh->head_v);
    w->out = el_load_linear(l, "attn_output", EL_REQUIRED, (int64_t)lh->n_head * lh->head_v, n_embd);
    w->q_norm = el_load_norm(l, "attn_q_norm", EL_REQUIRED, lh->head_k);
    w->k_norm = el_load_norm(l, "attn_k_norm", EL_REQUIRED, lh->head_k);
    return w;
}

/* q holds a query and a gate for each head. */
static struct ggml_tensor *gated_build(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer_hparams *lh = &g->model->hp.layers[layer];
    const el_attention *w = g->model->layers[layer].mixer;
    const int64_t head = lh->head_k, rows = x->ne[1];
    const size_t f = sizeof(float), pair = 2 * (size_t)head * f;
    struct ggml_tensor *both = el_build_linear(g, &w->q, x);
    struct ggml_tensor *q = ggml_view_3d(g->ctx, both, head, lh->n_head, rows, pair, both->nb[1], 0);
    struct ggml_tensor *gate = ggml_view_3d(g->ctx, both, head, lh->n_head, rows, pair, both->nb[1], (size_t)head * f);
    struct ggml_tensor *k = ggml_reshape_3d(g->ctx, el_build_linear(g, &w->k, x), head, lh->n_head_kv, rows);
    struct ggml_tensor *y;

    k = el_build_rope(g, lh, el_build_norm(g, k, &w->k_norm));
    el_build_cache_write(g, layer, ggml_reshape_2d(g->ctx, k, lh->k_width, rows), el_build_linear(g, &w->v, x));
    if (el_nobody_reads(g, layer))
        return NULL;
    y = el_build_attend(g, layer, el_build_rope(g, lh, el_build_norm(g, q, &w->q_norm)), NULL);
    gate = ggml_reshape_2d(g->ctx, ggml_sigmoid(g->ctx, gate), head * lh->n_head, rows);
    return el_build_linear(g, &w->out, ggml_mul(g->ctx, y, gate));
}

static edgellm_status gated_hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch)
{
    if (layer->head_v != layer->head_k)
        return el_fail(EDGELLM_EFORMAT, "%s.attention.value_length is %d; the gate needs it to be key_length, %d",
                       arch->name, layer->head_v, layer->head_k);
    return el_attention_hparams(hp, layer, i, arch);
}

static const el_mixer gated_attention = {"gated attention", gated_hparams, gated_load, gated_build};

/* ---- families ----------------------------------------------------------------------------- */

static edgellm_status dense_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_ssm(hp, file, arch));
    EL_TRY(el_key_recurrent(hp, file, arch, 4, &el_mixer_delta, &gated_attention));
done:
    return status;
}

static edgellm_status experts_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_require(hp->expert.n, arch, "expert_count"));
    EL_TRY(dense_hparams(hp, file, arch));
done:
    return status;
}

EL_ARCH(qwen35) = {
    .name = "qwen35",
    .traits = {.rope = EL_ROPE_HALVES, .ffn_norm = "post_attention_norm"},
    .hparams = dense_hparams,
};

EL_ARCH(qwen35moe) = {
    .name = "qwen35moe",
    .traits = {.rope = EL_ROPE_HALVES,
               .ffn_norm = "post_attention_norm",
               .may_have_experts = true,
               .experts_normalise = true,
               .shared_experts = true},
    .hparams = experts_hparams,
};

EL_ARCH(qwen3next) = {
    .name = "qwen3next",
    .traits = {.rope = EL_ROPE_HALVES,
               .ffn_norm = "post_attention_norm",
               .may_have_experts = true,
               .experts_normalise = true,
               .shared_experts = true},
    .hparams = experts_hparams,
};
