/* hparams.c - reads the metadata that all families share. */
#include "hparams.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "arch.h"
#include "layer_blocks.h"

enum { MAX_EMBD = 1 << 17, MAX_EXPERTS = 1 << 12, MAX_VOCAB = 1 << 24, MAX_CTX = 1 << 30 };

static edgellm_status read_sizes(el_hparams *hp, const el_gguf *file, const el_arch *arch, int32_t n_vocab)
{
    static const char *const names[] = {"attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"};
    const char *eps = names[arch->traits.layer_norm], *other_eps = names[!arch->traits.layer_norm];
    int32_t n_guessing = 0;
    edgellm_status status = EDGELLM_OK;

    hp->n_vocab = n_vocab;
    if (n_vocab == 0)
        EL_TRY(el_key_i32(file, arch, "vocab_size", 1, MAX_VOCAB, &hp->n_vocab));
    EL_TRY(el_key_require(hp->n_vocab, arch, "vocab_size"));
    EL_TRY(el_key_i32(file, arch, "context_length", 1, MAX_CTX, &hp->n_ctx_train));
    EL_TRY(el_key_i32(file, arch, "embedding_length", 1, MAX_EMBD, &hp->n_embd));
    EL_TRY(el_key_require(hp->n_embd, arch, "embedding_length"));
    EL_TRY(el_key_i32(file, arch, "block_count", 1, EL_MAX_LAYERS, &hp->n_layer));
    EL_TRY(el_key_require(hp->n_layer, arch, "block_count"));
    /* Layers at the end that guess further tokens ahead (multi-token prediction) are no part of the stack. */
    EL_TRY(el_key_i32(file, arch, "nextn_predict_layers", 0, hp->n_layer - 1, &n_guessing));
    hp->n_layer -= n_guessing;
    EL_TRY(el_key_f32(file, arch, eps, 1e-12f, 1.0f, &hp->norm_eps));
    if (hp->norm_eps == 0) /* Nemotron-H's and Cohere 2 MoE's name of it */
        EL_TRY(el_key_f32(file, arch, other_eps, 1e-12f, 1.0f, &hp->norm_eps));
    if (hp->norm_eps == 0)
        hp->norm_eps = arch->traits.norm_eps;
    if (hp->norm_eps == 0)
        return el_fail(EDGELLM_EFORMAT, "%s.%s is missing or 0; a model needs it", arch->name, eps);
done:
    return status;
}

static edgellm_status read_scales(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    hp->embedding_scale = arch->traits.scale_embeddings ? sqrtf((float)hp->n_embd) : 1;
    hp->residual_scale = hp->logit_scale = hp->attn_value_scale = 1;
    if (arch->traits.scale_keys) {
        EL_TRY(el_key_f32(file, arch, "embedding_scale", 1e-6f, 1e6f, &hp->embedding_scale));
        EL_TRY(el_key_f32(file, arch, "residual_scale", 1e-6f, 1e6f, &hp->residual_scale));
        EL_TRY(el_key_f32(file, arch, "logit_scale", 1e-6f, 1e6f, &hp->logit_scale));
    }
    hp->rope_layout = arch->traits.rope;
    hp->layer_norm = arch->traits.layer_norm;
    hp->activation = (int32_t)arch->traits.activation;
    hp->causal = !arch->traits.encoder;
    EL_TRY(el_key_bool(file, arch, "attention.causal", &hp->causal));
    hp->parallel = arch->traits.parallel;
    if (arch->traits.parallel_key)
        EL_TRY(el_key_bool(file, arch, "use_parallel_residual", &hp->parallel));
    if (arch->traits.alibi)
        EL_TRY(el_key_f32(file, arch, "attention.max_alibi_bias", 1e-3f, 1e3f, &hp->alibi_max_bias));
done:
    return status;
}

/* Widths that differ from layer to layer are taken from the tensors. */
static edgellm_status read_expert_width(el_expert_hparams *e, const el_gguf *file, const el_arch *arch)
{
    const char *name = "expert_feed_forward_length";
    char key[160];
    const el_gguf_kv *kv;

    snprintf(key, sizeof key, "%s.%s", arch->name, name);
    kv = el_gguf_find(file, key);
    return kv && kv->type == EL_GGUF_ARR ? EDGELLM_OK : el_key_i32(file, arch, name, 1, EL_MAX_FF, &e->n_ff);
}

