/* gpt.c - GPT-2 and its descendants: LayerNorm with biases, ungated feed-forward, fused projections.
 * Sources: Radford et al. 2019; Black et al. 2022 (GPT-NeoX); Scao et al. 2022 (BLOOM); MosaicML 2023 (MPT); Almazrouei
 * et al. 2023 (Falcon); Li et al. 2023 (StarCoder), Lozhkov et al. 2024 (StarCoder 2); the published model code. */
#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

EL_ARCH(gpt2) = {
    .name = "gpt2",
    .traits =
        {.rope = EL_ROPE_OFF, .activation = EL_ACT_GELU, .ungated = true, .layer_norm = true, .position_table = true},
};

EL_ARCH(starcoder) = {
    .name = "starcoder",
    .traits =
        {.rope = EL_ROPE_OFF, .activation = EL_ACT_GELU, .ungated = true, .layer_norm = true, .position_table = true},
};

EL_ARCH(starcoder2) = {
    .name = "starcoder2",
    .traits = {.rope = EL_ROPE_HALVES, .activation = EL_ACT_GELU, .ungated = true, .layer_norm = true},
};

EL_ARCH(codeshell) = {
    .name = "codeshell",
    .traits = {.rope = EL_ROPE_HALVES, .activation = EL_ACT_GELU, .ungated = true, .layer_norm = true},
};

EL_ARCH(gptneox) = {
    .name = "gptneox",
    .traits =
        {.rope = EL_ROPE_HALVES, .activation = EL_ACT_GELU, .ungated = true, .layer_norm = true, .parallel_key = true},
};

static edgellm_status bloom_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    if (hp->alibi_max_bias == 0)
        hp->alibi_max_bias = 8;
    return EDGELLM_OK;
}

EL_ARCH(bloom) = {
    .name = "bloom",
    .traits = {.rope = EL_ROPE_OFF,
               .activation = EL_ACT_GELU,
               .ungated = true,
               .layer_norm = true,
               .embd_norm = "token_embd_norm",
               .alibi = true},
    .hparams = bloom_hparams,
};

static edgellm_status clamp_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    return el_key_f32(file, arch, "attention.clamp_kqv", 1e-6f, 1e6f, &hp->attn_clamp);
}

EL_ARCH(mpt) = {
    .name = "mpt",
    .traits = {.rope = EL_ROPE_OFF,
               .activation = EL_ACT_GELU,
               .ungated = true,
               .layer_norm = true,
               .qk_norm = EL_QK_NORM_OPTIONAL,
               .position_table = true,
               .alibi = true},
    .hparams = clamp_hparams,
};

EL_ARCH(olmo) = {.name = "olmo", .traits = {.layer_norm = true, .no_norms = true}, .hparams = clamp_hparams};

/* Falcon's feed-forward reads attn_norm's output; attention has a norm of its own in the 40B model. */
static void falcon_load(el_loader *l)
{
    el_model *m = l->model;

    for (l->layer = 0; l->layer < m->hp.n_layer; l->layer++) {
        el_norm *second = el_load_memory(l, sizeof *second);
        if (!second)
            return;
        *second = el_load_norm(l, "attn_norm_2", EL_OPTIONAL, m->hp.n_embd);
        m->layers[l->layer].own = second;
    }
}

static struct ggml_tensor *falcon_layer(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const el_layer *w = &g->model->layers[layer];
    const el_norm *second = w->own;
    struct ggml_tensor *normed = el_build_norm(g, x, &w->attn_norm);
    struct ggml_tensor *y = el_mixer_attention.build(g, layer, second->w ? el_build_norm(g, x, second) : normed);

    if (!y)
        return NULL;
    y = ggml_add(g->ctx, el_keep_outputs(g, layer, y), el_keep_outputs(g, layer, x));
    return ggml_add(g->ctx, el_build_ffn(g, &w->ffn, el_keep_outputs(g, layer, normed)), y);
}

EL_ARCH(falcon) = {
    .name = "falcon",
    .traits =
        {.rope = EL_ROPE_HALVES, .activation = EL_ACT_GELU, .ungated = true, .layer_norm = true, .parallel = true},
    .load = falcon_load,
    .layer = falcon_layer,
};

EL_ARCH(nemotron) = {
    .name = "nemotron", /* the weights of its norms are stored with the 1 already added */
    .traits = {.rope = EL_ROPE_HALVES, .activation = EL_ACT_RELU_SQUARED, .ungated = true, .layer_norm = true},
};
