/* decoder.c - the stack that most families share: norm, attention, residual, norm, feed-forward, residual. */
#include <math.h>

#include "ggml.h"
#include "graph.h"

static struct ggml_tensor *keep_outputs(el_graph *g, struct ggml_tensor *x)
{
    return ggml_get_rows(g->ctx, x, g->in.outputs);
}

/* Returns the layer's result, or NULL when only its cache rows were wanted. */
static struct ggml_tensor *build_layer(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];
    struct ggml_tensor *y = el_build_attention(g, layer, el_build_norm(g, x, w->attn_norm));

    if (!y)
        return NULL;
    if (layer == g->model->hp.n_layer - 1) { /* from here on only rows whose logits are asked for matter */
        y = keep_outputs(g, y);
        x = keep_outputs(g, x);
    }
    if (w->attn_post_norm)
        y = el_build_norm(g, y, w->attn_post_norm);
    x = ggml_add(g->ctx, y, x);
    y = el_build_norm(g, x, w->ffn_norm);
    y = w->router ? el_build_experts(g, layer, y) : el_build_ffn(g, layer, y);
    if (w->ffn_post_norm)
        y = el_build_norm(g, y, w->ffn_post_norm);
    return ggml_add(g->ctx, y, x);
}

static struct ggml_tensor *softcap(el_graph *g, struct ggml_tensor *x, float cap)
{
    return ggml_scale(g->ctx, ggml_tanh(g->ctx, ggml_scale(g->ctx, x, 1.0f / cap)), cap);
}

void el_build_decoder(el_graph *g)
{
    const el_model *m = g->model;
    struct ggml_tensor *x = ggml_get_rows(g->ctx, m->token_embd, g->in.tokens);

    if (m->arch->traits.scale_embeddings)
        x = ggml_scale(g->ctx, x, sqrtf((float)m->hp.n_embd));
    for (int32_t layer = 0; layer < m->hp.n_layer; layer++) {
        x = build_layer(g, layer, x);
        if (x)
            ggml_build_forward_expand(g->nodes, x);
    }
    if (!x)
        return;
    x = el_build_norm(g, x, m->output_norm);
    x = ggml_mul_mat(g->ctx, m->output, x);
    if (m->hp.logit_softcap != 0)
        x = softcap(g, x, m->hp.logit_softcap);
    ggml_set_output(x);
    ggml_set_name(x, "logits");
    ggml_build_forward_expand(g->nodes, x);
    g->logits = x;
}
