/* gemma_per_layer.c - Gemma 3n and 4: an embedding of each token for each layer, the last layers reading earlier ones'
 * keys and values; 3n also keeps four streams of rows (AltUp) and a low-rank path beside attention (LAuReL).
 * Sources: Gemma Team 2025 (Gemma 3n, model card), 2026 (Gemma 4); Baykal et al. 2023 (AltUp); Menghani et al. 2025
 * (LAuReL); the published model code. */
#include <math.h>

#include "arch.h"
#include "layer_blocks.h"
#include "ggml.h"
#include "graph.h"
#include "op_gelu.h"

/* ---- embeddings per layer ----------------------------------------------------------------- */

typedef struct per_layer { /* of the model; width 0: none */
    int64_t width;
    struct ggml_tensor *tokens; /* [width * n_layer, n_vocab] */
    el_linear project;          /* of the token's own embedding */
    el_norm norm;
    el_linear altup, unembed; /* Gemma 3n: [n_embd, n_embd, streams - 1] */
} per_layer;

typedef struct own_layer {
    el_linear gate, project;
    el_norm post_norm;
    struct ggml_tensor *out_scale; /* [1] or NULL */
    el_norm dense_post, experts_pre, experts_post;
    el_linear correct, predict, router, laurel_l, laurel_r; /* Gemma 3n, from here on */
    el_norm router_norm, laurel_norm;
    struct ggml_tensor *correct_scale;
} own_layer;

static void load_per_layer(el_loader *l, per_layer *p, int64_t width)
{
    const el_hparams *hp = &l->model->hp;

    l->layer = -1;
    p->width = width;
    p->tokens = el_load(l, "per_layer_token_embd.weight", EL_REQUIRED, EL_MATRIX, width * hp->n_layer, hp->n_vocab, 1);
    p->project = el_load_linear(l, "per_layer_model_proj", EL_REQUIRED, hp->n_embd, width * hp->n_layer);
    p->norm = el_load_norm(l, "per_layer_proj_norm", EL_REQUIRED, width);
}

static void load_layer_gate(el_loader *l, own_layer *w, int64_t width)
{
    const int64_t n_embd = l->model->hp.n_embd;

    w->gate = el_load_linear(l, "inp_gate", EL_REQUIRED, n_embd, width);
    w->project = el_load_linear(l, "proj", EL_REQUIRED, width, n_embd);
    w->post_norm = el_load_norm(l, "post_norm", EL_REQUIRED, n_embd);
}

/* The families have no biases in attention, or only some, whatever a file holds. */
static void drop_biases(el_attention *w, bool all)
{
    if (!w)
        return;
    w->out.b = NULL;
    if (all || !w->k.w)
        w->q.b = w->k.b = w->v.b = NULL;
}

/* The last layers read the last layer of their kind before them. */
static edgellm_status share_caches(el_hparams *hp, const el_arch *arch, int32_t n_own)
{
    if (n_own < hp->n_layer && n_own < 2)
        return el_fail(EDGELLM_EFORMAT,
                       "%s.attention.shared_kv_layers leaves %d of %d layers; at least 2 must have keys", arch->name,
                       n_own, hp->n_layer);
    for (int32_t i = n_own; i < hp->n_layer; i++)
        hp->layers[i].kv_of = n_own - (hp->layers[i].sliding ? 2 : 1);
    return EDGELLM_OK;
}

/* [width, n_layer, rows] from the tokens and their scaled embeddings x */
static struct ggml_tensor *build_per_layer(el_graph *g, const per_layer *p, struct ggml_tensor *x)
{
    const int64_t n_layer = g->model->hp.n_layer, rows = x->ne[1];
    struct ggml_tensor *tokens = ggml_get_rows(g->ctx, p->tokens, g->in.tokens), *y;

    tokens = ggml_scale(g->ctx, ggml_reshape_3d(g->ctx, tokens, p->width, n_layer, rows), sqrtf((float)p->width));
    y = ggml_scale(g->ctx, el_build_linear(g, &p->project, x), 1.0f / sqrtf((float)x->ne[0]));
    y = el_build_norm(g, ggml_reshape_3d(g->ctx, y, p->width, n_layer, rows), &p->norm);
    return ggml_scale(g->ctx, ggml_add(g->ctx, y, tokens), sqrtf(0.5f));
}

