/* block_mamba.c - state-space layers: a gate beside a short convolution and a selective scan.
 * Sources: Gu and Dao 2023 (Mamba), section 3.4; Dao and Gu 2024 (Mamba 2), section 7; Zuo et al. 2024 (Falcon Mamba)
 * and Lieber et al. 2024 (Jamba): norms of dt, B and C; the published model code of each. */
#include <stdio.h>

#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"
#include "op_conv.h"
#include "op_scan.h"

typedef struct el_mamba { /* weights of all forms; NULL where one has none */
    el_linear z, x;       /* of the layer's input: the gate, what goes through the convolution */
    el_linear zx;         /* PLaMo 2: both, side by side in each head */
    struct ggml_tensor *conv, *conv_bias;
    el_linear low, b, c; /* Mamba 1, of the convolution's result: dt's low-rank form, B, C */
    el_norm low_norm, b_norm, c_norm;
    bool norm_low_b_c;
    el_linear dt; /* of `low` (Mamba 1) or of the layer's input (Mamba 2): [n_head, rows] */
    struct ggml_tensor *dt_bias, *a, *d;
    el_norm norm; /* of each group of the result (Mamba 2) */
    el_linear out;
} el_mamba;

/* ---- numbers ------------------------------------------------------------------------------ */

/* `channels` go through the convolution. */
static edgellm_status check(el_hparams *hp, el_layer_hparams *layer, const el_arch *arch, int64_t channels)
{
    const el_ssm_hparams *s = &hp->ssm;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_require(s->d_conv, arch, "ssm.conv_kernel"));
    EL_TRY(el_key_require(s->d_inner, arch, "ssm.inner_size"));
    EL_TRY(el_key_require(s->d_state, arch, "ssm.state_size"));
    EL_TRY(el_key_require(s->dt_rank, arch, "ssm.time_step_rank"));
    layer->conv_width = (s->d_conv - 1) * channels;
    layer->state_width = (int64_t)s->d_state * s->d_inner;
done:
    return status;
}

static edgellm_status mamba_hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch)
{
    (void)i;
    return check(hp, layer, arch, hp->ssm.d_inner);
}

static edgellm_status check_heads(const el_ssm_hparams *s, const el_arch *arch)
{
    const int32_t n_group = EL_MAX(s->n_group, 1);

    if (s->d_inner % s->dt_rank == 0 && s->dt_rank % n_group == 0)
        return EDGELLM_OK;
    return el_fail(EDGELLM_EFORMAT, "%s has %d state-space channels in %d heads and %d groups; that cannot be",
                   arch->name, s->d_inner, s->dt_rank, n_group);
}

/* What goes through the convolution: x, B and C. */
static int64_t mamba2_channels(const el_ssm_hparams *s) { return s->d_inner + 2 * (int64_t)s->n_group * s->d_state; }

edgellm_status el_mamba2_hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    (void)i;
    EL_TRY(check(hp, layer, arch, mamba2_channels(&hp->ssm)));
    EL_TRY(el_key_require(hp->ssm.n_group, arch, "ssm.group_count"));
    EL_TRY(check_heads(&hp->ssm, arch));
done:
    return status;
}

static edgellm_status plamo2_hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(mamba_hparams(hp, layer, i, arch));
    hp->ssm.n_group = 0;
    EL_TRY(check_heads(&hp->ssm, arch));
done:
    return status;
}

/* ---- weights ------------------------------------------------------------------------------ */

/* [n] or [1, n] */
static struct ggml_tensor *load_per_head(el_loader *l, const char *name, int64_t n)
{
    char full[64];
    const el_gguf_tensor *found;

    snprintf(full, sizeof full, "%s%d.%s", l->prefix, l->layer, name);
    found = el_gguf_find_tensor(l->model->file, full);
    return found && found->ne[0] == n ? el_load_vector(l, name, EL_REQUIRED, n)
                                      : el_load(l, name, EL_REQUIRED, EL_FLOATS, 1, n, 1);
}

static el_mamba *load_common(el_loader *l, int64_t channels, int64_t n_head)
{
    const el_hparams *hp = &l->model->hp;
    el_mamba *w = el_load_memory(l, sizeof *w);

    if (!w)
        return NULL;
    w->conv = el_load(l, "ssm_conv1d.weight", EL_REQUIRED, EL_FLOATS, hp->ssm.d_conv, channels, 1);
    w->conv_bias = el_load_vector(l, "ssm_conv1d.bias", EL_OPTIONAL, channels);
    w->dt_bias = el_load_vector(l, "ssm_dt.bias", EL_REQUIRED, n_head);
    w->d = load_per_head(l, "ssm_d", n_head);
    w->out = el_load_linear(l, "ssm_out", EL_REQUIRED, hp->ssm.d_inner, hp->n_embd);
    return w;
}

