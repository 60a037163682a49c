/* block_rwkv.c - what RWKV 6 and 7 share.
 * Sources: Peng et al. 2024 (Eagle and Finch), 2025 (RWKV-7 "Goose"); the published model code; tensor names of the
 * gguf package. */
#include "ggml.h"
#include "graph.h"
#include "op_shift.h"
#include "op_wkv.h"
#include "rwkv.h"

#define GROUP_NORM_EPS 64e-5f /* 1e-5 times the square of the divisor 8 that the models were trained with */

/* ---- numbers ------------------------------------------------------------------------------ */

static edgellm_status heads(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    int32_t head = 0;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_i32(file, arch, "wkv.head_size", 1, EL_WKV_MAX_HEAD, &head));
    EL_TRY(el_key_require(head, arch, "wkv.head_size"));
    if (hp->n_embd % head != 0 || hp->n_embd / head > EL_MAX_HEADS)
        return el_fail(EDGELLM_EFORMAT, "%s.wkv.head_size is %d, which does not divide embedding_length, %d",
                       arch->name, head, hp->n_embd);
    for (int32_t i = 0; i < hp->n_layer; i++) {
        el_layer_hparams *layer = &hp->layers[i];
        layer->n_head = hp->n_embd / head;
        if (layer->n_head_kv == 0)
            layer->n_head_kv = layer->n_head;
        if (layer->n_head % layer->n_head_kv != 0)
            return el_fail(EDGELLM_EFORMAT, "%s has %d heads, not a multiple of its %d key-value heads", arch->name,
                           layer->n_head, layer->n_head_kv);
        layer->head_k = layer->head_v = head;
    }
done:
    return status;
}

edgellm_status el_rwkv_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    hp->n_ff = hp->layers[0].n_ff;
    EL_TRY(el_key_require(hp->n_ff, arch, "feed_forward_length"));
    EL_TRY(el_key_i32(file, arch, "rescale_every_n_layers", 1, EL_MAX_LAYERS, &hp->rescale_every));
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].n_ff = hp->layers[i].n_head_kv = 0;
    EL_TRY(heads(hp, file, arch));
done:
    return status;
}

edgellm_status el_rwkv_grafted_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_require(hp->layers[0].n_ff, arch, "feed_forward_length"));
    EL_TRY(heads(hp, file, arch));
done:
    return status;
}

edgellm_status el_rwkv_layer_hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch)
{
    (void)i;
    (void)arch;
    layer->conv_width = layer->n_ff > 0 ? hp->n_embd : 2 * (int64_t)hp->n_embd;
    layer->state_width = (int64_t)hp->n_embd * layer->head_k;
    return EDGELLM_OK;
}

/* ---- weights ------------------------------------------------------------------------------ */

int64_t el_rank_of(const el_loader *l, const char *name)
{
    const el_gguf_tensor *found = el_find(l, name, "weight");

    return found ? found->ne[1] : 1;
}

int64_t el_n_floats(const el_loader *l, const char *name)
{
    const el_gguf_tensor *found = el_find(l, name, "weight");

    return found ? found->ne[0] * found->ne[1] * found->ne[2] * found->ne[3] : 1;
}

void el_load_channel_mix(el_loader *l)
{
    el_model *m = l->model;
    const int64_t n_embd = m->hp.n_embd;

    for (l->layer = 0; l->layer < m->hp.n_layer; l->layer++) {
        el_channel_mix *w = el_load_memory(l, sizeof *w);
        if (!w)
            return;
        w->norm = el_load_norm(l, "attn_norm_2", EL_REQUIRED, n_embd);
        w->mix_key = el_load_vector(l, "channel_mix_lerp_k.weight", EL_REQUIRED, n_embd);
        w->key = el_load_linear(l, "channel_mix_key", EL_REQUIRED, n_embd, m->hp.n_ff);
        w->value = el_load_linear(l, "channel_mix_value", EL_REQUIRED, m->hp.n_ff, n_embd);
        w->mix_receptance = el_load_vector(l, "channel_mix_lerp_r.weight", EL_OPTIONAL, n_embd);
        if (w->mix_receptance)
            w->receptance = el_load_linear(l, "channel_mix_receptance", EL_REQUIRED, n_embd, n_embd);
        m->layers[l->layer].own = w;
    }
}

