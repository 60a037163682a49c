/* block_kda.c - Kimi Delta Attention: the gated delta rule with a decay for each channel, short convolutions of
 * queries, keys and values apart, and a norm of each head gated by the sigmoid of a projection. Heads are layer.n_head
 * of layer.head_k; the family sets them and hp->ssm.d_conv. Sources: Kimi Team 2025 (Kimi Linear), section 3; the
 * published model code; tensor names of the gguf package. */
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"
#include "op_conv.h"
#include "op_delta.h"

typedef struct projection { /* by way of a few numbers, or at once: then up.w is NULL */
    el_linear down, up;
} projection;

typedef struct kda { /* weights */
    el_attention qkv;
    struct ggml_tensor *conv_q, *conv_k, *conv_v, *bias, *a;
    projection decay, gate;
    el_linear beta;
    el_norm norm;
} kda;

edgellm_status el_kda_keys(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    int32_t n_head = 0, head = 0;
    edgellm_status status = EDGELLM_OK;

    for (int32_t i = 0; i < hp->n_layer && n_head == 0; i++)
        n_head = hp->layers[i].n_head;
    EL_TRY(el_key_require(n_head, arch, "attention.head_count"));
    EL_TRY(el_key_i32(file, arch, "kda.head_dim", 1, EL_DELTA_MAX_HEAD, &head));
    EL_TRY(el_key_require(head, arch, "kda.head_dim"));
    EL_TRY(el_key_i32(file, arch, "ssm.conv_kernel", 2, EL_CONV_MAX_TAPS, &hp->ssm.d_conv));
    EL_TRY(el_key_require(hp->ssm.d_conv, arch, "ssm.conv_kernel"));
    EL_TRY(el_key_mixers(hp, file, arch, &el_mixer_kda));
    for (int32_t i = 0; i < hp->n_layer; i++) {
        el_layer_hparams *layer = &hp->layers[i];
        if (layer->mixer != &el_mixer_kda)
            continue;
        layer->n_head = layer->n_head_kv = n_head;
        layer->head_k = layer->head_v = head;
    }
done:
    return status;
}

static int64_t width_of(const el_layer_hparams *lh) { return (int64_t)lh->n_head * lh->head_k; }

static edgellm_status hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch)
{
    (void)i;
    (void)arch;
    layer->conv_width = 3 * (hp->ssm.d_conv - 1) * width_of(layer);
    layer->state_width = width_of(layer) * layer->head_k;
    return EDGELLM_OK;
}

static projection load_projection(el_loader *l, const char *down, const char *up, int64_t rank, int64_t n)
{
    const int64_t n_embd = l->model->hp.n_embd;
    projection p = {{NULL, NULL, NULL}, {NULL, NULL, NULL}};

    if (el_find(l, up, "weight")) {
        p.down = el_load_linear(l, down, EL_REQUIRED, n_embd, rank);
        p.up = el_load_linear(l, up, EL_REQUIRED, rank, n);
    } else {
        p.down = el_load_linear(l, down, EL_REQUIRED, n_embd, n);
    }
    return p;
}

static void *load(el_loader *l, const el_layer_hparams *lh)
{
    const int64_t n_embd = l->model->hp.n_embd, n = width_of(lh), taps = l->model->hp.ssm.d_conv;
    kda *w = el_load_memory(l, sizeof *w);

    if (!w)
        return NULL;
    el_load_qkv(l, &w->qkv, n, n, n);
    w->qkv.q.b = w->qkv.k.b = w->qkv.v.b = NULL; /* the models have none, and runtimes use none that a file holds */
    w->qkv.out = el_load_linear(l, "attn_output", EL_REQUIRED, n, n_embd);
    w->conv_q = el_load(l, "ssm_conv1d_q.weight", EL_REQUIRED, EL_FLOATS, taps, n, 1);
    w->conv_k = el_load(l, "ssm_conv1d_k.weight", EL_REQUIRED, EL_FLOATS, taps, n, 1);
    w->conv_v = el_load(l, "ssm_conv1d_v.weight", EL_REQUIRED, EL_FLOATS, taps, n, 1);
    w->decay = load_projection(l, "ssm_f_a", "ssm_f_b", lh->head_k, n);
    w->bias = el_load_vector(l, "ssm_dt.bias", EL_REQUIRED, n);
    w->a = el_load_vector(l, "ssm_a", EL_REQUIRED, lh->n_head);
    w->beta = el_load_linear(l, "ssm_beta", EL_REQUIRED, n_embd, lh->n_head);
    w->gate = load_projection(l, "ssm_g_a", "ssm_g_b", lh->head_k, n);
    w->norm = el_load_norm(l, "ssm_norm", EL_REQUIRED, lh->head_k);
    return w;
}

static struct ggml_tensor *project(el_graph *g, const projection *p, struct ggml_tensor *x)
{
    x = el_build_linear(g, &p->down, x);
    return p->up.w ? el_build_linear(g, &p->up, x) : x;
}

/* Projected and convolved: [head, n_head, rows]. part: which third of the layer's memory. */
static struct ggml_tensor *convolved(el_graph *g, int32_t layer, const el_linear *w, struct ggml_tensor *conv, int part,
                                     struct ggml_tensor *x)
{
    const el_layer_hparams *lh = &g->model->hp.layers[layer];
    struct ggml_tensor *memory = g->memory[layer].conv;
    const int64_t third = memory->ne[0] / 3;

    memory =
        ggml_view_2d(g->ctx, memory, third, memory->ne[1], memory->nb[1], (size_t)part * (size_t)third * sizeof(float));
    x = el_op_conv(g->ctx, el_build_linear(g, w, x), conv, NULL, memory, g->in.runs, true);
    return ggml_reshape_3d(g->ctx, x, lh->head_k, lh->n_head, x->ne[1]);
}

static struct ggml_tensor *remember(el_graph *g, int32_t layer, const kda *w, struct ggml_tensor *x)
{
    const el_layer_hparams *lh = &g->model->hp.layers[layer];
    const int64_t rows = x->ne[1];
    const el_delta d = {
        .q = convolved(g, layer, &w->qkv.q, w->conv_q, 0, x),
        .k = convolved(g, layer, &w->qkv.k, w->conv_k, 1, x),
        .v = convolved(g, layer, &w->qkv.v, w->conv_v, 2, x),
        .alpha = ggml_reshape_4d(g->ctx, project(g, &w->decay, x), lh->head_k, lh->n_head, 1, rows),
        .beta = ggml_reshape_4d(g->ctx, el_build_linear(g, &w->beta, x), 1, lh->n_head, 1, rows),
        .bias = w->bias,
        .a = w->a,
        .bound = g->model->hp.kda_bound,
        .memory = g->memory[layer].state,
        .runs = g->in.runs,
        .eps = g->model->hp.norm_eps,
    };

    return el_op_delta(g->ctx, &d);
}

static struct ggml_tensor *build(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const kda *w = g->model->layers[layer].mixer;
    struct ggml_tensor *y = remember(g, layer, w, x), *gate;

    if (el_nobody_reads(g, layer)) {
        el_build_now(g, y);
        return NULL;
    }
    gate = ggml_sigmoid(g->ctx, project(g, &w->gate, x));
    y = ggml_reshape_2d(g->ctx, el_build_norm(g, y, &w->norm), gate->ne[0], x->ne[1]);
    return el_build_linear(g, &w->qkv.out, ggml_mul(g->ctx, y, gate));
}

const el_mixer el_mixer_kda = {"Kimi delta attention", hparams, load, build};
