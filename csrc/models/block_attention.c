/* block_attention.c - attention over the paged cache, as most families have it: projections with or without biases,
 * norms of queries and keys, rope, grouped heads, windows, sinks, caps, ALiBi.
 * Sources: Vaswani et al. 2017; Ainslie et al. 2023 (grouped queries); Dao et al. 2022 (one pass over the keys). */
#include <math.h>

#include "cpu_plan.h" /* EL_ATTN_RANGES */
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

/* Whether the layer fits the cache of the earlier one that it reads. */
static bool can_share(const el_hparams *hp, const el_layer_hparams *layer, int32_t i)
{
    const el_layer_hparams *other = layer->kv_of >= 0 && layer->kv_of < i ? &hp->layers[layer->kv_of] : NULL;

    return other && other->sliding == layer->sliding && other->k_width == layer->n_head_kv * layer->head_k &&
           other->v_width == layer->n_head_kv * layer->head_v;
}

edgellm_status el_attention_hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_require(layer->n_head, arch, "attention.head_count"));
    EL_TRY(el_key_require(layer->n_head_kv, arch, "attention.head_count_kv"));
    EL_TRY(el_key_require(layer->head_k, arch, "attention.key_length"));
    EL_TRY(el_key_require(layer->head_v, arch, "attention.value_length"));
    if (layer->n_head % layer->n_head_kv != 0)
        return el_fail(EDGELLM_EFORMAT, "layer %d has %d heads, not a multiple of its %d key-value heads", i,
                       layer->n_head, layer->n_head_kv);
    if (layer->n_rot % 2 != 0 || layer->n_rot > layer->head_k)
        return el_fail(EDGELLM_EFORMAT, "%s.rope.dimension_count is %d; it must be even and at most the head's %d",
                       arch->name, layer->n_rot, layer->head_k);
    if (layer->kv_of != i && !can_share(hp, layer, i))
        return el_fail(EDGELLM_EFORMAT, "layer %d cannot read layer %d's keys and values: they are not of one kind", i,
                       layer->kv_of);
    if (layer->kv_of == i) {
        layer->k_width = layer->n_head_kv * layer->head_k;
        layer->v_width = layer->n_head_kv * layer->head_v;
    }
done:
    return status;
}

/* A norm over each head has [head] or [head, n_head] weights, one over all heads [head * n_head]. */
static el_norm load_head_norm(el_loader *l, const char *name, const char *weight, int64_t head, int64_t n_head)
{
    const el_gguf_tensor *found = el_find(l, name, "weight");
    el_norm norm = {NULL, NULL};

    if (found && found->ne[0] == head && found->ne[1] == n_head)
        norm.w = el_load(l, weight, EL_REQUIRED, EL_FLOATS, head, n_head, 1);
    else
        norm = el_load_norm(l, name, EL_REQUIRED, found && found->ne[0] == head * n_head ? head * n_head : head);
    return norm;
}

el_linear el_load_attn_gate(el_loader *l, int32_t n_head, int64_t n)
{
    const el_gguf_tensor *gate = el_find(l, "attn_gate", "weight");

    if (!l->model->arch->traits.attn_gate || !gate)
        return (el_linear){NULL, NULL, NULL};
    return el_load_linear(l, "attn_gate", EL_REQUIRED, l->model->hp.n_embd, gate->ne[1] == n_head ? n_head : n);
}

void el_load_qkv(el_loader *l, el_attention *w, int64_t n_q, int64_t n_k, int64_t n_v)
{
    const el_layer_hparams *lh = &l->model->hp.layers[l->layer];
    const el_traits *traits = &l->model->arch->traits;
    const int64_t n_embd = l->model->hp.n_embd;

    if (el_has(l, "attn_qkv.weight")) {
        const el_linear all = el_load_linear(l, "attn_qkv", EL_REQUIRED, n_embd, n_q + n_k + n_v);
        w->q = el_rows_of(l, all, 0, n_q);
        w->k = el_rows_of(l, all, n_q, n_k);
        w->v = el_rows_of(l, all, n_q + n_k, n_v);
    } else {
        w->q = el_load_linear(l, "attn_q", EL_REQUIRED, n_embd, n_q);
        if (lh->kv_of == l->layer) {
            w->k = el_load_linear(l, "attn_k", EL_REQUIRED, n_embd, n_k);
            w->v = el_load_linear(l, "attn_v", traits->v_norm && n_k == n_v ? EL_OPTIONAL : EL_REQUIRED, n_embd, n_v);
        }
    }
}