/* [width, rows] of one layer */
static struct ggml_tensor *of_layer(el_graph *g, struct ggml_tensor *all, int32_t layer)
{
    return ggml_view_2d(g->ctx, all, all->ne[0], all->ne[2], all->nb[2], (size_t)layer * all->nb[1]);
}

/* What the layer's own embedding adds to x. GELU by way of f16, here and in sparse feed-forward blocks: the streams of
 * Gemma 3n amplify rounding so much that the exact function can be told from what files are made for (NMSE 4e-6 instead
 * of 2e-7). */
static struct ggml_tensor *layer_gate(el_graph *g, const own_layer *w, struct ggml_tensor *x, struct ggml_tensor *own)
{
    x = el_op_geglu_f16(g->ctx, el_build_linear(g, &w->gate, x), own);
    return el_build_norm(g, el_build_linear(g, &w->project, x), &w->post_norm);
}

/* ---- Gemma 4 ------------------------------------------------------------------------------ */

static edgellm_status gemma4_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    int32_t n_shared = 0;
    edgellm_status status = EDGELLM_OK;

    hp->attn_scale = 1;
    hp->logit_softcap = 30;
    EL_TRY(el_key_f32(file, arch, "final_logit_softcapping", 1e-3f, 1e6f, &hp->logit_softcap));
    EL_TRY(el_key_i32(file, arch, "attention.shared_kv_layers", 1, EL_MAX_LAYERS, &n_shared));
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].rope_unstretched = hp->layers[i].sliding;
    el_experts_where_routed(hp, file);
    EL_TRY(share_caches(hp, arch, hp->n_layer - n_shared));
done:
    return status;
}

static void gemma4_load(el_loader *l)
{
    el_model *m = l->model;
    per_layer *p = el_load_memory(l, sizeof *p);
    int32_t width = 0;

    if (!p)
        return;
    if (l->status == EDGELLM_OK)
        l->status = el_key_i32(m->file, m->arch, "embedding_length_per_layer_input", 1, EL_MAX_WIDTH, &width);
    if (width > 0)
        load_per_layer(l, p, width);
    m->own = p;
    for (l->layer = 0; l->layer < m->hp.n_layer; l->layer++) {
        el_layer *layer = &m->layers[l->layer];
        own_layer *w = el_load_memory(l, sizeof *w);
        if (!w)
            return;
        layer->own = w;
        drop_biases(layer->mixer, true);
        w->out_scale = el_load_vector(l, "layer_output_scale.weight", EL_OPTIONAL, 1);
        if (width > 0)
            load_layer_gate(l, w, width);
        if (!layer->experts)
            continue;
        layer->ffn = el_load_ffn(l, "", m->hp.layers[l->layer].n_ff);
        w->dense_post = el_load_norm(l, "post_ffw_norm_1", EL_REQUIRED, m->hp.n_embd);
        w->experts_pre = el_load_norm(l, "pre_ffw_norm_2", EL_REQUIRED, m->hp.n_embd);
        w->experts_post = el_load_norm(l, "post_ffw_norm_2", EL_REQUIRED, m->hp.n_embd);
    }
}

/* The dense block and the mixture side by side, each with norms of its own; the router has one without weights. */
static struct ggml_tensor *side_by_side(el_graph *g, const el_layer *w, struct ggml_tensor *x)
{
    const own_layer *own = w->own;
    struct ggml_tensor *dense = el_build_ffn(g, &w->ffn, el_build_norm(g, x, &w->ffn_norm)), *logits, *y;

    logits = ggml_scale(g->ctx, el_build_rms_norm(g, x, NULL), 1.0f / sqrtf((float)x->ne[0]));
    logits = el_build_linear(g, &w->experts->router, ggml_mul(g->ctx, logits, w->experts->router_scale));
    y = el_build_mixture(g, w->experts, el_build_norm(g, x, &own->experts_pre), el_build_choice(g, w->experts, logits));
    return ggml_add(g->ctx, el_build_norm(g, dense, &own->dense_post), el_build_norm(g, y, &own->experts_post));
}