static bool has_channel_mix(const el_model *m, int32_t layer) { return m->hp.layers[layer].n_ff == 0; }

/* ---- graph -------------------------------------------------------------------------------- */

struct ggml_tensor *el_build_shift(el_graph *g, int32_t layer, bool channel_mix, struct ggml_tensor *x,
                                   struct ggml_tensor *const *mixes, int n_mixes)
{
    struct ggml_tensor *memory = g->memory[layer].conv;
    const int64_t n_embd = x->ne[0];
    const size_t first = channel_mix ? (size_t)n_embd * sizeof(float) : 0;

    memory = ggml_view_2d(g->ctx, memory, n_embd, memory->ne[1], memory->nb[1], first);
    return el_op_shift(g->ctx, x, memory, g->in.runs, mixes, n_mixes);
}

struct ggml_tensor *el_build_mixed(el_graph *g, struct ggml_tensor *all, int i)
{
    return ggml_view_2d(g->ctx, all, all->ne[0], all->ne[1], all->nb[1], (size_t)i * all->nb[2]);
}

bool el_rwkv_memory_alone(const el_graph *g, int32_t layer)
{
    return !has_channel_mix(g->model, layer) && el_nobody_reads(g, layer);
}

struct ggml_tensor *el_build_heads(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const int64_t head = g->model->hp.layers[layer].head_k;

    return ggml_reshape_3d(g->ctx, x, head, x->ne[0] / head, x->ne[1]);
}

struct ggml_tensor *el_build_group_norm(el_graph *g, struct ggml_tensor *y, const el_norm *norm)
{
    const int64_t n_embd = y->ne[0] * y->ne[1], rows = y->ne[2];

    if (!norm->w)
        return ggml_reshape_2d(g->ctx, y, n_embd, rows);
    y = ggml_reshape_2d(g->ctx, ggml_norm(g->ctx, y, GROUP_NORM_EPS), n_embd, rows);
    y = ggml_mul(g->ctx, y, norm->w);
    return norm->b ? ggml_add(g->ctx, y, norm->b) : y;
}

/* x: the residual with the time mix of all rows added to it. */
static struct ggml_tensor *channel_mix(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_channel_mix *w = g->model->layers[layer].own;
    struct ggml_tensor *mixes[2] = {w->mix_key, w->mix_receptance}, *key, *r;
    struct ggml_tensor *all =
        el_build_shift(g, layer, true, el_build_norm(g, x, &w->norm), mixes, w->mix_receptance ? 2 : 1);

    if (el_nobody_reads(g, layer)) {
        el_build_now(g, all);
        return NULL;
    }
    key = el_build_linear(g, &w->key, el_keep_outputs(g, layer, el_build_mixed(g, all, 0)));
    key = el_build_linear(g, &w->value, ggml_sqr(g->ctx, ggml_relu(g->ctx, key)));
    if (w->mix_receptance) {
        r = el_build_linear(g, &w->receptance, el_keep_outputs(g, layer, el_build_mixed(g, all, 1)));
        key = ggml_mul(g->ctx, key, ggml_sigmoid(g->ctx, r));
    }
    return ggml_add(g->ctx, key, el_keep_outputs(g, layer, x));
}

struct ggml_tensor *el_build_rwkv_layer(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const int32_t every = g->model->hp.rescale_every;
    struct ggml_tensor *normed = el_build_norm(g, x, &g->model->layers[layer].attn_norm);

    x = ggml_add(g->ctx, x, g->model->hp.layers[layer].mixer->build(g, layer, normed));
    x = channel_mix(g, layer, x);
    return x && every > 0 && (layer + 1) % every == 0 ? ggml_scale(g->ctx, x, 0.5f) : x;
}
