/* gemma3n.c - Gemma 3n (text): four streams of rows of which a layer computes one and predicts and corrects the others
 * (AltUp), a low-rank path beside attention (LAuReL), an embedding of each token for each layer, the last layers
 * reading earlier ones' keys and values. Sources: Gemma Team 2025 (Gemma 3n, model card); Baykal et al. 2023 (AltUp);
 * Menghani et al. 2025 (LAuReL); the published model code. */
#include <math.h>

#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"
#include "op_gelu.h"
#include "per_layer.h"

typedef struct gemma3n_top { /* of the model */
    el_per_layer per_layer;
    el_linear altup, unembed; /* [n_embd, n_embd, STREAMS - 1] */
} gemma3n_top;

typedef struct gemma3n_own { /* of a layer */
    el_per_layer_gate gate;
    el_linear correct, predict, router, laurel_l, laurel_r;
    el_norm router_norm, laurel_norm;
    struct ggml_tensor *correct_scale;
} gemma3n_own;

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
    return el_per_layer_share(hp, arch, EL_MIN(WITH_KEYS, hp->n_layer));
}

static void load_streams(el_loader *l, gemma3n_own *w)
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
    gemma3n_top *p = el_load_memory(l, sizeof *p);

    if (!p)
        return;
    p->per_layer = el_per_layer_load(l, norm ? norm->ne[0] : 0);
    p->altup.w = el_load(l, "altup_proj.weight", EL_REQUIRED, EL_MATRIX, n_embd, n_embd, STREAMS - 1);
    p->unembed.w = el_load(l, "altup_unembd_proj.weight", EL_REQUIRED, EL_MATRIX, n_embd, n_embd, STREAMS - 1);
    m->own = p;
    for (l->layer = 0; l->layer < m->hp.n_layer; l->layer++) {
        gemma3n_own *w = el_load_memory(l, sizeof *w);
        if (!w)
            return;
        m->layers[l->layer].own = w;
        el_per_layer_drop_biases(m->layers[l->layer].mixer, false);
        w->gate = el_per_layer_load_gate(l, p->per_layer.width);
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
static struct ggml_tensor *modalities(el_graph *g, const gemma3n_own *w, struct ggml_tensor *x)
{
    x = ggml_scale(g->ctx, el_build_norm(g, x, &w->router_norm), 1.0f / (float)x->ne[0]);
    return ggml_tanh(g->ctx, el_build_linear(g, &w->router, x));
}

/* What the layer expects of each stream: x plus a mixture of all streams. */
static struct ggml_tensor *predict(el_graph *g, const gemma3n_own *w, struct ggml_tensor *x)
{
    struct ggml_tensor *coefs = el_build_linear(g, &w->predict, modalities(g, w, stream(g, x, 0))), *y;

    coefs = ggml_reshape_3d(g->ctx, coefs, STREAMS, STREAMS, x->ne[1]);
    y = ggml_mul_mat(g->ctx, ggml_cont(g->ctx, ggml_permute(g->ctx, x, 1, 2, 0, 3)),
                     coefs); /* [n_embd, STREAMS, rows] */
    return ggml_add(g->ctx, ggml_cont(g->ctx, ggml_permute(g->ctx, y, 0, 2, 1, 3)), x);
}

/* Each stream moves by what the computed one differs from its prediction. */
static struct ggml_tensor *correct(el_graph *g, const gemma3n_own *w, struct ggml_tensor *predicted,
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
    const gemma3n_own *own = w->own;
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
    y = el_build_per_layer_gate(g, &own->gate, y, el_per_layer_of(g, inputs, layer));
    return ggml_concat(g->ctx, ggml_view_3d(g->ctx, x, x->ne[0], x->ne[1], 1, x->nb[1], x->nb[2], 0),
                       ggml_add(g->ctx, other_streams(g, x), y), 2);
}

static void gemma3n_build(el_graph *g)
{
    const gemma3n_top *p = g->model->own;
    struct ggml_tensor *first = el_build_embeddings(g), *inputs = el_build_per_layer(g, &p->per_layer, first), *x,
                       *others;

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
