/* bert.c - encoders: every row sees the whole text; they give embeddings, not logits.
 * Sources: Devlin et al. 2018 (BERT); Nussbaum et al. 2024 (Nomic Embed); Günther et al. 2023 (Jina 2), Sturua et al.
 * 2024 (Jina 3); Warner et al. 2024 (ModernBERT); Le Breton et al. 2025 (NeoBERT); Boizard et al. 2025 (EuroBERT); the
 * published model code. BERT's GELU is computed by its tanh form, as other runtimes do. */
#include <string.h>

#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

/* What BERT and its first successors share. */
#define BERT_TRAITS                                                                                                    \
    .layer_norm = true, .norm_place = EL_NORM_SUM, .embd_norm = "token_embd_norm", .token_types = true, .encoder = true

EL_ARCH(bert) = {
    .name = "bert",
    .traits = {.rope = EL_ROPE_OFF, .activation = EL_ACT_GELU, .ungated = true, BERT_TRAITS, .position_table = true},
};

/* Its feed-forward block has no biases, whatever a file holds. */
static void nomic_load(el_loader *l)
{
    for (int32_t i = 0; i < l->model->hp.n_layer; i++) {
        el_ffn *ffn = &l->model->layers[i].ffn;
        ffn->up.b = ffn->down.b = ffn->gate.b = NULL;
    }
}

EL_ARCH(nomic_bert) = {
    .name = "nomic-bert",
    .traits = {.rope = EL_ROPE_HALVES, BERT_TRAITS},
    .load = nomic_load,
};

/* Every n-th layer has experts, from the second on. */
static edgellm_status nomic_moe_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    int32_t every = 0;
    edgellm_status status = el_key_i32(file, arch, "moe_every_n_layers", 1, EL_MAX_LAYERS, &every);

    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].experts = hp->expert.n > 0 && every > 0 && i % every == 1;
    return status;
}

EL_ARCH(nomic_bert_moe) = {
    .name = "nomic-bert-moe",
    .traits =
        {.rope = EL_ROPE_HALVES, .activation = EL_ACT_GELU, .ungated = true, BERT_TRAITS, .may_have_experts = true},
    .hparams = nomic_moe_hparams,
};

EL_ARCH(jina_bert_v3) = {
    .name = "jina-bert-v3",
    .traits = {.rope = EL_ROPE_HALVES, .activation = EL_ACT_GELU, .ungated = true, BERT_TRAITS},
};

/* ---- Jina 2: ALiBi, and in the code model a second norm of the sum with the layer's input --- */

static edgellm_status jina2_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    hp->alibi_max_bias = 8;
    return EDGELLM_OK;
}

static void jina2_load(el_loader *l)
{
    for (l->layer = 0; l->layer < l->model->hp.n_layer; l->layer++) {
        el_layer *w = &l->model->layers[l->layer];
        el_attention *attention = w->mixer;
        const int64_t n_embd = l->model->hp.n_embd;

        if (el_has(l, "attn_q_norm.weight"))
            attention->q_norm = el_load_norm(l, "attn_q_norm", EL_REQUIRED, n_embd);
        if (el_has(l, "attn_k_norm.weight"))
            attention->k_norm = el_load_norm(l, "attn_k_norm", EL_REQUIRED, n_embd);
        w->own = el_load_memory(l, sizeof(el_norm));
        if (w->own && el_has(l, "attn_norm_2.weight"))
            *(el_norm *)w->own = el_load_norm(l, "attn_norm_2", EL_REQUIRED, n_embd);
        if (w->ffn.gate.w && el_has(l, "ffn_gate.weight"))
            w->ffn.gate.b = NULL;
    }
}

