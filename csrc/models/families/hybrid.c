/* hybrid.c - attention in some layers, a state space in the others, or both side by side.
 * Sources: Lieber et al. 2024 (Jamba); Zuo et al. 2025 (Falcon-H1), section 2; NVIDIA 2025 (Nemotron-H), section 2;
 * Preferred Networks 2025 (PLaMo 2); the published model code of each. Granite's is in granite.c. */
#include <stdio.h>

#include "arch.h"
#include "ggml.h"
#include "graph.h"
#include "layer_blocks.h"

/* ---- Falcon-H1: the same input goes through both, their results are added ------------------ */

typedef struct side_by_side {
    el_attention attention; /* first, so that attention finds its weights where it looks for them */
    struct el_mamba *mamba;
} side_by_side;

static edgellm_status both_hparams(el_hparams *hp, el_layer_hparams *layer, int32_t i, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_attention_hparams(hp, layer, i, arch));
    EL_TRY(el_mamba2_hparams(hp, layer, i, arch));
done:
    return status;
}

static void *both_load(el_loader *l, const el_layer_hparams *lh)
{
    const el_attention *attention = el_attention_load(l, lh);
    side_by_side *w = el_load_memory(l, sizeof *w);

    if (!attention || !w)
        return NULL;
    w->attention = *attention;
    w->attention.out.b = NULL; /* the family has none, whatever a file holds */
    w->mamba = el_mamba2_load(l);
    return w;
}

static struct ggml_tensor *both_build(el_graph *g, int32_t layer, struct ggml_tensor *x)
{
    const side_by_side *w = g->model->layers[layer].mixer;
    struct ggml_tensor *seen = el_mixer_attention.build(g, layer, x), *kept = el_build_mamba(g, layer, w->mamba, x);

    return seen ? ggml_add(g->ctx, seen, kept) : NULL;
}

static const el_mixer both = {"attention+mamba2", both_hparams, both_load, both_build};

EL_ARCH(falcon_h1) = {
    .name = "falcon-h1", /* its multipliers are in the weights of the file */
    .traits = {.rope = EL_ROPE_HALVES, .no_rope_factors = true},
    .mixer = &both,
    .hparams = el_key_ssm,
};

/* ---- Jamba -------------------------------------------------------------------------------- */

static edgellm_status jamba_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_ssm(hp, file, arch));
    EL_TRY(el_key_mixers(hp, file, arch, &el_mixer_mamba));
    hp->expert.n_ff = 0; /* as wide as the dense block */
    el_experts_where_routed(hp, file);
done:
    return status;
}

EL_ARCH(jamba) = {
    .name = "jamba",
    .traits = {.rope = EL_ROPE_OFF, .may_have_experts = true},
    .hparams = jamba_hparams,
};

/* ---- Nemotron-H: a layer is one block: Mamba 2, attention, or feed-forward ------------------ */

/* Experts between two projections, as in Nemotron 3 Super. */
static bool has_latent(const el_gguf *file, int32_t layer)
{
    char name[64];

    snprintf(name, sizeof name, "blk.%d.ffn_latent_down.weight", layer);
    return el_gguf_find_tensor(file, name) != NULL;
}

static edgellm_status nemotron_h_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    el_expert_hparams *e = &hp->expert;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_ssm(hp, file, arch));
    EL_TRY(el_key_mixers(hp, file, arch, &el_mixer_mamba2));
    e->gating = EL_GATING_SIGMOID;
    e->n_groups = 0;
    EL_TRY(el_key_i32(file, arch, "moe_latent_size", 1, EL_MAX_WIDTH, &e->n_latent));
    for (int32_t i = 0; i < hp->n_layer; i++) {
        el_layer_hparams *layer = &hp->layers[i];
        if (layer->n_ff > 0)
            layer->mixer = NULL;
        layer->experts = layer->n_ff > 0 && e->n > 0;
        if (layer->experts && e->n_ff == 0)
            e->n_ff = layer->n_ff / e->n_used;
        if (layer->experts && e->n_latent == 0 && has_latent(file, i))
            e->n_latent = hp->n_embd;
    }
done:
    return status;
}

EL_ARCH(nemotron_h) = {
    .name = "nemotron_h",
    .traits = {.rope = EL_ROPE_OFF, .activation = EL_ACT_RELU_SQUARED, .ungated = true, .ffn_norm = "attn_norm"},
    .hparams = nemotron_h_hparams,
};

EL_ARCH(nemotron_h_moe) = {
    .name = "nemotron_h_moe",
    .traits = {.rope = EL_ROPE_OFF,
               .activation = EL_ACT_RELU_SQUARED,
               .ungated = true,
               .ffn_norm = "attn_norm",
               .may_have_experts = true,
               .expert_keys = EL_EXPERT_KEYS,
               .shared_experts = true},
    .hparams = nemotron_h_hparams,
};

/* ---- PLaMo 2 ------------------------------------------------------------------------------ */

static edgellm_status plamo2_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_ssm(hp, file, arch));
    EL_TRY(el_key_mixers(hp, file, arch, &el_mixer_mamba_plamo2));
done:
    return status;
}

EL_ARCH(plamo2) = {
    .name = "plamo2", /* the offsets of its norms are in the weights of the file */
    .traits = {.rope = EL_ROPE_HALVES, .fused_gate = true, .norm_place = EL_NORM_BOTH, .qk_norm = EL_QK_NORM},
    .hparams = plamo2_hparams,
};
