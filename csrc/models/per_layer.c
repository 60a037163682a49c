/* per_layer.c - see per_layer.h. */
#include "per_layer.h"

#include <math.h>

#include "ggml.h"
#include "graph.h"
#include "op_gelu.h"

el_per_layer el_per_layer_load(el_loader *l, int64_t width)
{
    const el_hparams *hp = &l->model->hp;
    el_per_layer p = {.width = width};

    l->layer = -1;
    p.tokens = el_load(l, "per_layer_token_embd.weight", EL_REQUIRED, EL_MATRIX, width * hp->n_layer, hp->n_vocab, 1);
    p.project = el_load_linear(l, "per_layer_model_proj", EL_REQUIRED, hp->n_embd, width * hp->n_layer);
    p.norm = el_load_norm(l, "per_layer_proj_norm", EL_REQUIRED, width);
    return p;
}

el_per_layer_gate el_per_layer_load_gate(el_loader *l, int64_t width)
{
    const int64_t n_embd = l->model->hp.n_embd;
    el_per_layer_gate w;

    w.gate = el_load_linear(l, "inp_gate", EL_REQUIRED, n_embd, width);
    w.project = el_load_linear(l, "proj", EL_REQUIRED, width, n_embd);
    w.post_norm = el_load_norm(l, "post_norm", EL_REQUIRED, n_embd);
    return w;
}

void el_per_layer_drop_biases(el_attention *w, bool all)
{
    if (!w)
        return;
    w->out.b = NULL;
    if (all || !w->k.w)
        w->q.b = w->k.b = w->v.b = NULL;
}

edgellm_status el_per_layer_share(el_hparams *hp, const el_arch *arch, int32_t n_own)
{
    if (n_own < hp->n_layer && n_own < 2)
        return el_fail(EDGELLM_EFORMAT,
                       "%s.attention.shared_kv_layers leaves %d of %d layers; at least 2 must have keys", arch->name,
                       n_own, hp->n_layer);
    for (int32_t i = n_own; i < hp->n_layer; i++)
        hp->layers[i].kv_of = n_own - (hp->layers[i].sliding ? 2 : 1);
    return EDGELLM_OK;
}

struct ggml_tensor *el_build_per_layer(el_graph *g, const el_per_layer *p, struct ggml_tensor *x)
{
    const int64_t n_layer = g->model->hp.n_layer, rows = x->ne[1];
    struct ggml_tensor *tokens = ggml_get_rows(g->ctx, p->tokens, g->in.tokens), *y;

    tokens = ggml_scale(g->ctx, ggml_reshape_3d(g->ctx, tokens, p->width, n_layer, rows), sqrtf((float)p->width));
    y = ggml_scale(g->ctx, el_build_linear(g, &p->project, x), 1.0f / sqrtf((float)x->ne[0]));
    y = el_build_norm(g, ggml_reshape_3d(g->ctx, y, p->width, n_layer, rows), &p->norm);
    return ggml_scale(g->ctx, ggml_add(g->ctx, y, tokens), sqrtf(0.5f));
}

struct ggml_tensor *el_per_layer_of(el_graph *g, struct ggml_tensor *all, int32_t layer)
{
    return ggml_view_2d(g->ctx, all, all->ne[0], all->ne[2], all->nb[2], (size_t)layer * all->nb[1]);
}

/* GELU by way of f16: the streams of Gemma 3n amplify rounding so much that the exact function can be told from what
 * files are made for (NMSE 4e-6 instead of 2e-7). */
struct ggml_tensor *el_build_per_layer_gate(el_graph *g, const el_per_layer_gate *w, struct ggml_tensor *x,
                                            struct ggml_tensor *own)
{
    x = el_op_geglu_f16(g->ctx, el_build_linear(g, &w->gate, x), own);
    return el_build_norm(g, el_build_linear(g, &w->project, x), &w->post_norm);
}