/* dt from its low rank, and the norms of what dt, B and C are made of. */
static void load_dt(el_loader *l, el_mamba *w, int64_t rank, int64_t n_head)
{
    const el_ssm_hparams *s = &l->model->hp.ssm;

    w->low_norm = el_load_norm(l, "ssm_dt_norm", EL_OPTIONAL, rank);
    w->b_norm = el_load_norm(l, "ssm_b_norm", EL_OPTIONAL, s->d_state);
    w->c_norm = el_load_norm(l, "ssm_c_norm", EL_OPTIONAL, s->d_state);
    w->norm_low_b_c = s->norm_dt_b_c || (w->low_norm.w && w->b_norm.w && w->c_norm.w);
    w->dt = el_load_linear(l, "ssm_dt", EL_REQUIRED, rank, n_head);
    w->dt.b = NULL; /* dt_bias */
}

static void *load_mamba(el_loader *l, const el_layer_hparams *lh)
{
    const el_ssm_hparams *s = &l->model->hp.ssm;
    const int64_t d_inner = s->d_inner, d_state = s->d_state, rank = s->dt_rank;
    el_mamba *w = load_common(l, d_inner, d_inner);
    el_linear all;

    (void)lh;
    if (!w)
        return NULL;
    all = el_load_linear(l, "ssm_in", EL_REQUIRED, l->model->hp.n_embd, 2 * d_inner);
    w->x = el_rows_of(l, all, 0, d_inner);
    w->z = el_rows_of(l, all, d_inner, d_inner);
    all = el_load_linear(l, "ssm_x", EL_REQUIRED, d_inner, rank + 2 * d_state);
    w->low = el_rows_of(l, all, 0, rank);
    w->b = el_rows_of(l, all, rank, d_state);
    w->c = el_rows_of(l, all, rank + d_state, d_state);
    load_dt(l, w, rank, d_inner);
    w->a = el_load(l, "ssm_a", EL_REQUIRED, EL_FLOATS, d_state, d_inner, 1);
    return w;
}

/* Heads as in Mamba 2, projections as in Mamba 1. */
static void *load_plamo2(el_loader *l, const el_layer_hparams *lh)
{
    const el_hparams *hp = &l->model->hp;
    const int64_t d_inner = hp->ssm.d_inner, d_state = hp->ssm.d_state, n_head = hp->ssm.dt_rank;
    const int64_t rank = EL_MAX(64, hp->n_embd / 16); /* of the published model code */
    el_mamba *w = load_common(l, d_inner, n_head);
    el_linear all;

    (void)lh;
    if (!w)
        return NULL;
    w->zx = el_load_linear(l, "ssm_in", EL_REQUIRED, hp->n_embd, 2 * d_inner);
    all = el_load_linear(l, "ssm_x", EL_REQUIRED, d_inner, rank + 2 * d_state);
    w->b = el_rows_of(l, all, 0, d_state);
    w->c = el_rows_of(l, all, d_state, d_state);
    w->low = el_rows_of(l, all, 2 * d_state, rank);
    load_dt(l, w, rank, n_head);
    w->a = load_per_head(l, "ssm_a", n_head);
    return w;
}

el_mamba *el_mamba2_load(el_loader *l)
{
    const el_hparams *hp = &l->model->hp;
    const int64_t d_inner = hp->ssm.d_inner, channels = mamba2_channels(&hp->ssm), n_head = hp->ssm.dt_rank;
    el_mamba *w = load_common(l, channels, n_head);
    el_linear all;

    if (!w)
        return NULL;
    all = el_load_linear(l, "ssm_in", EL_REQUIRED, hp->n_embd, d_inner + channels + n_head);
    w->z = el_rows_of(l, all, 0, d_inner);
    w->x = el_rows_of(l, all, d_inner, channels);
    w->dt = el_rows_of(l, all, d_inner + channels, n_head);
    w->a = load_per_head(l, "ssm_a", n_head);
    if (el_has(l, "ssm_norm.weight"))
        w->norm.w =
            el_load(l, "ssm_norm.weight", EL_REQUIRED, EL_FLOATS, d_inner / hp->ssm.n_group, hp->ssm.n_group, 1);
    return w;
}

