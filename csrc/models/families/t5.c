/* t5.c - T5: an encoder that reads the source text at once, and a decoder that attends to what it wrote; RMSNorm, no
 * scale of the scores, a bias by relative position instead of rope. T5's encoder alone gives embeddings.
 * The layers' memory lies in this order: encoder, decoder (its own text), decoder (the source text).
 * Source: Raffel et al. 2020, section 2.1; the published model code. */
#include <stdio.h>

#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"
#include "op_gelu.h"
#include "op_rel_attention.h"

typedef struct el_t5_layer {
    el_norm attn_norm, cross_norm;
    el_attention self, cross;
    struct ggml_tensor *bias; /* of the layer, or the first layer's */
} el_t5_layer;

enum { MAX_BUCKETS = 1 << 12 };

/* Encoder, decoder and cross layers as one list; the number of decoder layers is the encoder's unless the file says. */
static edgellm_status t5_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    el_layer_hparams *layers;
    int32_t n_decoder = arch->traits.encoder ? 0 : hp->n_layer;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_i32(file, arch, "attention.relative_buckets_count", 4, MAX_BUCKETS, &hp->n_buckets));
    EL_TRY(el_key_require(hp->n_buckets, arch, "attention.relative_buckets_count"));
    if (!arch->traits.encoder) {
        EL_TRY(el_key_i32(file, arch, "decoder_block_count", 1, EL_MAX_LAYERS, &n_decoder));
        EL_TRY(el_key_i32(file, arch, "decoder_start_token_id", 0, hp->n_vocab - 1, &hp->decoder_start));
    }
    hp->n_encoder = hp->n_layer;
    layers = el_alloc((size_t)(hp->n_encoder + 2 * n_decoder), sizeof *layers);
    if (!layers)
        return el_no_memory(sizeof *layers * (size_t)(hp->n_encoder + 2 * n_decoder));
    for (int32_t i = 0; i < hp->n_encoder + 2 * n_decoder; i++) {
        layers[i] = hp->layers[i < hp->n_encoder ? i : 0];
        layers[i].kv_of = i;
    }
    el_free(hp->layers);
    hp->layers = layers;
    hp->n_layer += 2 * n_decoder;
    hp->activation = EL_ACT_RELU;
    if (el_gguf_find_tensor(file, "enc.blk.0.ffn_gate.weight"))
        hp->activation = EL_ACT_GELU;
done:
    return status;
}

static void load_attention(el_loader *l, el_attention *w, const char *prefix, const el_layer_hparams *lh)
{
    const int64_t n_embd = l->model->hp.n_embd;
    const struct {
        const char *name;
        el_linear *to;
        int64_t n_in, n_out;
    } parts[] = {{"q", &w->q, n_embd, (int64_t)lh->n_head * lh->head_k},
                 {"k", &w->k, n_embd, (int64_t)lh->n_head_kv * lh->head_k},
                 {"v", &w->v, n_embd, (int64_t)lh->n_head_kv * lh->head_v},
                 {"o", &w->out, (int64_t)lh->n_head * lh->head_v, n_embd}};
    char name[64];

    for (size_t i = 0; i < EL_COUNT(parts); i++) {
        snprintf(name, sizeof name, "%sattn_%s", prefix, parts[i].name);
        *parts[i].to = el_load_linear(l, name, EL_REQUIRED, parts[i].n_in, parts[i].n_out);
    }
}

/* The layers of one stack: files that hold a bias for the first layer alone mean it for all. */
static void load_stack(el_loader *l, int32_t first, int32_t n, bool crosses)
{
    el_model *m = l->model;

    for (int32_t i = 0; i < n && l->status == EDGELLM_OK; i++) {
        const el_layer_hparams *lh = &m->hp.layers[first + i];
        el_layer *layer = &m->layers[first + i];
        el_t5_layer *w = el_load_memory(l, sizeof *w);
        if (!w)
            return;
        layer->own = w;
        l->layer = i;
        w->attn_norm = el_load_norm(l, "attn_norm", EL_REQUIRED, m->hp.n_embd);
        load_attention(l, &w->self, "", lh);
        w->bias = el_load(l, "attn_rel_b.weight", i == 0 ? EL_REQUIRED : EL_OPTIONAL, EL_FLOATS, lh->n_head,
                          m->hp.n_buckets, 1);
        if (!w->bias && i > 0)
            w->bias = ((el_t5_layer *)m->layers[first].own)->bias;
        if (crosses) {
            w->cross_norm = el_load_norm(l, "cross_attn_norm", EL_REQUIRED, m->hp.n_embd);
            load_attention(l, &w->cross, "cross_", lh);
        }
        layer->ffn_norm = el_load_norm(l, "ffn_norm", EL_REQUIRED, m->hp.n_embd);
        layer->ffn = el_load_ffn(l, "", lh->n_ff);
    }
    l->layer = -1;
}

static int32_t n_decoder(const el_hparams *hp) { return (hp->n_layer - hp->n_encoder) / 2; }

static void t5_load(el_loader *l)
{
    el_model *m = l->model;
    const char *prefix = l->prefix;

    l->prefix = "enc.blk.";
    load_stack(l, 0, m->hp.n_encoder, false);
    m->source_norm = el_load_norm(l, "enc.output_norm", EL_REQUIRED, m->hp.n_embd);
    l->prefix = "dec.blk.";
    load_stack(l, m->hp.n_encoder, n_decoder(&m->hp), true);
    l->prefix = prefix;
}

