/* decoder.c - the stack that most families share: norm, mixer, residual, norm, feed-forward, residual. */
#include <math.h>

#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

struct ggml_tensor *el_keep_outputs(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    return x && layer == g->model->hp.n_layer - 1 ? ggml_get_rows(g->ctx, x, g->in.outputs) : x;
}

static struct ggml_tensor *norm_if(el_graph *g, struct ggml_tensor *x, const el_norm *norm)
{
    return norm->w || g->model->arch->traits.no_norms ? el_build_norm(g, x, norm) : x;
}

static struct ggml_tensor *post_norm(el_graph *g, struct ggml_tensor *y, const el_norm *norm)
{
    const float eps = g->model->arch->traits.post_norm_eps;

    if (!norm->w || eps == 0)
        return norm->w ? el_build_norm(g, y, norm) : y;
    return ggml_mul(g->ctx, ggml_rms_norm(g->ctx, y, eps), norm->w);
}

static struct ggml_tensor *residual(el_graph *g, struct ggml_tensor *y, struct ggml_tensor *x)
{
    return ggml_add(g->ctx, el_build_scale(g, y, g->model->hp.residual_scale), x);
}

/* x + y, with the block's post-norm where the family has it. */
static struct ggml_tensor *add_block(el_graph *g, struct ggml_tensor *y, const el_norm *norm, struct ggml_tensor *x)
{
    if (g->model->arch->traits.norm_place == EL_NORM_SUM)
        return post_norm(g, residual(g, y, x), norm);
    return residual(g, post_norm(g, y, norm), x);
}

/* Attention and feed-forward of the same input, added together (GPT-J's and GPT-NeoX's form). */
static struct ggml_tensor *parallel(el_graph *g, int32_t layer, struct ggml_tensor *mixed, struct ggml_tensor *normed,
                                    struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];
    struct ggml_tensor *y = w->ffn_norm.w ? norm_if(g, x, &w->ffn_norm) : el_keep_outputs(g, layer, normed);

    y = el_build_feed_forward(g, layer, y);
    return residual(g, ggml_add(g->ctx, y, mixed), x);
}

struct ggml_tensor *el_build_layer(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer_hparams *lh = &g->model->hp.layers[layer];
    const el_layer *w = &g->model->layers[layer];
    const el_norm_place place = g->model->arch->traits.norm_place;
    const bool before = place == EL_NORM_BEFORE || place == EL_NORM_BOTH;
    struct ggml_tensor *normed = before ? norm_if(g, x, &w->attn_norm) : x;
    struct ggml_tensor *y;

    if (lh->mixer) {
        y = lh->mixer->build(g, layer, normed);
        if (!y)
            return NULL;
        y = el_keep_outputs(g, layer, y);
        x = el_keep_outputs(g, layer, x);
        if (g->model->hp.parallel)
            return parallel(g, layer, y, normed, x);
        x = add_block(g, y, &w->attn_post_norm, x);
    } else {
        if (el_nobody_reads(g, layer))
            return NULL;
        x = el_keep_outputs(g, layer, x);
    }
    if (!w->experts && !w->ffn.up.w)
        return x;
    y = before ? norm_if(g, x, &w->ffn_norm) : x;
    return add_block(g, el_build_feed_forward(g, layer, y), &w->ffn_post_norm, x);
}

struct ggml_tensor *el_build_embeddings(el_graph *g)
{
    const el_model *m = g->model;
    struct ggml_tensor *x = el_build_lookup(g, m->token_embd, g->in.tokens);

    x = el_build_scale(g, x, m->hp.embedding_scale);
    if (m->position_embd)
        x = ggml_add(g->ctx, x, ggml_get_rows(g->ctx, m->position_embd, g->in.positions));
    if (g->in.types)
        x = ggml_add(g->ctx, x, ggml_get_rows(g->ctx, m->token_types, g->in.types));
    else if (m->token_types)
        x = ggml_add(g->ctx, x, ggml_view_1d(g->ctx, m->token_types, m->token_types->ne[0], 0));
    return m->embd_norm.w || m->arch->traits.embd_norm_plain ? el_build_norm(g, x, &m->embd_norm) : x;
}

static struct ggml_tensor *softcap(el_graph *g, struct ggml_tensor *x, float cap)
{
    return ggml_scale(g->ctx, ggml_tanh(g->ctx, ggml_scale(g->ctx, x, 1.0f / cap)), cap);
}

void el_build_head(el_graph *g, struct ggml_tensor *x)
{
    const el_model *m = g->model;

    x = norm_if(g, x, &m->output_norm);
    if (g->options.embeddings) {
        x = el_build_pooling(g, x);
    } else {
        x = el_build_scale(g, el_build_linear(g, &m->output, x), m->hp.logit_scale);
        if (m->hp.logit_softcap != 0)
            x = softcap(g, x, m->hp.logit_softcap);
    }
    ggml_set_output(x);
    ggml_set_name(x, "result");
    el_build_now(g, x);
    g->result = x;
}

void el_build_decoder(el_graph *g)
{
    const el_arch *arch = g->model->arch;
    struct ggml_tensor *x = el_build_embeddings(g);

    for (int32_t layer = 0; layer < g->model->hp.n_layer; layer++) {
        x = arch->layer ? arch->layer(g, layer, x) : el_build_layer(g, layer, x);
        if (x)
            el_build_now(g, x);
    }
    if (x)
        el_build_head(g, x);
}