static void *load_mamba2(el_loader *l, const el_layer_hparams *lh)
{
    (void)lh;
    return el_mamba2_load(l);
}

/* ---- graph -------------------------------------------------------------------------------- */

/* Rows first .. first + n - 1 of each column. */
static struct ggml_tensor *part(el_graph *g, struct ggml_tensor *t, int64_t first, int64_t n)
{
    return ggml_view_2d(g->ctx, t, n, t->ne[1], t->nb[1], (size_t)first * t->nb[0]);
}

static struct ggml_tensor *low_or_b_or_c(el_graph *g, const el_mamba *w, const el_linear *linear, const el_norm *norm,
                                         struct ggml_tensor *x)
{
    x = el_build_linear(g, linear, x);
    return w->norm_low_b_c ? el_build_rms_norm(g, x, norm->w) : x;
}

/* Of PLaMo 2's [2 * head, n_head, rows], z (which 0) or x (1): [d_inner, rows] */
static struct ggml_tensor *half_of_heads(el_graph *g, struct ggml_tensor *zx, int which)
{
    const el_ssm_hparams *s = &g->model->hp.ssm;
    const int64_t head = s->d_inner / s->dt_rank, rows = zx->ne[1];

    zx = ggml_view_3d(g->ctx, zx, head, s->dt_rank, rows, (size_t)(2 * head) * zx->nb[0], zx->nb[1],
                      (size_t)(which * head) * zx->nb[0]);
    return ggml_reshape_2d(g->ctx, ggml_cont(g->ctx, zx), s->d_inner, rows);
}

/* From the layer's input to the scan's result, [d_inner, rows]. x: what goes through the convolution */
static struct ggml_tensor *scanned(el_graph *g, int32_t layer, const el_mamba *w, struct ggml_tensor *in,
                                   struct ggml_tensor *x)
{
    const el_ssm_hparams *s = &g->model->hp.ssm;
    const el_layer_memory *memory = &g->memory[layer];
    el_scan scan = {.dt_bias = w->dt_bias, .a = w->a, .d = w->d, .memory = memory->state, .runs = g->in.runs};

    x = el_op_conv(g->ctx, x, w->conv, w->conv_bias, memory->conv, g->in.runs, true);
    if (w->low.w) {
        scan.x = x;
        scan.b = low_or_b_or_c(g, w, &w->b, &w->b_norm, x);
        scan.c = low_or_b_or_c(g, w, &w->c, &w->c_norm, x);
        scan.dt = el_build_linear(g, &w->dt, low_or_b_or_c(g, w, &w->low, &w->low_norm, x));
    } else {
        const int64_t n = (int64_t)s->n_group * s->d_state;
        scan.x = part(g, x, 0, s->d_inner);
        scan.b = part(g, x, s->d_inner, n);
        scan.c = part(g, x, s->d_inner + n, n);
        scan.dt = el_build_linear(g, &w->dt, in);
    }
    return el_op_scan(g->ctx, &scan);
}

struct ggml_tensor *el_build_mamba(el_graph *g, int32_t layer, const el_mamba *w, struct ggml_tensor *in)
{
    struct ggml_tensor *zx = w->zx.w ? el_build_linear(g, &w->zx, in) : NULL;
    struct ggml_tensor *x = zx ? half_of_heads(g, zx, 1) : el_build_linear(g, &w->x, in);
    struct ggml_tensor *z, *y = scanned(g, layer, w, in, x);

    if (el_nobody_reads(g, layer)) {
        el_build_now(g, y);
        return NULL;
    }
    z = zx ? half_of_heads(g, zx, 0) : el_build_linear(g, &w->z, in);
    y = ggml_swiglu_split(g->ctx, z, y);
    if (w->norm.w) {
        const int64_t n_group = w->norm.w->ne[1], rows = y->ne[1];
        y = ggml_reshape_3d(g->ctx, y, y->ne[0] / n_group, n_group, rows);
        y = el_build_rms_norm(g, y, w->norm.w);
        y = ggml_reshape_2d(g->ctx, y, y->ne[0] * n_group, rows);
    }
    return el_build_linear(g, &w->out, y);
}

static struct ggml_tensor *build(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    return el_build_mamba(g, layer, g->model->layers[layer].mixer, x);
}

const el_mixer el_mixer_mamba = {"mamba", mamba_hparams, load_mamba, build};
const el_mixer el_mixer_mamba2 = {"mamba2", el_mamba2_hparams, load_mamba2, build};
const el_mixer el_mixer_mamba_plamo2 = {"mamba-plamo2", plamo2_hparams, load_plamo2, build};
