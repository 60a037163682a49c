/* rwkv7.c - RWKV 7 and ARWKV 7 (its time mix in the place of Qwen 2's attention): the state forgets channel by channel
 * and erases what it held for a key at a rate of its own; later layers mix in the first layer's values.
 * Source: Peng et al. 2025 (RWKV-7 "Goose"), section 4; the published model code. */
#include <stdio.h>

#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "op_shift.h"
#include "op_wkv.h"
#include "rwkv.h"

enum { RECEPTANCE, DECAY, KEY, VALUE, RATE, GATE, N_MIXES }; /* in the files' order */

typedef struct low_rank { /* up(act(down x)) + base */
    el_linear down, up;
    struct ggml_tensor *base;
} low_rank;

typedef struct time_mix { /* weights */
    struct ggml_tensor *mixes[N_MIXES];
    low_rank decay, rate, value, gate; /* gate.up.w NULL: no gate; value: not in the first layer */
    el_linear r, k, v, out;
    struct ggml_tensor *key_erased, *key_rate, *bonus; /* [n_embd] */
    el_norm norm;
} time_mix;

static low_rank load_low_rank(el_loader *l, char letter, bool based)
{
    const int64_t n_embd = l->model->hp.n_embd;
    char name[32];
    int64_t rank;
    low_rank w = {0};

    snprintf(name, sizeof name, "time_mix_%c1", letter);
    rank = el_rank_of(l, name);
    w.down = el_load_linear(l, name, EL_REQUIRED, n_embd, rank);
    snprintf(name, sizeof name, "time_mix_%c2", letter);
    w.up = el_load_linear(l, name, EL_REQUIRED, rank, n_embd);
    snprintf(name, sizeof name, "time_mix_%c0.weight", letter);
    if (based)
        w.base = el_load_vector(l, name, EL_REQUIRED, n_embd);
    return w;
}

/* Files without a gate may leave its mix out. */
static void load_mixes(el_loader *l, time_mix *w)
{
    const int64_t n_embd = l->model->hp.n_embd;
    const int n = w->gate.up.w || el_n_floats(l, "time_mix_lerp_fused") == N_MIXES * n_embd ? N_MIXES : GATE;
    el_linear fused = {NULL, NULL, NULL};

    fused.w = el_load(l, "time_mix_lerp_fused.weight", EL_REQUIRED, EL_FLOATS, n_embd, n, 1);
    for (int i = 0; i < n; i++)
        w->mixes[i] = el_rows_of(l, fused, i, 1).w;
}

static void *load(el_loader *l, const el_layer_hparams *lh)
{
    const int64_t n_embd = l->model->hp.n_embd;
    const bool grafted = lh->n_ff > 0;
    time_mix *w = el_load_memory(l, sizeof *w);

    if (!w)
        return NULL;
    w->decay = load_low_rank(l, 'w', true);
    w->rate = load_low_rank(l, 'a', true);
    if (l->layer > 0)
        w->value = load_low_rank(l, 'v', true);
    if (!grafted || el_has(l, "time_mix_g2.weight"))
        w->gate = load_low_rank(l, 'g', false);
    load_mixes(l, w);
    w->r = el_load_linear(l, "time_mix_receptance", EL_REQUIRED, n_embd, n_embd);
    w->k = el_load_linear(l, "time_mix_key", EL_REQUIRED, n_embd, n_embd);
    w->v = el_load_linear(l, "time_mix_value", EL_REQUIRED, n_embd, n_embd);
    w->out = el_load_linear(l, "time_mix_output", EL_REQUIRED, n_embd, n_embd);
    w->key_erased = el_load_vector(l, "time_mix_k_k.weight", EL_REQUIRED, n_embd);
    w->key_rate = el_load_vector(l, "time_mix_k_a.weight", EL_REQUIRED, n_embd);
    w->bonus = el_load_vector(l, "time_mix_r_k.weight", EL_REQUIRED, n_embd);
    w->norm = el_load_norm(l, "time_mix_ln", grafted ? EL_OPTIONAL : EL_REQUIRED, n_embd);
    return w;
}

static struct ggml_tensor *build_low_rank(el_graph *g, const low_rank *w, struct ggml_tensor *x,
                                          struct ggml_tensor *(*act)(struct ggml_context *, struct ggml_tensor *))
{
    struct ggml_tensor *y = el_build_linear(g, &w->down, x);

    y = el_build_linear(g, &w->up, act ? act(g->ctx, y) : y);
    return w->base ? ggml_add(g->ctx, y, w->base) : y;
}

