/* block_mla.c - multi-head latent attention: keys and values of a position come from one short vector, the latent, and
 * one part that rotates and that all heads share.
 * Absorbed, the cache holds latent and rotated part alone, as one key head whose first floats are also the value: the
 * queries go through attn_k_b before attention and the results through attn_v_b after it. Files of before that split
 * hold attn_kv_b, which makes whole keys and values of the latent; those are cached then.
 * Source: DeepSeek-AI 2024 (DeepSeek-V2), section 2.1 and appendix C. */
#include <math.h>
#include <stdio.h>

#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

typedef struct mla {       /* weights */
    el_linear q_a, q_b, q; /* q.w NULL: queries go through q_a, its norm and q_b */
    el_norm q_a_norm, kv_a_norm;
    el_linear kv_a;     /* makes latent and rotated part */
    el_linear k_b, v_b; /* [nope, rank, n_head] and [rank, head_v, n_head]; absorbed */
    el_linear kv_b;     /* [rank, (nope + head_v) * n_head]; not absorbed */
    el_linear gate;     /* w NULL: none */
    el_linear out;
} mla;

static bool has_whole_keys(const el_hparams *hp, const el_gguf *file)
{
    char name[64];

    for (int32_t i = 0; i < hp->n_layer; i++) {
        snprintf(name, sizeof name, "blk.%d.attn_kv_b.weight", i);
        if (el_gguf_find_tensor(file, name))
            return true;
    }
    return false;
}

edgellm_status el_mla_keys(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    el_mla_hparams *m = &hp->mla;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_i32(file, arch, "attention.q_lora_rank", 1, EL_MAX_WIDTH, &m->q_rank));
    EL_TRY(el_key_i32(file, arch, "attention.kv_lora_rank", 1, EL_MAX_HEAD, &m->kv_rank));
    EL_TRY(el_key_require(m->kv_rank, arch, "attention.kv_lora_rank"));
    EL_TRY(el_key_i32(file, arch, "rope.dimension_count", 2, EL_MAX_HEAD, &m->n_rope));
    EL_TRY(el_key_require(m->n_rope, arch, "rope.dimension_count"));
    EL_TRY(el_key_i32(file, arch, "attention.key_length_mla", 1, EL_MAX_HEAD, &m->head_k));
    EL_TRY(el_key_i32(file, arch, "attention.value_length_mla", 1, EL_MAX_HEAD, &m->head_v));
    m->absorbed = m->head_k > 0 && m->head_v > 0 && !has_whole_keys(hp, file);
    if (m->head_k == 0 || m->head_v == 0) {
        m->head_k = hp->layers[0].head_k;
        m->head_v = hp->layers[0].head_v;
    }
    EL_TRY(el_key_require(m->head_k, arch, "attention.key_length"));
    EL_TRY(el_key_require(m->head_v, arch, "attention.value_length"));
    if (m->n_rope > m->head_k - m->absorbed)
        return el_fail(EDGELLM_EFORMAT, "%s.rope.dimension_count is %d; it must be %s the key length of %d", arch->name,
                       m->n_rope, m->absorbed ? "less than" : "at most", m->head_k);
    if (m->kv_rank + m->n_rope > EL_MAX_HEAD)
        return el_fail(EDGELLM_EFORMAT, "%s.attention.kv_lora_rank is %d; with the rotated %d it must be at most %d",
                       arch->name, m->kv_rank, m->n_rope, EL_MAX_HEAD);
    hp->attn_scale = 1.0f / sqrtf((float)m->head_k);
done:
    return status;
}