void *el_attention_load(el_loader *l, const el_layer_hparams *lh)
{
    const el_traits *traits = &l->model->arch->traits;
    const int64_t n_embd = l->model->hp.n_embd;
    const int64_t n_q = (int64_t)lh->n_head * lh->head_k, n_k = (int64_t)lh->n_head_kv * lh->head_k;
    const int64_t n_v = (int64_t)lh->n_head_kv * lh->head_v;
    el_attention *w = el_load_memory(l, sizeof *w);

    if (!w)
        return NULL;
    el_load_qkv(l, w, n_q, n_k, n_v);
    w->out = el_load_linear(l, "attn_output", EL_REQUIRED, (int64_t)lh->n_head * lh->head_v, n_embd);
    if (traits->qk_norm == EL_QK_NORM || (traits->qk_norm == EL_QK_NORM_OPTIONAL && el_has(l, "attn_q_norm.weight"))) {
        w->q_norm = load_head_norm(l, "attn_q_norm", "attn_q_norm.weight", lh->head_k, lh->n_head);
        if (lh->kv_of == l->layer)
            w->k_norm = load_head_norm(l, "attn_k_norm", "attn_k_norm.weight", lh->head_k, lh->n_head_kv);
    }
    if (traits->sinks || traits->some_sinks)
        w->sinks = el_load_vector(l, "attn_sinks.weight", traits->sinks ? EL_REQUIRED : EL_OPTIONAL, lh->n_head);
    w->gate = el_load_attn_gate(l, lh->n_head, (int64_t)lh->n_head * lh->head_v);
    if (traits->sub_norms)
        w->sub_norm = el_load_norm(l, "attn_sub_norm", EL_REQUIRED, (int64_t)lh->n_head * lh->head_v);
    return w;
}

/* x: [head, n_head, rows] */
struct ggml_tensor *el_build_rope(el_graph *g, const el_layer_hparams *lh, struct ggml_tensor *x)
{
    const el_hparams *hp = &g->model->hp;
    const int mode = hp->rope_layout == EL_ROPE_HALVES ? GGML_ROPE_TYPE_NEOX : GGML_ROPE_TYPE_NORMAL;
    const el_rope *rope = &g->options.rope;
    struct ggml_tensor *factors = g->model->rope_freqs;
    float base = lh->rope_base;

    if (lh->n_rot == 0)
        return x;
    if (!factors)
        factors = g->options.long_context ? g->model->rope_long : g->model->rope_short;
    if (factors && factors->ne[0] < lh->n_rot / 2)
        factors = NULL;
    if (rope->base != 0 && lh->rope_base == hp->rope_base)
        base = rope->base;
    if (rope->ntk != 1)
        base *= powf(rope->ntk, (float)lh->n_rot / (float)EL_MAX(lh->n_rot - 2, 1));
    if (lh->rope_unstretched)
        return ggml_rope_ext(g->ctx, x, g->in.positions, NULL, lh->n_rot, mode, rope->ctx_orig, base, 1, 0, 1,
                             hp->yarn_beta_fast, hp->yarn_beta_slow);
    return ggml_rope_ext(g->ctx, x, g->in.positions, factors, lh->n_rot, mode, rope->ctx_orig, base,
                         1.0f / (rope->stretch && lh->rope_factor == hp->rope_factor ? rope->factor : lh->rope_factor),
                         rope->ext_factor, rope->attn_factor, hp->yarn_beta_fast, hp->yarn_beta_slow);
}

struct ggml_tensor *el_build_head_norm(el_graph *g, struct ggml_tensor *x, const el_norm *norm)
{
    const int64_t head = x->ne[0], n_head = x->ne[1], rows = x->ne[2];

    if (!norm->w)
        return x;
    if (ggml_nelements(norm->w) == head || norm->w->ne[1] == n_head)
        return el_build_norm(g, x, norm);
    x = el_build_norm(g, ggml_reshape_2d(g->ctx, x, head * n_head, rows), norm);
    return ggml_reshape_3d(g->ctx, x, head, n_head, rows);
}

void el_build_cache_write(el_graph *g, int32_t layer, struct ggml_tensor *k, struct ggml_tensor *v)
{
    const el_layer_memory *memory = &g->memory[layer];
    struct ggml_tensor *slots = g->model->hp.layers[layer].sliding ? g->in.slots_sliding : g->in.slots;

    el_build_now(g, ggml_set_rows(g->ctx, memory->k, k, slots));
    if (v)
        el_build_now(g, ggml_set_rows(g->ctx, memory->v, v, slots));
}

/* The layer's part of the pool as attention wants it: [head, n_kv, n_head_kv], without copying. */
static struct ggml_tensor *pool_view(el_graph *g, struct ggml_tensor *pool, bool sliding, int32_t head,
                                     int32_t n_head_kv)
{
    const int32_t n_kv = sliding ? g->shape.n_kv_sliding : g->shape.n_kv;

    return ggml_view_3d(g->ctx, pool, head, n_kv, n_head_kv, pool->nb[1], ggml_row_size(pool->type, head), 0);
}