/* One layer's attention over cache rows that are already there. */
static struct ggml_tensor *attend(el_graph *g, int32_t layer, const el_attention *w, struct ggml_tensor *x,
                                  struct ggml_tensor *ranges, struct ggml_tensor *tables, struct ggml_tensor *bias)
{
    const el_layer_hparams *lh = &g->model->hp.layers[layer];
    const el_rel_attention shape = {.head_k = lh->head_k,
                                    .head_v = lh->head_v,
                                    .n_head = lh->n_head,
                                    .n_head_kv = lh->n_head_kv,
                                    .n_buckets = g->model->hp.n_buckets,
                                    .both_ways = layer < g->model->hp.n_encoder};
    struct ggml_tensor *q = el_build_linear(g, &w->q, x);

    q = ggml_reshape_3d(g->ctx, q, lh->head_k, lh->n_head, x->ne[1]);
    x = el_op_rel_attention(g->ctx, &shape, q, g->memory[layer].k, g->memory[layer].v, ranges, tables, bias);
    return el_build_linear(g, &w->out, x);
}

static void write_rows(el_graph *g, int32_t layer, const el_attention *w, struct ggml_tensor *x)
{
    el_build_cache_write(g, layer, el_build_linear(g, &w->k, x), el_build_linear(g, &w->v, x));
}

static struct ggml_tensor *self_attention(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_t5_layer *w = g->model->layers[layer].own;
    struct ggml_tensor *y = el_build_norm(g, x, &w->attn_norm);

    write_rows(g, layer, &w->self, y);
    return ggml_add(g->ctx, attend(g, layer, &w->self, y, g->in.ranges, g->in.tables, w->bias), x);
}

/* T5's scores are not scaled, so small differences grow from layer to layer: a GELU in full precision moves the logits
 * of ill-conditioned models from other runtimes' by an NMSE of 2e-5. */
static struct ggml_tensor *gated_by_gelu(el_graph *g, const el_ffn *w, struct ggml_tensor *x)
{
    struct ggml_tensor *gate = el_build_linear(g, &w->gate, x), *up = el_build_linear(g, &w->up, x);

    return el_build_linear(g, &w->down, el_op_geglu_f16(g->ctx, gate, up));
}

static struct ggml_tensor *feed_forward(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];
    const bool gelu = g->model->hp.activation == EL_ACT_GELU;
    struct ggml_tensor *y = el_build_norm(g, x, &w->ffn_norm);

    return ggml_add(g->ctx, gelu && w->ffn.gate.w ? gated_by_gelu(g, &w->ffn, y) : el_build_ffn(g, &w->ffn, y), x);
}

/* The source text through the encoder: [n_embd, rows], normed. */
static struct ggml_tensor *encode(el_graph *g)
{
    struct ggml_tensor *x = el_build_embeddings(g);

    for (int32_t i = 0; i < g->model->hp.n_encoder; i++) {
        x = feed_forward(g, i, self_attention(g, i, x));
        el_build_now(g, x);
    }
    return el_build_norm(g, x, &g->model->source_norm);
}

static void t5_build(el_graph *g)
{
    const el_hparams *hp = &g->model->hp;
    const int32_t first = hp->n_encoder, n = n_decoder(hp);
    struct ggml_tensor *x;

    if (g->shape.encode) { /* leaves each decoder layer's keys and values of the source text */
        x = encode(g);
        for (int32_t i = 0; i < n; i++)
            write_rows(g, first + n + i, &((const el_t5_layer *)g->model->layers[first + i].own)->cross, x);
        return;
    }
    x = el_build_embeddings(g);
    for (int32_t i = first; i < first + n; i++) {
        const el_t5_layer *w = g->model->layers[i].own;
        struct ggml_tensor *y;
        if (i == first + n - 1 && g->shape.n_out == 0) { /* no one will read more than its keys and values */
            write_rows(g, i, &w->self, el_build_norm(g, x, &w->attn_norm));
            return;
        }
        x = self_attention(g, i, x);
        y = attend(g, i + n, &w->cross, el_build_norm(g, x, &w->cross_norm), g->in.source_ranges, g->in.source_tables,
                   NULL);
        x = feed_forward(g, i, ggml_add(g->ctx, y, x));
        el_build_now(g, x);
    }
    el_build_head(g, ggml_get_rows(g->ctx, x, g->in.outputs));
}

EL_ARCH(t5) = {
    .name = "t5",
    .traits = {.rope = EL_ROPE_OFF, .any_gate = true, .output_norm = "dec.output_norm", .no_layers = true},
    .hparams = t5_hparams,
    .load = t5_load,
    .build = t5_build,
};

static void t5encoder_build(el_graph *g)
{
    struct ggml_tensor *x = encode(g);

    if (g->shape.n_out > 0)
        el_build_head(g, ggml_get_rows(g->ctx, x, g->in.outputs));
}

EL_ARCH(t5encoder) = {
    .name = "t5encoder",
    .traits = {.rope = EL_ROPE_OFF, .any_gate = true, .no_layers = true, .no_output_norm = true, .encoder = true},
    .hparams = t5_hparams,
    .load = t5_load,
    .build = t5encoder_build,
};