static struct ggml_tensor *gemma4_layer(el_graph *g, int32_t layer, struct ggml_tensor *x, struct ggml_tensor *inputs)
{
    const el_layer *w = &g->model->layers[layer];
    const own_layer *own = w->own;
    struct ggml_tensor *y = el_mixer_attention.build(g, layer, el_build_norm(g, x, &w->attn_norm));

    if (!y)
        return NULL;
    x = ggml_add(g->ctx, el_build_norm(g, el_keep_outputs(g, layer, y), &w->attn_post_norm),
                 el_keep_outputs(g, layer, x));
    y = w->experts ? side_by_side(g, w, x) : el_build_ffn(g, &w->ffn, el_build_norm(g, x, &w->ffn_norm));
    x = ggml_add(g->ctx, el_build_norm(g, y, &w->ffn_post_norm), x);
    if (inputs)
        x = ggml_add(g->ctx, x, layer_gate(g, own, x, el_keep_outputs(g, layer, of_layer(g, inputs, layer))));
    return own->out_scale ? ggml_mul(g->ctx, x, own->out_scale) : x;
}

static void gemma4_build(el_graph *g)
{
    const per_layer *p = g->model->own;
    struct ggml_tensor *x = el_build_embeddings(g), *inputs = p->width ? build_per_layer(g, p, x) : NULL;

    for (int32_t layer = 0; layer < g->model->hp.n_layer && x; layer++) {
        x = gemma4_layer(g, layer, x, inputs);
        if (x)
            el_build_now(g, x);
    }
    if (x)
        el_build_head(g, x);
}

EL_ARCH(gemma4) = {
    .name = "gemma4",
    .traits = {.rope = EL_ROPE_HALVES,
               .activation = EL_ACT_GELU,
               .norm_place = EL_NORM_BOTH,
               .qk_norm = EL_QK_NORM,
               .v_norm = true,
               .scale_embeddings = true,
               .may_have_experts = true,
               .experts_normalise = true,
               .router_scale = true,
               .sliding_period = 6,
               .rope_base_sliding = 10000},
    .hparams = gemma4_hparams,
    .load = gemma4_load,
    .build = gemma4_build,
};

/* ---- Gemma 3n ----------------------------------------------------------------------------- */

enum { STREAMS = 4, WITH_KEYS = 20, SPARSE_LAYERS = 10 };

static edgellm_status gemma3n_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    hp->attn_scale = 1;
    hp->logit_softcap = 30;
    for (int32_t i = 0; i < hp->n_layer; i++)
        if (hp->layers[i].n_ff < 2)
            return el_fail(EDGELLM_EFORMAT, "%s.feed_forward_length is %d for layer %d; it must be at least 2",
                           arch->name, hp->layers[i].n_ff, i);
    return share_caches(hp, arch, EL_MIN(WITH_KEYS, hp->n_layer));
}

static void load_streams(el_loader *l, own_layer *w)
{
    const int64_t n_embd = l->model->hp.n_embd;
    const el_gguf_tensor *laurel = el_find(l, "laurel_l", "weight");
    const int64_t rank = laurel ? laurel->ne[1] : 0;

    w->correct = el_load_linear(l, "altup_correct_coef", EL_REQUIRED, STREAMS, STREAMS);
    w->correct_scale = el_load_vector(l, "altup_correct_scale.weight", EL_REQUIRED, n_embd);
    w->predict = el_load_linear(l, "altup_predict_coef", EL_REQUIRED, STREAMS, STREAMS * STREAMS);
    w->router = el_load_linear(l, "altup_router", EL_REQUIRED, n_embd, STREAMS);
    w->router_norm = el_load_norm(l, "altup_router_norm", EL_REQUIRED, n_embd);
    w->laurel_l = el_load_linear(l, "laurel_l", EL_REQUIRED, n_embd, rank);
    w->laurel_r = el_load_linear(l, "laurel_r", EL_REQUIRED, rank, n_embd);
    w->laurel_norm = el_load_norm(l, "laurel_post_norm", EL_REQUIRED, n_embd);
}