/* Needs el_mla_keys to have been called, by the family. */
static edgellm_status hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch)
{
    const el_mla_hparams *m = &hp->mla;
    edgellm_status status = EDGELLM_OK;

    (void)i;
    EL_TRY(el_key_require(layer->n_head, arch, "attention.head_count"));
    if (layer->n_rot != 0 && (layer->n_rot != m->n_rope || layer->n_rot % 2 != 0))
        return el_fail(EDGELLM_EFORMAT, "%s.rope.dimension_count is %d; it must be even", arch->name, m->n_rope);
    layer->n_head_kv = m->absorbed ? 1 : layer->n_head;
    layer->head_k = m->absorbed ? m->kv_rank + m->n_rope : m->head_k;
    layer->head_v = m->absorbed ? m->kv_rank : m->head_v;
    layer->k_width = layer->n_head_kv * layer->head_k;
    layer->v_width = m->absorbed ? 0 : layer->n_head_kv * layer->head_v;
done:
    return status;
}

static void *load(el_loader *l, const el_layer_hparams *lh)
{
    const el_mla_hparams *m = &l->model->hp.mla;
    const int64_t n_embd = l->model->hp.n_embd, n_head = lh->n_head, nope = m->head_k - m->n_rope;
    mla *w = el_load_memory(l, sizeof *w);

    if (!w)
        return NULL;
    if (el_has(l, "attn_q_a.weight")) {
        w->q_a = el_load_linear(l, "attn_q_a", EL_REQUIRED, n_embd, m->q_rank);
        w->q_a_norm = el_load_norm(l, "attn_q_a_norm", EL_REQUIRED, m->q_rank);
        w->q_b = el_load_linear(l, "attn_q_b", EL_REQUIRED, m->q_rank, n_head * m->head_k);
    } else
        w->q = el_load_linear(l, "attn_q", EL_REQUIRED, n_embd, n_head * m->head_k);
    w->kv_a = el_load_linear(l, "attn_kv_a_mqa", EL_REQUIRED, n_embd, m->kv_rank + m->n_rope);
    w->kv_a_norm = el_load_norm(l, "attn_kv_a_norm", EL_REQUIRED, m->kv_rank);
    if (m->absorbed) {
        w->k_b.w = el_load(l, "attn_k_b.weight", EL_REQUIRED, EL_MATRIX, nope, m->kv_rank, n_head);
        w->v_b.w = el_load(l, "attn_v_b.weight", EL_REQUIRED, EL_MATRIX, m->kv_rank, m->head_v, n_head);
    } else
        w->kv_b = el_load_linear(l, "attn_kv_b", EL_REQUIRED, m->kv_rank, n_head * (nope + m->head_v));
    w->gate = el_load_attn_gate(l, lh->n_head, n_head * m->head_v);
    w->out = el_load_linear(l, "attn_output", EL_REQUIRED, n_head * m->head_v, n_embd);
    return w;
}

/* Floats first .. first + n - 1 of each head. x: [head, n_head, rows] */
static struct ggml_tensor *slice(el_graph *g, struct ggml_tensor *x, int64_t first, int64_t n)
{
    return ggml_view_3d(g->ctx, x, n, x->ne[1], x->ne[2], x->nb[1], x->nb[2], (size_t)first * x->nb[0]);
}

/* [a, rows, n_head] from [a, n_head, rows], or back */
static struct ggml_tensor *swapped(el_graph *g, struct ggml_tensor *x) { return ggml_permute(g->ctx, x, 0, 2, 1, 3); }

/* [head, n_head, rows] with the part that rotates at the end of each head, not yet turned */
static struct ggml_tensor *queries(el_graph *g, const mla *w, const el_layer_hparams *lh, struct ggml_tensor *x)
{
    struct ggml_tensor *q;

    if (w->q.w)
        q = el_build_linear(g, &w->q, x);
    else
        q = el_build_linear(g, &w->q_b, el_build_norm(g, el_build_linear(g, &w->q_a, x), &w->q_a_norm));
    return ggml_reshape_3d(g->ctx, q, g->model->hp.mla.head_k, lh->n_head, x->ne[1]);
}

static struct ggml_tensor *absorbed(el_graph *g, int32_t layer, const mla *w, struct ggml_tensor *q,
                                    struct ggml_tensor *q_rot, struct ggml_tensor *latent, struct ggml_tensor *k_rot)
{
    const el_mla_hparams *m = &g->model->hp.mla;
    const int64_t n_head = q->ne[1], rows = q->ne[2];
    struct ggml_tensor *y;