static struct ggml_tensor *jina2_layer(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];
    const el_norm *second = w->own;
    struct ggml_tensor *y = el_mixer_attention.build(g, layer, x);

    if (!y)
        return NULL;
    x = el_keep_outputs(g, layer, x);
    y = el_build_norm(g, ggml_add(g->ctx, el_keep_outputs(g, layer, y), x), &w->attn_post_norm);
    if (second->w)
        y = el_build_norm(g, ggml_add(g->ctx, y, x), second);
    return el_build_norm(g, ggml_add(g->ctx, el_build_ffn(g, &w->ffn, y), y), &w->ffn_post_norm);
}

EL_ARCH(jina_bert_v2) = {
    .name = "jina-bert-v2",
    .traits = {.rope = EL_ROPE_OFF, .activation = EL_ACT_GELU, .any_gate = true, BERT_TRAITS},
    .hparams = jina2_hparams,
    .load = jina2_load,
    .layer = jina2_layer,
};

/* ---- newer encoders: norms before the blocks, gates --------------------------------------- */

/* Sliding layers see half a window to either side and keep the rope they were first trained with. */
static void slide_around(el_hparams *hp)
{
    hp->window_kind = EL_WINDOW_AROUND;
    if (hp->rope_base_sliding == 0)
        hp->rope_base_sliding = 10000;
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].rope_factor = hp->layers[i].sliding ? 1 : hp->rope_factor;
}

static edgellm_status modern_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    const el_gguf_kv *pattern = el_gguf_find(file, "modern-bert.attention.sliding_window_pattern");
    el_str act = {"gelu", 4};
    int32_t period = 3;
    edgellm_status status = EDGELLM_OK;

    if (!pattern || pattern->type != EL_GGUF_ARR) { /* here the first layer of each period is the full one */
        EL_TRY(el_key_i32(file, arch, "attention.sliding_window_pattern", 1, EL_MAX_LAYERS, &period));
        for (int32_t i = 0; i < hp->n_layer; i++)
            hp->layers[i].sliding = hp->window > 0 && i % period != 0;
    }
    slide_around(hp);
    EL_TRY(el_gguf_get_str(file, "modern-bert.hidden_activation", &act));
    if (act.n >= 4 && memcmp(act.data, "silu", 4) == 0)
        hp->activation = EL_ACT_SILU;
    hp->rank_of_mean = true;
    if (el_gguf_find(file, "modern-bert.classifier.pooling_type")) {
        int32_t kind = 0;
        EL_TRY(el_key_i32(file, arch, "classifier.pooling_type", 0, 16, &kind));
        hp->rank_of_mean = kind == EDGELLM_POOLING_MEAN;
    }
done:
    return status;
}

EL_ARCH(modern_bert) = {
    .name = "modern-bert",
    .traits = {.rope = EL_ROPE_HALVES,
               .activation = EL_ACT_GELU,
               .fused_gate = true,
               .layer_norm = true,
               .first_unnormed = true,
               .embd_norm = "token_embd_norm",
               .gelu_classifier = true,
               .encoder = true,
               .sliding_period = 3},
    .hparams = modern_hparams,
};

EL_ARCH(neo_bert) = {
    .name = "neo-bert",
    .traits = {.fused_gate = true, .output_norm = "enc.output_norm", .encoder = true},
};

EL_ARCH(eurobert) = {.name = "eurobert", .traits = {.rope = EL_ROPE_HALVES, .encoder = true}};

EL_ARCH(llama_embed) = {
    .name = "llama-embed",
    .traits = {.encoder = true, .may_have_experts = true, .experts_normalise = true},
};

static edgellm_status gemma_embedding_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    slide_around(hp);
    return EDGELLM_OK;
}

EL_ARCH(gemma_embedding) = {
    .name = "gemma-embedding",
    .traits = {.rope = EL_ROPE_HALVES,
               .activation = EL_ACT_GELU,
               .norm_place = EL_NORM_BOTH,
               .qk_norm = EL_QK_NORM,
               .scale_embeddings = true,
               .encoder = true,
               .sliding_period = 6},
    .hparams = gemma_embedding_hparams,
};