struct ggml_tensor *el_build_attend(el_graph *g, int32_t layer, struct ggml_tensor *q, struct ggml_tensor *sinks)
{
    const el_hparams *hp = &g->model->hp;
    const el_layer_hparams *lh = &hp->layers[layer];
    const el_layer_memory *memory = &g->memory[lh->kv_of];
    struct ggml_tensor *k = pool_view(g, memory->k, lh->sliding, lh->head_k, lh->n_head_kv);
    struct ggml_tensor *v = pool_view(g, memory->v ? memory->v : memory->k, lh->sliding, lh->head_v, lh->n_head_kv);
    struct ggml_tensor *y = ggml_flash_attn_ext(g->ctx, ggml_permute(g->ctx, q, 0, 2, 1, 3), k, v,
                                                lh->sliding ? g->in.mask_sliding : g->in.mask, hp->attn_scale,
                                                hp->alibi_max_bias, hp->attn_softcap);

    if (sinks)
        ggml_flash_attn_ext_add_sinks(y, sinks);
    y->src[EL_ATTN_RANGES] = lh->sliding ? g->in.ranges_sliding : g->in.ranges;
    y->src[EL_ATTN_TABLES] = lh->sliding ? g->in.tables_sliding : g->in.tables;
    return ggml_reshape_2d(g->ctx, y, (int64_t)lh->head_v * lh->n_head, q->ne[2]);
}

static struct ggml_tensor *clamped(el_graph *g, struct ggml_tensor *x)
{
    const float limit = g->model->hp.attn_clamp;

    return limit != 0 ? ggml_clamp(g->ctx, x, -limit, limit) : x;
}

/* Norm and rope of queries or keys in the family's order. x: [n_head * head, rows] */
static struct ggml_tensor *heads(el_graph *g, const el_layer_hparams *lh, struct ggml_tensor *x, int32_t n_head,
                                 const el_norm *norm)
{
    const bool late = g->model->arch->traits.qk_norm_after_rope;

    x = ggml_reshape_3d(g->ctx, x, lh->head_k, n_head, x->ne[1]);
    if (!late)
        x = el_build_head_norm(g, x, norm);
    x = el_build_rope(g, lh, x);
    if (lh->qk_norm_plain && !norm->w)
        return el_build_rms_norm(g, x, NULL);
    return late ? el_build_head_norm(g, x, norm) : x;
}

/* Keys and values of this step, into the cache. A row reads its own step's back from there, after rounding to the
 * cache's type. */
static void remember(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer_hparams *lh = &g->model->hp.layers[layer];
    const el_attention *w = g->model->layers[layer].mixer;
    const int64_t rows = x->ne[1];
    struct ggml_tensor *k = clamped(g, el_build_linear(g, &w->k, x));
    struct ggml_tensor *v = w->v.w ? clamped(g, el_build_linear(g, &w->v, x)) : k;

    if (g->model->arch->traits.v_norm) {
        v = el_build_rms_norm(g, ggml_reshape_3d(g->ctx, v, lh->head_v, lh->n_head_kv, rows), NULL);
        v = ggml_reshape_2d(g->ctx, v, lh->v_width, rows);
    }
    k = heads(g, lh, k, lh->n_head_kv, &w->k_norm);
    el_build_cache_write(g, layer, ggml_reshape_2d(g->ctx, k, lh->k_width, rows), v);
}

struct ggml_tensor *el_build_attn_gate(el_graph *g, const el_linear *linear, int32_t n_head, struct ggml_tensor *x,
                                       struct ggml_tensor *y)
{
    const int64_t n = y->ne[0], rows = x->ne[1];
    struct ggml_tensor *gate = el_build_linear(g, linear, x);

    gate = g->model->arch->traits.attn_gate == EL_ATTN_GATE_SOFTPLUS ? ggml_softplus(g->ctx, gate)
                                                                     : ggml_sigmoid(g->ctx, gate);
    if (gate->ne[0] == n)
        return ggml_mul(g->ctx, y, gate);
    y = ggml_reshape_3d(g->ctx, y, n / n_head, n_head, rows);
    y = ggml_mul(g->ctx, y, ggml_reshape_3d(g->ctx, gate, 1, n_head, rows));
    return ggml_reshape_2d(g->ctx, y, n, rows);
}

static struct ggml_tensor *build(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_hparams *hp = &g->model->hp;
    const el_layer_hparams *lh = &hp->layers[layer];
    const el_attention *w = g->model->layers[layer].mixer;
    struct ggml_tensor *q = clamped(g, el_build_linear(g, &w->q, x)), *y;

    q = heads(g, lh, q, lh->n_head, &w->q_norm);
    if (g->in.attn_temp && (lh->n_rot == 0 || !hp->attn_temp_unrotated))
        q = ggml_mul(g->ctx, q, g->in.attn_temp);
    if (lh->kv_of == layer)
        remember(g, layer, x);
    if (el_nobody_reads(g, layer))
        return NULL;
    y = el_build_scale(g, el_build_attend(g, layer, q, w->sinks), hp->attn_value_scale);
    if (w->gate.w)
        y = el_build_attn_gate(g, &w->gate, lh->n_head, x, y);
    if (w->sub_norm.w)
        y = el_build_norm(g, y, &w->sub_norm);
    return el_build_linear(g, &w->out, y);
}

const el_mixer el_mixer_attention = {"attention", el_attention_hparams, el_attention_load, build};