static void gemma3n_load(el_loader *l)
{
    el_model *m = l->model;
    const int64_t n_embd = m->hp.n_embd;
    const el_gguf_tensor *norm = el_gguf_find_tensor(m->file, "per_layer_proj_norm.weight");
    per_layer *p = el_load_memory(l, sizeof *p);

    if (!p)
        return;
    load_per_layer(l, p, norm ? norm->ne[0] : 0);
    p->altup.w = el_load(l, "altup_proj.weight", EL_REQUIRED, EL_MATRIX, n_embd, n_embd, STREAMS - 1);
    p->unembed.w = el_load(l, "altup_unembd_proj.weight", EL_REQUIRED, EL_MATRIX, n_embd, n_embd, STREAMS - 1);
    m->own = p;
    for (l->layer = 0; l->layer < m->hp.n_layer; l->layer++) {
        own_layer *w = el_load_memory(l, sizeof *w);
        if (!w)
            return;
        m->layers[l->layer].own = w;
        drop_biases(m->layers[l->layer].mixer, false);
        load_layer_gate(l, w, p->width);
        load_streams(l, w);
    }
}

/* One stream, [n_embd, rows], of x: [n_embd, rows, STREAMS] */
static struct ggml_tensor *stream(el_graph *g, struct ggml_tensor *x, int32_t i)
{
    return ggml_view_2d(g->ctx, x, x->ne[0], x->ne[1], x->nb[1], (size_t)i * x->nb[2]);
}

static struct ggml_tensor *other_streams(el_graph *g, struct ggml_tensor *x)
{
    return ggml_view_3d(g->ctx, x, x->ne[0], x->ne[1], STREAMS - 1, x->nb[1], x->nb[2], x->nb[2]);
}

static struct ggml_tensor *magnitude(el_graph *g, struct ggml_tensor *x)
{
    return ggml_sqrt(g->ctx, ggml_sum_rows(g->ctx, ggml_sqr(g->ctx, x)));
}

/* w x for each of the other streams, as long as x. */
static struct ggml_tensor *as_long(el_graph *g, const el_linear *w, struct ggml_tensor *from, struct ggml_tensor *x)
{
    struct ggml_tensor *y = el_build_linear(g, w, from);

    return ggml_div(g->ctx, ggml_mul(g->ctx, y, magnitude(g, x)), magnitude(g, y));
}

/* [STREAMS, rows] */
static struct ggml_tensor *modalities(el_graph *g, const own_layer *w, struct ggml_tensor *x)
{
    x = ggml_scale(g->ctx, el_build_norm(g, x, &w->router_norm), 1.0f / (float)x->ne[0]);
    return ggml_tanh(g->ctx, el_build_linear(g, &w->router, x));
}

/* What the layer expects of each stream: x plus a mixture of all streams. */
static struct ggml_tensor *predict(el_graph *g, const own_layer *w, struct ggml_tensor *x)
{
    struct ggml_tensor *coefs = el_build_linear(g, &w->predict, modalities(g, w, stream(g, x, 0))), *y;

    coefs = ggml_reshape_3d(g->ctx, coefs, STREAMS, STREAMS, x->ne[1]);
    y = ggml_mul_mat(g->ctx, ggml_cont(g->ctx, ggml_permute(g->ctx, x, 1, 2, 0, 3)),
                     coefs); /* [n_embd, STREAMS, rows] */
    return ggml_add(g->ctx, ggml_cont(g->ctx, ggml_permute(g->ctx, y, 0, 2, 1, 3)), x);
}

/* Each stream moves by what the computed one differs from its prediction. */
static struct ggml_tensor *correct(el_graph *g, const own_layer *w, struct ggml_tensor *predicted,
                                   struct ggml_tensor *computed)
{
    const int64_t n_embd = computed->ne[0], rows = computed->ne[1];
    struct ggml_tensor *coefs = el_build_linear(g, &w->correct, modalities(g, w, computed)), *y;

    coefs = ggml_scale_bias(g->ctx, coefs, 1, 1);
    coefs = ggml_cont_3d(g->ctx, ggml_transpose(g->ctx, coefs), 1, rows, STREAMS);
    y = ggml_sub(g->ctx, computed, stream(g, predicted, 0));
    y = ggml_mul(g->ctx, ggml_repeat_4d(g->ctx, y, n_embd, rows, STREAMS, 1), coefs);
    return ggml_add(g->ctx, y, predicted);
}

/* The gate is cut off where a normal distribution has its upper twentieth. */
static struct ggml_tensor *sparse(el_graph *g, struct ggml_tensor *x)
{
    const float deviations = 1.6448533535003662f;
    struct ggml_tensor *centred = ggml_sub(g->ctx, x, ggml_mean(g->ctx, x)), *spread;

