/* block_shortconv.c - LFM2's mixer: a short convolution between two gates.
 * Source: Liquid AI 2025 (LFM2), section 2; the published model code. */
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"
#include "op_conv.h"

typedef struct shortconv {
    el_linear before, after, x; /* gates, and what they stand around */
    el_linear out;
    struct ggml_tensor *conv;
} shortconv;

static edgellm_status check(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_require(hp->ssm.d_conv, arch, "shortconv.l_cache"));
    if (!hp->causal)
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "layer %d is a convolution that also sees later positions (%s.attention.causal is false), which "
                       "this version cannot run",
                       i, arch->name);
    layer->conv_width = (int64_t)(hp->ssm.d_conv - 1) * hp->n_embd;
done:
    return status;
}

static void *load(el_loader *l, const el_layer_hparams *lh)
{
    const int64_t n_embd = l->model->hp.n_embd;
    shortconv *w = el_load_memory(l, sizeof *w);
    el_linear all;

    (void)lh;
    if (!w)
        return NULL;
    all = el_load_linear(l, "shortconv.in_proj", EL_REQUIRED, n_embd, 3 * n_embd);
    w->before = el_rows_of(l, all, 0, n_embd);
    w->after = el_rows_of(l, all, n_embd, n_embd);
    w->x = el_rows_of(l, all, 2 * n_embd, n_embd);
    w->conv = el_load(l, "shortconv.conv.weight", EL_REQUIRED, EL_FLOATS, l->model->hp.ssm.d_conv, n_embd, 1);
    w->out = el_load_linear(l, "shortconv.out_proj", EL_REQUIRED, n_embd, n_embd);
    return w;
}

static struct ggml_tensor *build(el_graph *g, int32_t layer, struct ggml_tensor *in)
{
    const shortconv *w = g->model->layers[layer].mixer;
    struct ggml_tensor *x = ggml_mul(g->ctx, el_build_linear(g, &w->before, in), el_build_linear(g, &w->x, in));

    x = el_op_conv(g->ctx, x, w->conv, NULL, g->memory[layer].conv, g->in.runs, false);
    if (el_nobody_reads(g, layer)) {
        el_build_now(g, x);
        return NULL;
    }
    return el_build_linear(g, &w->out, ggml_mul(g->ctx, el_build_linear(g, &w->after, in), x));
}

const el_mixer el_mixer_shortconv = {"shortconv", check, load, build};
