/* rwkv6.c - RWKV 6 and QRWKV 6 (its time mix in the place of Qwen 2's attention): how much of the token before counts
 * depends on the token, and so does the decay.
 * Sources: Peng et al. 2024 (Eagle and Finch), section 4; recursal 2024 (QRWKV6), the published model code. */
#include <math.h>

#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "op_wkv.h"
#include "rwkv.h"

enum { DECAY, KEY, VALUE, RECEPTANCE, GATE, N_MIXES }; /* in the files' order */

typedef struct time_mix { /* weights */
    struct ggml_tensor *mix;
    el_linear mixes_down, mixes_up; /* [n_embd, rank * 5], [rank, n_embd, 5] */
    struct ggml_tensor *mixes[N_MIXES];
    struct ggml_tensor *decay, *first; /* first NULL: QRWKV */
    el_linear decay_down, decay_up, r, k, v, gate, out;
    el_norm norm;
} time_mix;

static void load_mixes(el_loader *l, time_mix *w)
{
    static const char *const names[N_MIXES] = {"time_mix_lerp_w.weight", "time_mix_lerp_k.weight",
                                               "time_mix_lerp_v.weight", "time_mix_lerp_r.weight",
                                               "time_mix_lerp_g.weight"};
    const int64_t n_embd = l->model->hp.n_embd;
    el_linear fused = {NULL, NULL, NULL};

    if (el_has(l, "time_mix_lerp_fused.weight"))
        fused.w = el_load(l, "time_mix_lerp_fused.weight", EL_REQUIRED, EL_FLOATS, n_embd, N_MIXES, 1);
    for (int i = 0; i < N_MIXES; i++)
        w->mixes[i] = fused.w ? el_rows_of(l, fused, i, 1).w : el_load_vector(l, names[i], EL_REQUIRED, n_embd);
}

static void *load(el_loader *l, const el_layer_hparams *lh)
{
    const int64_t n_embd = l->model->hp.n_embd, n_kv = (int64_t)lh->n_head_kv * lh->head_k;
    const int64_t rank = el_rank_of(l, "time_mix_w1") / N_MIXES;
    const int64_t decay_rank = el_rank_of(l, "time_mix_decay_w1");
    const bool grafted = lh->n_ff > 0;
    time_mix *w = el_load_memory(l, sizeof *w);

    if (!w)
        return NULL;
    w->mix = el_load_vector(l, "time_mix_lerp_x.weight", EL_REQUIRED, n_embd);
    w->mixes_down = el_load_linear(l, "time_mix_w1", EL_REQUIRED, n_embd, rank * N_MIXES);
    w->mixes_up.w = el_load(l, "time_mix_w2.weight", EL_REQUIRED, EL_MATRIX, rank, n_embd, N_MIXES);
    load_mixes(l, w);
    w->decay = el_load_vector(l, "time_mix_decay.weight", EL_REQUIRED, n_embd);
    w->decay_down = el_load_linear(l, "time_mix_decay_w1", EL_REQUIRED, n_embd, decay_rank);
    w->decay_up = el_load_linear(l, "time_mix_decay_w2", EL_REQUIRED, decay_rank, n_embd);
    w->r = el_load_linear(l, "time_mix_receptance", EL_REQUIRED, n_embd, n_embd);
    w->k = el_load_linear(l, "time_mix_key", EL_REQUIRED, n_embd, n_kv);
    w->v = el_load_linear(l, "time_mix_value", EL_REQUIRED, n_embd, n_kv);
    w->gate = el_load_linear(l, "time_mix_gate", EL_REQUIRED, n_embd, n_embd);
    w->out = el_load_linear(l, "time_mix_output", EL_REQUIRED, n_embd, n_embd);
    w->first =
        el_load(l, "time_mix_first.weight", grafted ? EL_OPTIONAL : EL_REQUIRED, EL_FLOATS, lh->head_k, lh->n_head, 1);
    if (w->first)
        w->norm = el_load_norm(l, "time_mix_ln", EL_REQUIRED, n_embd);
    return w;
}