    spread = ggml_sum_rows(g->ctx, ggml_sqr(g->ctx, centred));
    spread = ggml_sqrt(g->ctx, ggml_scale(g->ctx, spread, 1.0f / (float)(x->ne[0] - 1)));
    return ggml_relu(g->ctx, ggml_sub(g->ctx, centred, ggml_scale(g->ctx, spread, deviations)));
}

static struct ggml_tensor *gemma3n_ffn(el_graph *g, int32_t layer, const el_ffn *w, struct ggml_tensor *x)
{
    struct ggml_tensor *up = el_build_linear(g, &w->up, x), *gate = el_build_linear(g, &w->gate, x);

    if (layer < SPARSE_LAYERS)
        return el_build_linear(g, &w->down, el_op_geglu_f16(g->ctx, sparse(g, gate), up));
    return el_build_linear(g, &w->down, el_build_gated(g, gate, up));
}

static struct ggml_tensor *gemma3n_layer(el_graph *g, int32_t layer, struct ggml_tensor *x, struct ggml_tensor *inputs)
{
    const el_layer *w = &g->model->layers[layer];
    const own_layer *own = w->own;
    struct ggml_tensor *predicted = predict(g, own, x), *active = stream(g, predicted, 0), *normed, *laurel, *y;

    normed = el_build_norm(g, active, &w->attn_norm);
    laurel = el_build_linear(g, &own->laurel_r, el_build_linear(g, &own->laurel_l, normed));
    laurel = ggml_add(g->ctx, el_build_norm(g, laurel, &own->laurel_norm), normed);
    y = el_mixer_attention.build(g, layer, normed);
    if (!y)
        return NULL;
    y = ggml_add(g->ctx, el_build_norm(g, y, &w->attn_post_norm), active);
    x = ggml_scale(g->ctx, ggml_add(g->ctx, y, laurel), sqrtf(0.5f));
    y = gemma3n_ffn(g, layer, &w->ffn, el_build_norm(g, x, &w->ffn_norm));
    x = ggml_add(g->ctx, el_build_norm(g, y, &w->ffn_post_norm), x);
    x = correct(g, own, predicted, x);
    y = ggml_mul(g->ctx, stream(g, x, 0), own->correct_scale);
    y = layer_gate(g, own, y, of_layer(g, inputs, layer));
    return ggml_concat(g->ctx, ggml_view_3d(g->ctx, x, x->ne[0], x->ne[1], 1, x->nb[1], x->nb[2], 0),
                       ggml_add(g->ctx, other_streams(g, x), y), 2);
}

static void gemma3n_build(el_graph *g)
{
    const per_layer *p = g->model->own;
    struct ggml_tensor *first = el_build_embeddings(g), *inputs = build_per_layer(g, p, first), *x, *others;

    x = ggml_repeat_4d(g->ctx, first, first->ne[0], first->ne[1], STREAMS - 1, 1);
    x = ggml_concat(g->ctx, first, as_long(g, &p->altup, x, first), 2);
    for (int32_t layer = 0; layer < g->model->hp.n_layer && x; layer++) {
        x = gemma3n_layer(g, layer, x, inputs);
        if (x)
            el_build_now(g, x);
    }
    if (!x)
        return;
    first = stream(g, x, 0);
    others = as_long(g, &p->unembed, other_streams(g, x), first);
    for (int32_t i = 0; i < STREAMS - 1; i++)
        first = ggml_add(g->ctx, first, stream(g, others, i));
    first = ggml_scale(g->ctx, first, 1.0f / STREAMS);
    el_build_head(g, el_keep_outputs(g, g->model->hp.n_layer - 1, first));
}

EL_ARCH(gemma3n) = {
    .name = "gemma3n",
    .traits = {.rope = EL_ROPE_HALVES,
               .activation = EL_ACT_GELU,
               .norm_place = EL_NORM_BOTH,
               .qk_norm = EL_QK_NORM,
               .v_norm = true,
               .scale_embeddings = true,
               .sliding_period = 5,
               .rope_base_sliding = 10000,
               .sliding_unscaled = true},
    .hparams = gemma3n_hparams,
    .load = gemma3n_load,
    .build = gemma3n_build,
};