static edgellm_status read_experts(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    el_expert_hparams *e = &hp->expert;
    int32_t gating = arch->traits.gating ? (int32_t)arch->traits.gating : EL_GATING_SOFTMAX;
    const int32_t keys = arch->traits.expert_keys;
    edgellm_status status = EDGELLM_OK;

    e->scale = 1;
    e->normalise = arch->traits.experts_normalise;
    if (!arch->traits.may_have_experts)
        return EDGELLM_OK;
    EL_TRY(el_key_i32(file, arch, "expert_count", 1, MAX_EXPERTS, &e->n));
    EL_TRY(el_key_i32(file, arch, "expert_used_count", 1, MAX_EXPERTS, &e->n_used));
    if (e->n > 0 && (e->n_used < 1 || e->n_used > e->n))
        return el_fail(EDGELLM_EFORMAT, "%s.expert_used_count is %d of %d experts", arch->name, e->n_used, e->n);
    EL_TRY(read_expert_width(e, file, arch));
    if (keys & (EL_EXPERT_KEYS | EL_EXPERT_GATING))
        EL_TRY(el_key_i32(file, arch, "expert_gating_func", EL_GATING_SOFTMAX, EL_GATING_SQRT_SOFTPLUS, &gating));
    e->gating = (el_gating)gating;
    if (keys & (EL_EXPERT_KEYS | EL_EXPERT_LEADING))
        EL_TRY(el_key_i32(file, arch, "leading_dense_block_count", 1, EL_MAX_LAYERS, &e->n_leading_dense));
    if (keys & (EL_EXPERT_KEYS | EL_EXPERT_NORMALISE))
        EL_TRY(el_key_bool(file, arch, "expert_weights_norm", &e->normalise));
    if (keys & (EL_EXPERT_KEYS | EL_EXPERT_SCALE))
        EL_TRY(el_key_f32(file, arch, "expert_weights_scale", 1e-6f, 1e6f, &e->scale));
    if (!(keys & EL_EXPERT_KEYS))
        return EDGELLM_OK;
    EL_TRY(el_key_i32(file, arch, "expert_group_count", 1, MAX_EXPERTS, &e->n_groups));
    EL_TRY(el_key_i32(file, arch, "expert_group_used_count", 1, MAX_EXPERTS, &e->n_groups_used));
    if (e->n_groups > 1 && (e->n % e->n_groups != 0 || e->n_groups_used < 1 || e->n_groups_used > e->n_groups))
        return el_fail(EDGELLM_EFORMAT, "%s has %d experts in %d groups of which %d are used; that cannot be",
                       arch->name, e->n, e->n_groups, e->n_groups_used);
done:
    return status;
}

static edgellm_status read_layers(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    int32_t head_k = 0, head_v = 0, n_rot;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_layers(hp, file, arch, "attention.head_count", 1, EL_MAX_HEADS, offsetof(el_layer_hparams, n_head),
                         false));
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].n_head_kv = hp->layers[i].n_head;
    EL_TRY(el_key_layers(hp, file, arch, "attention.head_count_kv", 1, EL_MAX_HEADS,
                         offsetof(el_layer_hparams, n_head_kv), false));
    EL_TRY(el_key_layers(hp, file, arch, "feed_forward_length", 1, EL_MAX_FF, offsetof(el_layer_hparams, n_ff), false));
    for (int32_t i = 0; i < hp->n_layer && head_k == 0; i++)
        if (hp->layers[i].n_head > 0 && hp->n_embd % hp->layers[i].n_head == 0)
            head_k = head_v = hp->n_embd / hp->layers[i].n_head;
    EL_TRY(el_key_i32(file, arch, "attention.key_length", 1, EL_MAX_HEAD, &head_k));
    EL_TRY(el_key_i32(file, arch, "attention.value_length", 1, EL_MAX_HEAD, &head_v));
    n_rot = head_k;
    EL_TRY(el_key_i32(file, arch, "rope.dimension_count", 2, EL_MAX_HEAD, &n_rot));
    for (int32_t i = 0; i < hp->n_layer; i++) {
        el_layer_hparams *layer = &hp->layers[i];
        layer->head_k = head_k;
        layer->head_v = head_v;
        layer->n_rot = n_rot;
        layer->kv_of = i;
        layer->mixer = arch->mixer ? arch->mixer : &el_mixer_attention;
        layer->experts = hp->expert.n > 0 && i >= hp->expert.n_leading_dense;
        if (arch->traits.rope == EL_ROPE_OFF ||
            (arch->traits.no_rope_period && (i + 1) % arch->traits.no_rope_period == 0))
            layer->n_rot = 0;
    }
    hp->attn_scale = head_k > 0 ? 1.0f / sqrtf((float)head_k) : 0;
done:
    return status;
}

