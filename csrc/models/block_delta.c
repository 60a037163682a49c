/* block_delta.c - linear attention by the gated delta rule, as Qwen3-Next and Qwen3.5 have it: a short convolution of
 * queries, keys and values, the rule, a norm of each head gated by a projection of the input.
 * Sources: Yang, Kautz and Hatamizadeh 2024 (Gated Delta Networks), section 3; the published model code; tensor names
 * of the gguf package. */
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"
#include "op_conv.h"
#include "op_delta.h"

typedef struct delta { /* weights */
    el_linear qkv, z;  /* queries of all heads, then keys, then values; the gate */
    el_linear mixed;   /* of older files instead of both: per key head its query, key, values and gates */
    el_linear alpha, beta;
    el_linear
        beta_alpha; /* of Qwen3-Next instead of both: per key head the betas, then the alphas of its value heads */
    struct ggml_tensor *conv, *bias, *a;
    el_norm norm;
    el_linear out;
} delta;

typedef struct inputs {
    struct ggml_tensor *qkv, *z; /* [q, k and v of all heads, rows], [d_inner, rows] */
} inputs;

static int64_t key_width(const el_ssm_hparams *s) { return (int64_t)s->n_group * s->d_state; }

static edgellm_status hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch)
{
    const el_ssm_hparams *s = &hp->ssm;
    edgellm_status status = EDGELLM_OK;

    (void)i;
    EL_TRY(el_key_require(s->d_conv, arch, "ssm.conv_kernel"));
    EL_TRY(el_key_require(s->d_state, arch, "ssm.state_size"));
    EL_TRY(el_key_require(s->dt_rank, arch, "ssm.time_step_rank"));
    EL_TRY(el_key_require(s->n_group, arch, "ssm.group_count"));
    if (s->dt_rank % s->n_group != 0 || s->dt_rank > EL_MAX_HEADS || s->d_state > EL_DELTA_MAX_HEAD)
        return el_fail(EDGELLM_EFORMAT,
                       "%s.ssm names %d value heads of %d on %d key heads; they must be a multiple of the key heads, "
                       "and at most %d wide",
                       arch->name, s->dt_rank, s->d_state, s->n_group, EL_DELTA_MAX_HEAD);
    if ((int64_t)s->dt_rank * s->d_state != s->d_inner)
        return el_fail(EDGELLM_EFORMAT, "%s.ssm.inner_size is %d, not %d heads of %d", arch->name, s->d_inner,
                       s->dt_rank, s->d_state);
    layer->conv_width = (s->d_conv - 1) * (2 * key_width(s) + s->d_inner);
    layer->state_width = (int64_t)s->d_inner * s->d_state;
done:
    return status;
}

static void *load(el_loader *l, const el_layer_hparams *lh)
{
    const el_ssm_hparams *s = &l->model->hp.ssm;
    const int64_t n_embd = l->model->hp.n_embd, n_qkv = 2 * key_width(s) + s->d_inner;
    delta *w = el_load_memory(l, sizeof *w);

    (void)lh;
    if (!w)
        return NULL;
    if (el_has(l, "attn_qkv.weight") || !el_has(l, "ssm_in.weight")) {
        w->qkv = el_load_linear(l, "attn_qkv", EL_REQUIRED, n_embd, n_qkv);
        w->z = el_load_linear(l, "attn_gate", EL_REQUIRED, n_embd, s->d_inner);
    } else {
        w->mixed = el_load_linear(l, "ssm_in", EL_REQUIRED, n_embd, n_qkv + s->d_inner);
    }
    if (el_has(l, "ssm_ba.weight")) {
        w->beta_alpha = el_load_linear(l, "ssm_ba", EL_REQUIRED, n_embd, 2 * s->dt_rank);
    } else {
        w->beta = el_load_linear(l, "ssm_beta", EL_REQUIRED, n_embd, s->dt_rank);
        w->alpha = el_load_linear(l, "ssm_alpha", EL_REQUIRED, n_embd, s->dt_rank);
    }
    w->conv = el_load(l, "ssm_conv1d.weight", EL_REQUIRED, EL_FLOATS, s->d_conv, n_qkv, 1);
    w->bias = el_load_vector(l, "ssm_dt.bias", EL_REQUIRED, s->dt_rank);
    w->a = el_load_vector(l, "ssm_a", EL_REQUIRED, s->dt_rank);
    w->norm = el_load_norm(l, "ssm_norm", EL_REQUIRED, s->d_state);
    w->out = el_load_linear(l, "ssm_out", EL_REQUIRED, s->d_inner, n_embd);
    return w;
}