    q = el_build_linear(g, &w->k_b, swapped(g, slice(g, q, 0, m->head_k - m->n_rope))); /* [rank, rows, n_head] */
    q = ggml_concat(g->ctx, swapped(g, q), q_rot, 0);
    y = ggml_concat(g->ctx, ggml_reshape_3d(g->ctx, latent, m->kv_rank, 1, rows), k_rot, 0);
    el_build_cache_write(g, layer, ggml_reshape_2d(g->ctx, y, m->kv_rank + m->n_rope, rows), NULL);
    if (el_nobody_reads(g, layer))
        return NULL;
    if (g->in.attn_temp)
        q = ggml_mul(g->ctx, q, g->in.attn_temp);
    y = ggml_reshape_3d(g->ctx, el_build_attend(g, layer, q, NULL), m->kv_rank, n_head, rows);
    y = el_build_linear(g, &w->v_b, swapped(g, y)); /* [head_v, rows, n_head] */
    return ggml_cont_2d(g->ctx, swapped(g, y), m->head_v * n_head, rows);
}

static struct ggml_tensor *whole(el_graph *g, int32_t layer, const mla *w, struct ggml_tensor *q,
                                 struct ggml_tensor *q_rot, struct ggml_tensor *latent, struct ggml_tensor *k_rot)
{
    const el_mla_hparams *m = &g->model->hp.mla;
    const int64_t n_head = q->ne[1], rows = q->ne[2], nope = m->head_k - m->n_rope;
    struct ggml_tensor *kv = el_build_linear(g, &w->kv_b, latent), *k, *v;

    kv = ggml_reshape_3d(g->ctx, kv, nope + m->head_v, n_head, rows);
    v = ggml_cont_2d(g->ctx, slice(g, kv, nope, m->head_v), m->head_v * n_head, rows);
    k = ggml_repeat_4d(g->ctx, k_rot, m->n_rope, n_head, rows, 1);
    q = nope > 0 ? ggml_concat(g->ctx, slice(g, q, 0, nope), q_rot, 0) : q_rot;
    k = nope > 0 ? ggml_concat(g->ctx, slice(g, kv, 0, nope), k, 0) : k;
    el_build_cache_write(g, layer, ggml_reshape_2d(g->ctx, k, m->head_k * n_head, rows), v);
    if (el_nobody_reads(g, layer))
        return NULL;
    if (g->in.attn_temp)
        q = ggml_mul(g->ctx, q, g->in.attn_temp);
    return el_build_attend(g, layer, q, NULL);
}

static struct ggml_tensor *build(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_mla_hparams *m = &g->model->hp.mla;
    const el_layer_hparams *lh = &g->model->hp.layers[layer];
    const mla *w = g->model->layers[layer].mixer;
    const int64_t rows = x->ne[1];
    struct ggml_tensor *q = queries(g, w, lh, x);
    struct ggml_tensor *kv = el_build_linear(g, &w->kv_a, x); /* [rank + n_rope, rows] */
    struct ggml_tensor *latent = ggml_view_2d(g->ctx, kv, m->kv_rank, rows, kv->nb[1], 0);
    struct ggml_tensor *q_rot = el_build_rope(g, lh, slice(g, q, m->head_k - m->n_rope, m->n_rope)), *k_rot, *y;

    k_rot = ggml_view_3d(g->ctx, kv, m->n_rope, 1, rows, kv->nb[1], kv->nb[1], (size_t)m->kv_rank * kv->nb[0]);
    k_rot = el_build_rope(g, lh, k_rot);
    latent = el_build_norm(g, latent, &w->kv_a_norm);
    y = (m->absorbed ? absorbed : whole)(g, layer, w, q, q_rot, latent, k_rot);
    if (y && w->gate.w)
        y = el_build_attn_gate(g, &w->gate, lh->n_head, x, y);
    return y ? el_build_linear(g, &w->out, y) : NULL;
}

const el_mixer el_mixer_mla = {"latent attention", hparams, load, build};