/* Which layers slide: the file's own pattern (one flag a layer, or a period), else the family's period. */
static edgellm_status read_pattern(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    char key[160];
    const el_gguf_kv *pattern;
    int32_t period = arch->traits.sliding_period;
    edgellm_status status = EDGELLM_OK;

    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", arch->name);
    pattern = el_gguf_find(file, key);
    if (pattern && pattern->type == EL_GGUF_ARR) {
        if (pattern->n < (uint64_t)hp->n_layer)
            return el_fail(EDGELLM_EFORMAT, "%s has %llu entries for %d layers", key, (unsigned long long)pattern->n,
                           hp->n_layer);
        for (int32_t i = 0; i < hp->n_layer; i++) {
            int64_t flag = 0;
            EL_TRY(el_gguf_item_i64(pattern, (uint64_t)i, &flag));
            hp->layers[i].sliding = flag != 0;
        }
        return EDGELLM_OK;
    }
    EL_TRY(el_key_i32(file, arch, "attention.sliding_window_pattern", 1, EL_MAX_LAYERS, &period));
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].sliding = period == 1 || (arch->traits.full_first ? i % period != 0 : i % period < period - 1);
done:
    return status;
}

/* Heads of sliding layers may have widths of their own. */
static edgellm_status read_window(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    int32_t head_k = 0, head_v = 0, n_rot = 0;
    edgellm_status status = EDGELLM_OK;

    if (arch->traits.sliding_period == 0)
        return EDGELLM_OK;
    hp->window = arch->traits.window;
    EL_TRY(el_key_i32(file, arch, "attention.sliding_window", 1, MAX_CTX, &hp->window));
    if (hp->window == 0)
        return EDGELLM_OK;
    EL_TRY(read_pattern(hp, file, arch));
    EL_TRY(el_key_i32(file, arch, "attention.key_length_swa", 1, EL_MAX_HEAD, &head_k));
    EL_TRY(el_key_i32(file, arch, "attention.value_length_swa", 1, EL_MAX_HEAD, &head_v));
    EL_TRY(el_key_i32(file, arch, "rope.dimension_count_swa", 2, EL_MAX_HEAD, &n_rot));
    for (int32_t i = 0; i < hp->n_layer; i++) {
        el_layer_hparams *layer = &hp->layers[i];
        if (!layer->sliding)
            continue;
        layer->head_k = head_k ? head_k : layer->head_k;
        layer->head_v = head_v ? head_v : layer->head_v;
        layer->n_rot = n_rot && layer->n_rot ? n_rot : layer->n_rot;
    }
done:
    return status;
}

/* What follows from the rest: each layer's rope, its cache rows. Then the checks that later code relies on. */
static edgellm_status finish(el_hparams *hp, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    if (hp->rope_base_sliding == 0)
        hp->rope_base_sliding = arch->traits.rope_base_sliding != 0 ? arch->traits.rope_base_sliding : hp->rope_base;
    for (int32_t i = 0; i < hp->n_layer; i++) {
        el_layer_hparams *layer = &hp->layers[i];
        layer->sliding = layer->sliding && hp->window > 0;
        if (layer->rope_base == 0)
            layer->rope_base = layer->sliding ? hp->rope_base_sliding : hp->rope_base;
        if (layer->rope_factor == 0)
            layer->rope_factor = layer->sliding && arch->traits.sliding_unscaled ? 1 : hp->rope_factor;
        if (hp->parallel && !layer->experts) /* the two blocks are added, so both must be there */
            EL_TRY(el_key_require(layer->n_ff, arch, "feed_forward_length"));
        if (!layer->experts && layer->n_ff > 0 && hp->n_ff == 0)
            hp->n_ff = layer->n_ff;
        if (layer->mixer && layer->mixer->hparams)
            EL_TRY(layer->mixer->hparams(hp, layer, i, arch));
    }
done:
    return status;
}

edgellm_status el_hparams_read(el_hparams *hp, const el_gguf *file, const el_arch *arch, int32_t n_vocab)
{
    edgellm_status status = EDGELLM_OK;

    memset(hp, 0, sizeof *hp);
    EL_TRY(read_sizes(hp, file, arch, n_vocab));
    hp->layers = el_alloc((size_t)hp->n_layer, sizeof *hp->layers);
    if (!hp->layers)
        return el_no_memory((size_t)hp->n_layer * sizeof *hp->layers);
    EL_TRY(read_scales(hp, file, arch));
    EL_TRY(read_experts(hp, file, arch));
    EL_TRY(read_layers(hp, file, arch));
    EL_TRY(el_hparams_rope(hp, file, arch));
    EL_TRY(read_window(hp, file, arch));
    EL_TRY(el_pooling_hparams(hp, file, arch));
    if (arch->hparams)
        EL_TRY(arch->hparams(hp, file, arch));
    EL_TRY(finish(hp, arch));
done:
    if (status != EDGELLM_OK)
        el_hparams_clear(hp);
    return status;
}

void el_hparams_clear(el_hparams *hp)
{
    el_free(hp->layers);
    hp->layers = NULL;
}