/* x moved towards the token before it, by shares that depend on both: one [n_embd, rows] for each use. */
static void mix(el_graph *g, int32_t layer, const time_mix *w, struct ggml_tensor *x, struct ggml_tensor *to[N_MIXES])
{
    const int64_t rank = w->mixes_up.w->ne[0], rows = x->ne[1];
    struct ggml_tensor *d = el_build_shift(g, layer, false, x, NULL, 0);
    struct ggml_tensor *y = ggml_add(g->ctx, ggml_mul(g->ctx, d, w->mix), x);

    y = ggml_tanh(g->ctx, el_build_linear(g, &w->mixes_down, y)); /* [rank * 5, rows] */
    y = ggml_view_3d(g->ctx, y, rank, rows, N_MIXES, y->nb[1], (size_t)rank * sizeof(float), 0);
    y = el_build_linear(g, &w->mixes_up, ggml_cont(g->ctx, y)); /* [n_embd, rows, 5] */
    for (int i = 0; i < N_MIXES; i++) {
        struct ggml_tensor *share = ggml_add(g->ctx, el_build_mixed(g, y, i), w->mixes[i]);
        to[i] = ggml_add(g->ctx, ggml_mul(g->ctx, share, d), x);
    }
}

static struct ggml_tensor *remember(el_graph *g, int32_t layer, const time_mix *w, struct ggml_tensor *const *x)
{
    struct ggml_tensor *decay = ggml_tanh(g->ctx, el_build_linear(g, &w->decay_down, x[DECAY]));
    el_wkv t = {.r = el_build_heads(g, layer, el_build_linear(g, &w->r, x[RECEPTANCE])),
                .k = el_build_heads(g, layer, el_build_linear(g, &w->k, x[KEY])),
                .v = el_build_heads(g, layer, el_build_linear(g, &w->v, x[VALUE])),
                .complement = !w->first,
                .first = w->first,
                .memory = g->memory[layer].state,
                .runs = g->in.runs,
                .scale = 1};

    if (!w->first)
        t.scale = 1.0f / sqrtf((float)t.r->ne[0]);
    decay = ggml_add(g->ctx, el_build_linear(g, &w->decay_up, decay), w->decay);
    decay = ggml_exp(g->ctx, ggml_neg(g->ctx, ggml_exp(g->ctx, decay)));
    t.decay = el_build_heads(g, layer, decay);
    return el_op_wkv(g->ctx, &t);
}

/* From the normed input to what is added to the residual; NULL when only the memory is wanted. */
static struct ggml_tensor *build(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const time_mix *w = g->model->layers[layer].mixer;
    struct ggml_tensor *mixed[N_MIXES], *y, *gate;

    mix(g, layer, w, x, mixed);
    y = remember(g, layer, w, mixed);
    if (el_rwkv_memory_alone(g, layer)) {
        el_build_now(g, y);
        return NULL;
    }
    y = el_build_group_norm(g, y, &w->norm);
    gate = el_build_linear(g, &w->gate, mixed[GATE]);
    y = w->first ? ggml_swiglu_split(g->ctx, gate, y) : ggml_mul(g->ctx, y, ggml_sigmoid(g->ctx, gate));
    return el_build_linear(g, &w->out, y);
}

static const el_mixer mixer = {"RWKV 6", el_rwkv_layer_hparams, load, build};

EL_ARCH(rwkv6) = {
    .name = "rwkv6",
    .traits = {.rope = EL_ROPE_OFF, .layer_norm = true, .embd_norm = "token_embd_norm"},
    .mixer = &mixer,
    .hparams = el_rwkv_hparams,
    .load = el_load_channel_mix,
    .layer = el_build_rwkv_layer,
};

EL_ARCH(rwkv6qwen2) = {
    .name = "rwkv6qwen2",
    .traits = {.rope = EL_ROPE_OFF},
    .mixer = &mixer,
    .hparams = el_rwkv_grafted_hparams,
};
