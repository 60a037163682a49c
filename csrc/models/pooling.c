/* pooling.c - from rows to embeddings: which rows, their mean, the modules behind it, a reranker's classifier.
 * Sources: Reimers & Gurevych 2019 (Sentence-BERT), section 3; the published model code of BERT's and ModernBERT's
 * sequence classification; Gemma Team 2025 (EmbeddingGemma): two dense modules. */
#include <stdio.h>

#include "cpu_op.h"
#include "edgellm.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

enum { MAX_CLASSES = 1 << 16 };

edgellm_status el_pooling_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    char key[160];
    int64_t pooling = EDGELLM_POOLING_MODEL, of_classifier = 0;
    const el_gguf_kv *kv;
    edgellm_status status = EDGELLM_OK;

    hp->n_embd_out = hp->n_embd;
    hp->n_classes = 1;
    snprintf(key, sizeof key, "%s.pooling_type", arch->name);
    kv = el_gguf_find(file, key);
    if (kv && kv->type != EL_GGUF_ARR)
        EL_TRY(el_gguf_item_i64(kv, 0, &pooling));
    hp->pooling =
        pooling >= EDGELLM_POOLING_NONE && pooling <= EDGELLM_POOLING_RANK ? (int32_t)pooling : EDGELLM_POOLING_MODEL;
    snprintf(key, sizeof key, "%s.classifier.output_labels", arch->name);
    kv = el_gguf_find(file, key);
    if (kv && kv->type == EL_GGUF_ARR && kv->n > 0 && kv->n < MAX_CLASSES)
        hp->n_classes = (int32_t)kv->n;
    snprintf(key, sizeof key, "%s.classifier.pooling_type", arch->name);
    kv = el_gguf_find(file, key);
    if (kv && kv->type != EL_GGUF_ARR)
        EL_TRY(el_gguf_item_i64(kv, 0, &of_classifier));
    hp->rank_of_mean = of_classifier == EDGELLM_POOLING_MEAN;
done:
    return status;
}

void el_pooling_load(el_loader *l)
{
    el_model *m = l->model;
    const int64_t n_embd = m->hp.n_embd;
    const el_gguf_tensor *first = el_find(l, "dense_2", "weight"), *second = el_find(l, "dense_3", "weight");
    const el_gguf_tensor *cls = el_find(l, "cls", "weight"), *out = el_find(l, "cls.output", "weight");

    if (first && first->ne[1] > 0 && first->ne[1] <= EL_MAX_WIDTH) {
        m->dense[0] = el_load_linear(l, "dense_2", EL_REQUIRED, n_embd, first->ne[1]);
        m->hp.n_embd_out = (int32_t)first->ne[1];
    }
    if (second && second->ne[1] > 0 && second->ne[1] <= EL_MAX_WIDTH) {
        m->dense[1] = el_load_linear(l, "dense_3", EL_REQUIRED, m->hp.n_embd_out, second->ne[1]);
        m->hp.n_embd_out = (int32_t)second->ne[1];
    }
    if (cls) {
        m->cls = el_load_linear(l, "cls", EL_REQUIRED, n_embd, cls->ne[1] == 1 ? 1 : n_embd);
        if (cls->ne[1] == 1)
            m->hp.n_classes = 1;
        else if (el_has(l, "cls.norm.weight"))
            m->cls_norm = el_load_norm(l, "cls.norm", EL_REQUIRED, n_embd);
    }
    if (out && !(cls && cls->ne[1] == 1)) {
        if (out->ne[1] == 1)
            m->hp.n_classes = 1;
        m->cls_out = el_load_linear(l, "cls.output", EL_REQUIRED, n_embd, m->hp.n_classes);
    }
}

/* ---- the mean of each sequence's rows ----------------------------------------------------- */

static int32_t mean_chunks(const struct ggml_tensor *node) { return (int32_t)node->ne[1]; }

/* Row by row, so that a sequence's mean does not depend on what else is in the step. */
static void mean_run(const struct ggml_tensor *node, int32_t seq)
{
    const struct ggml_tensor *x = node->src[0];
    const int32_t *run = (const int32_t *)node->src[1]->data + 4 * seq;
    float *to = (float *)((char *)node->data + (size_t)seq * node->nb[1]);

    for (int64_t i = 0; i < node->ne[0]; i++)
        to[i] = 0;
    for (int32_t r = 0; r < run[1]; r++) {
        const float *row = (const float *)((const char *)x->data + (size_t)(run[0] + r) * x->nb[1]);
        for (int64_t i = 0; i < node->ne[0]; i++)
            to[i] += row[i];
    }
    for (int64_t i = 0; i < node->ne[0]; i++)
        to[i] /= (float)run[1];
}

static struct ggml_tensor *mean(el_graph *g, struct ggml_tensor *x)
{
    static const el_op op = {"mean of a sequence", mean_chunks, mean_run};
    const int64_t ne[4] = {x->ne[0], g->shape.n_seqs, 1, 1};
    struct ggml_tensor *srcs[2] = {x, g->in.runs};

    return el_op_new(g->ctx, &op, GGML_TYPE_F32, ne, srcs, 2, NULL, 0);
}

/* ---- graph -------------------------------------------------------------------------------- */

/* BERT's head is dense and tanh, ModernBERT's dense, GELU and norm; then the classes. */
static struct ggml_tensor *classify(el_graph *g, struct ggml_tensor *x)
{
    const el_model *m = g->model;

    if (m->cls.w) {
        x = el_build_linear(g, &m->cls, x);
        x = m->arch->traits.gelu_classifier ? ggml_gelu(g->ctx, x) : ggml_tanh(g->ctx, x);
        if (m->cls_norm.w)
            x = el_build_norm(g, x, &m->cls_norm);
    }
    if (m->cls_out.w)
        x = el_build_linear(g, &m->cls_out, x);
    return m->arch->traits.softmax_classifier ? ggml_soft_max(g->ctx, x) : x;
}

struct ggml_tensor *el_build_pooling(el_graph *g, struct ggml_tensor *x)
{
    const int32_t pooling = g->options.pooling;
    const el_model *m = g->model;

    if (pooling == EDGELLM_POOLING_MEAN || (pooling == EDGELLM_POOLING_RANK && m->hp.rank_of_mean))
        x = mean(g, x);
    if (pooling == EDGELLM_POOLING_RANK)
        return classify(g, x);
    for (int i = 0; i < 2; i++)
        if (m->dense[i].w)
            x = el_build_linear(g, &m->dense[i], x);
    return x;
}