/* Floats first .. first + n - 1 of each key head's share of `mixed`, side by side for all heads. */
static struct ggml_tensor *unmixed(el_graph *g, struct ggml_tensor *mixed, int64_t first, int64_t n)
{
    const int64_t n_heads = g->model->hp.ssm.n_group, rows = mixed->ne[1];
    const size_t share = mixed->nb[1] / (size_t)n_heads;
    struct ggml_tensor *t =
        ggml_view_3d(g->ctx, mixed, n, n_heads, rows, share, mixed->nb[1], (size_t)first * sizeof(float));

    return ggml_cont_2d(g->ctx, t, n * n_heads, rows);
}

static inputs project(el_graph *g, const delta *w, struct ggml_tensor *x)
{
    const el_ssm_hparams *s = &g->model->hp.ssm;
    const int64_t n_key = s->d_state, n_value = s->d_inner / s->n_group;
    struct ggml_tensor *mixed, *keys;

    if (w->qkv.w)
        return (inputs){el_build_linear(g, &w->qkv, x), el_build_linear(g, &w->z, x)};
    mixed = el_build_linear(g, &w->mixed, x);
    keys = ggml_concat(g->ctx, unmixed(g, mixed, 0, n_key), unmixed(g, mixed, n_key, n_key), 0);
    return (inputs){ggml_concat(g->ctx, keys, unmixed(g, mixed, 2 * n_key, n_value), 0),
                    unmixed(g, mixed, 2 * n_key + n_value, n_value)};
}

/* One number for each value head, of which `step` floats apart `n` follow each other: as el_delta wants them. */
static struct ggml_tensor *per_head(el_graph *g, struct ggml_tensor *x, int64_t n, int64_t step, int64_t first)
{
    const size_t f = sizeof(float);

    return ggml_view_4d(g->ctx, x, 1, n, g->model->hp.ssm.dt_rank / n, x->ne[1], f, (size_t)step * f, x->nb[1],
                        (size_t)first * f);
}

static struct ggml_tensor *heads(el_graph *g, struct ggml_tensor *x, int64_t n, int64_t first)
{
    const int64_t head = g->model->hp.ssm.d_state;

    return ggml_view_3d(g->ctx, x, head, n, x->ne[1], (size_t)head * sizeof(float), x->nb[1],
                        (size_t)first * sizeof(float));
}

static struct ggml_tensor *remember(el_graph *g, int32_t layer, const delta *w, struct ggml_tensor *x,
                                    struct ggml_tensor *qkv)
{
    const el_ssm_hparams *s = &g->model->hp.ssm;
    const int64_t shared = s->dt_rank / s->n_group; /* value heads on one key head */
    struct ggml_tensor *y = el_op_conv(g->ctx, qkv, w->conv, NULL, g->memory[layer].conv, g->in.runs, true);
    el_delta d = {.q = heads(g, y, s->n_group, 0),
                  .k = heads(g, y, s->n_group, key_width(s)),
                  .v = heads(g, y, s->dt_rank, 2 * key_width(s)),
                  .bias = w->bias,
                  .a = w->a,
                  .memory = g->memory[layer].state,
                  .runs = g->in.runs,
                  .eps = g->model->hp.norm_eps};

    if (w->beta_alpha.w) { /* value heads stand by key heads; else files have them reordered */
        struct ggml_tensor *both = el_build_linear(g, &w->beta_alpha, x);
        d.neighbours = true;
        d.beta = per_head(g, both, shared, 2 * shared, 0);
        d.alpha = per_head(g, both, shared, 2 * shared, shared);
    } else {
        d.beta = per_head(g, el_build_linear(g, &w->beta, x), s->dt_rank, s->dt_rank, 0);
        d.alpha = per_head(g, el_build_linear(g, &w->alpha, x), s->dt_rank, s->dt_rank, 0);
    }
    return el_op_delta(g->ctx, &d);
}

static struct ggml_tensor *build(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const delta *w = g->model->layers[layer].mixer;
    const inputs in = project(g, w, x);
    struct ggml_tensor *y = remember(g, layer, w, x, in.qkv);

    if (el_nobody_reads(g, layer)) {
        el_build_now(g, y);
        return NULL;
    }
    y = ggml_reshape_2d(g->ctx, el_build_norm(g, y, &w->norm), g->model->hp.ssm.d_inner, x->ne[1]);
    return el_build_linear(g, &w->out, ggml_swiglu_split(g->ctx, in.z, y));
}

const el_mixer el_mixer_delta = {"gated delta rule", hparams, load, build};