/* The first layer's values, and of later layers a mixture with those. */
static struct ggml_tensor *values(el_graph *g, const time_mix *w, struct ggml_tensor *x)
{
    struct ggml_tensor *v = el_build_linear(g, &w->v, x), *share;

    if (!w->value.up.w)
        return g->carried = v;
    share = ggml_sigmoid(g->ctx, build_low_rank(g, &w->value, x, NULL));
    return ggml_add(g->ctx, v, ggml_mul(g->ctx, ggml_sub(g->ctx, g->carried, v), share));
}

/* Of one time mix, [n_embd, rows] each. */
typedef struct parts {
    struct ggml_tensor *r, *k, *v, *y;
} parts;

static parts remember(el_graph *g, int32_t layer, const time_mix *w, struct ggml_tensor *const *x)
{
    const float most = -0.606531f; /* -exp(-0.5): no channel forgets more than exp of this in one step */
    struct ggml_tensor *decay = ggml_sigmoid(g->ctx, build_low_rank(g, &w->decay, x[DECAY], ggml_tanh));
    struct ggml_tensor *rate = ggml_sigmoid(g->ctx, build_low_rank(g, &w->rate, x[RATE], NULL));
    struct ggml_tensor *k = el_build_linear(g, &w->k, x[KEY]), *erased, *kept;
    parts p = {.r = el_build_linear(g, &w->r, x[RECEPTANCE]), .v = values(g, w, x[VALUE])};
    el_wkv t = {.memory = g->memory[layer].state, .runs = g->in.runs, .scale = 1};

    erased = el_build_heads(g, layer, ggml_mul(g->ctx, k, w->key_erased));
    kept = ggml_mul(g->ctx, k, w->key_rate);
    p.k = ggml_add(g->ctx, k, ggml_sub(g->ctx, ggml_mul(g->ctx, rate, kept), kept)); /* k (1 + (rate - 1) key_rate) */
    t.r = el_build_heads(g, layer, p.r);
    t.k = el_build_heads(g, layer, p.k);
    t.v = el_build_heads(g, layer, p.v);
    t.decay = el_build_heads(g, layer, ggml_exp(g->ctx, ggml_scale(g->ctx, decay, most)));
    t.erased = ggml_l2_norm(g->ctx, erased, 1e-12f);
    t.rate = el_build_heads(g, layer, rate);
    p.y = el_op_wkv(g->ctx, &t);
    return p;
}

/* v times (r . (k bonus)) of its head. */
static struct ggml_tensor *bonus(el_graph *g, int32_t layer, const time_mix *w, const parts *p)
{
    struct ggml_tensor *y = ggml_mul(g->ctx, ggml_mul(g->ctx, p->k, p->r), w->bonus);

    y = ggml_sum_rows(g->ctx, el_build_heads(g, layer, y)); /* [1, n_head, rows] */
    y = ggml_mul(g->ctx, el_build_heads(g, layer, p->v), y);
    return ggml_reshape_2d(g->ctx, y, p->v->ne[0], p->v->ne[1]);
}

/* From the normed input to what is added to the residual; NULL when only the memory is wanted. */
static struct ggml_tensor *build(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const time_mix *w = g->model->layers[layer].mixer;
    struct ggml_tensor *all = el_build_shift(g, layer, false, x, w->mixes, w->gate.up.w ? N_MIXES : GATE);
    struct ggml_tensor *mixed[N_MIXES] = {NULL}, *y;
    parts p;

    for (int i = 0; i < all->ne[2]; i++)
        mixed[i] = el_build_mixed(g, all, i);
    p = remember(g, layer, w, mixed);
    if (el_rwkv_memory_alone(g, layer)) {
        el_build_now(g, p.y);
        return NULL;
    }
    y = ggml_add(g->ctx, el_build_group_norm(g, p.y, &w->norm), bonus(g, layer, w, &p));
    if (w->gate.up.w)
        y = ggml_mul(g->ctx, y, build_low_rank(g, &w->gate, mixed[GATE], ggml_sigmoid));
    return el_build_linear(g, &w->out, y);
}

static const el_mixer mixer = {"RWKV 7", el_rwkv_layer_hparams, load, build};

EL_ARCH(rwkv7) = {
    .name = "rwkv7",
    .traits = {.rope = EL_ROPE_OFF, .layer_norm = true, .embd_norm = "token_embd_norm"},
    .mixer = &mixer,
    .hparams = el_rwkv_hparams,
    .load = el_load_channel_mix,
    .layer = el_build_rwkv_layer,
};

EL_ARCH(arwkv7) = {
    .name = "arwkv7",
    .traits = {.rope = EL_ROPE_OFF},
    .mixer = &mixer,
    .hparams = el_rwkv_grafted_hparams,
};
