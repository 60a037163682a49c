/* hparams.c - reads the metadata that all decoder families share. Key names: the `gguf` package's constants.
 * A key that is absent, or 0 where 0 means nothing, leaves the default. */
#include "hparams.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "arch.h"

enum {
    MAX_EMBD = 1 << 17,
    MAX_FF = 1 << 20,
    MAX_HEADS = 1 << 12,
    MAX_HEAD = 1 << 12,
    MAX_EXPERTS = 1 << 12,
    MAX_VOCAB = 1 << 24,
    MAX_CTX = 1 << 30,
    KEY = 160
};

static void make_key(char key[KEY], const el_arch *arch, const char *name)
{
    snprintf(key, KEY, "%s.%s", arch->name, name);
}

edgellm_status el_hparams_i32(const el_gguf *file, const el_arch *arch, const char *name, int32_t lo, int32_t hi,
                              int32_t *value)
{
    char key[KEY];
    int64_t found = 0;
    const el_gguf_kv *kv;
    edgellm_status status = EDGELLM_OK;

    make_key(key, arch, name);
    kv = el_gguf_find(file, key);
    if (!kv)
        return EDGELLM_OK;
    if (kv->type == EL_GGUF_ARR)
        return el_fail(EDGELLM_EFORMAT, "%s is an array where one number is expected", key);
    EL_TRY(el_gguf_item_i64(kv, 0, &found));
    if (found == 0)
        return EDGELLM_OK;
    if (found < lo || found > hi)
        return el_fail(EDGELLM_EFORMAT, "%s is %lld; it must be within %d .. %d", key, (long long)found, lo, hi);
    *value = (int32_t)found;
done:
    return status;
}

edgellm_status el_hparams_f32(const el_gguf *file, const el_arch *arch, const char *name, float lo, float hi,
                              float *value)
{
    char key[KEY];
    float found = 0;
    edgellm_status status = EDGELLM_OK;

    make_key(key, arch, name);
    EL_TRY(el_gguf_get_f32(file, key, &found));
    if (found == 0)
        return EDGELLM_OK;
    if (!(found >= lo && found <= hi))
        return el_fail(EDGELLM_EFORMAT, "%s is %g; it must be within %g .. %g", key, (double)found, (double)lo,
                       (double)hi);
    *value = found;
done:
    return status;
}

/* A number for all layers or an array with one for each. `at` is the field's offset in el_layer_hparams. */
static edgellm_status per_layer(el_hparams *hp, const el_gguf *file, const el_arch *arch, const char *name, int32_t lo,
                                int32_t hi, size_t at)
{
    char key[KEY];
    const el_gguf_kv *kv;
    edgellm_status status = EDGELLM_OK;

    make_key(key, arch, name);
    kv = el_gguf_find(file, key);
    if (!kv)
        return EDGELLM_OK;
    if (kv->type == EL_GGUF_ARR && kv->n < (uint64_t)hp->n_layer)
        return el_fail(EDGELLM_EFORMAT, "%s has %llu entries for %d layers", key, (unsigned long long)kv->n,
                       hp->n_layer);
    for (int32_t i = 0; i < hp->n_layer; i++) {
        int64_t found = 0;
        EL_TRY(el_gguf_item_i64(kv, kv->type == EL_GGUF_ARR ? (uint64_t)i : 0, &found));
        if (found == 0)
            continue;
        if (found < lo || found > hi)
            return el_fail(EDGELLM_EFORMAT, "%s is %lld for layer %d; it must be within %d .. %d", key,
                           (long long)found, i, lo, hi);
        *(int32_t *)((char *)&hp->layers[i] + at) = (int32_t)found;
    }
done:
    return status;
}

static edgellm_status require(int32_t value, const el_arch *arch, const char *name)
{
    if (value > 0)
        return EDGELLM_OK;
    return el_fail(EDGELLM_EFORMAT, "%s.%s is missing or 0; a model needs it", arch->name, name);
}

static edgellm_status read_sizes(el_hparams *hp, const el_gguf *file, const el_arch *arch, int32_t n_vocab)
{
    edgellm_status status = EDGELLM_OK;

    hp->n_vocab = n_vocab;
    if (n_vocab == 0)
        EL_TRY(el_hparams_i32(file, arch, "vocab_size", 1, MAX_VOCAB, &hp->n_vocab));
    EL_TRY(require(hp->n_vocab, arch, "vocab_size"));
    EL_TRY(el_hparams_i32(file, arch, "context_length", 1, MAX_CTX, &hp->n_ctx_train));
    EL_TRY(el_hparams_i32(file, arch, "embedding_length", 1, MAX_EMBD, &hp->n_embd));
    EL_TRY(require(hp->n_embd, arch, "embedding_length"));
    EL_TRY(el_hparams_i32(file, arch, "block_count", 1, EL_MAX_LAYERS, &hp->n_layer));
    EL_TRY(require(hp->n_layer, arch, "block_count"));
    EL_TRY(el_hparams_f32(file, arch, "attention.layer_norm_rms_epsilon", 1e-12f, 1.0f, &hp->norm_eps));
    if (hp->norm_eps == 0)
        return el_fail(EDGELLM_EFORMAT, "%s.attention.layer_norm_rms_epsilon is missing or 0; a model needs it",
                       arch->name);
    if (arch->traits.may_have_experts) {
        EL_TRY(el_hparams_i32(file, arch, "expert_count", 1, MAX_EXPERTS, &hp->n_expert));
        EL_TRY(el_hparams_i32(file, arch, "expert_used_count", 1, MAX_EXPERTS, &hp->n_expert_used));
        if (hp->n_expert > 0 && (hp->n_expert_used < 1 || hp->n_expert_used > hp->n_expert))
            return el_fail(EDGELLM_EFORMAT, "%s.expert_used_count is %d of %d experts", arch->name, hp->n_expert_used,
                           hp->n_expert);
    }
done:
    return status;
}

static edgellm_status read_heads(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(per_layer(hp, file, arch, "attention.head_count", 1, MAX_HEADS, offsetof(el_layer_hparams, n_head)));
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].n_head_kv = hp->layers[i].n_head;
    EL_TRY(per_layer(hp, file, arch, "attention.head_count_kv", 1, MAX_HEADS, offsetof(el_layer_hparams, n_head_kv)));
    EL_TRY(per_layer(hp, file, arch, "feed_forward_length", 1, MAX_FF, offsetof(el_layer_hparams, n_ff)));
    for (int32_t i = 0; i < hp->n_layer; i++) {
        const el_layer_hparams *layer = &hp->layers[i];
        EL_TRY(require(layer->n_head, arch, "attention.head_count"));
        EL_TRY(require(layer->n_ff, arch, "feed_forward_length"));
        if (layer->n_head % layer->n_head_kv != 0)
            return el_fail(EDGELLM_EFORMAT, "layer %d has %d heads, not a multiple of its %d key-value heads", i,
                           layer->n_head, layer->n_head_kv);
    }
    if (hp->n_embd % hp->layers[0].n_head == 0)
        hp->head_k = hp->head_v = hp->n_embd / hp->layers[0].n_head;
    EL_TRY(el_hparams_i32(file, arch, "attention.key_length", 1, MAX_HEAD, &hp->head_k));
    EL_TRY(el_hparams_i32(file, arch, "attention.value_length", 1, MAX_HEAD, &hp->head_v));
    EL_TRY(require(hp->head_k, arch, "attention.key_length"));
    EL_TRY(require(hp->head_v, arch, "attention.value_length"));
    hp->n_rot = hp->head_k;
    EL_TRY(el_hparams_i32(file, arch, "rope.dimension_count", 2, MAX_HEAD, &hp->n_rot));
    if (hp->n_rot % 2 != 0 || hp->n_rot > hp->head_k)
        return el_fail(EDGELLM_EFORMAT, "%s.rope.dimension_count is %d; it must be even and at most the head's %d",
                       arch->name, hp->n_rot, hp->head_k);
    hp->attn_scale = 1.0f / sqrtf((float)hp->head_k);
done:
    return status;
}

static edgellm_status read_rope(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    static const struct {
        const char *name;
        el_rope_scaling kind;
    } kinds[] = {{"none", EL_ROPE_NONE}, {"linear", EL_ROPE_LINEAR}, {"yarn", EL_ROPE_YARN}};
    char key[KEY];
    el_str kind = {"linear", 6};
    size_t k = 0;
    float yarn_log_mul = 0;
    edgellm_status status = EDGELLM_OK;

    hp->rope_base = hp->rope_base_sliding = 10000.0f;
    EL_TRY(el_hparams_f32(file, arch, "rope.freq_base", 1e-3f, 1e15f, &hp->rope_base));
    EL_TRY(el_hparams_f32(file, arch, "rope.freq_base_swa", 1e-3f, 1e15f, &hp->rope_base_sliding));
    hp->rope_factor = 1;
    EL_TRY(el_hparams_f32(file, arch, "rope.scale_linear", 1e-6f, 1e6f, &hp->rope_factor)); /* the old name */
    EL_TRY(el_hparams_f32(file, arch, "rope.scaling.factor", 1e-6f, 1e6f, &hp->rope_factor));
    make_key(key, arch, "rope.scaling.type");
    EL_TRY(el_gguf_get_str(file, key, &kind));
    while (k < EL_COUNT(kinds) && !el_str_eq(kind, kinds[k].name))
        k++;
    if (k == EL_COUNT(kinds))
        return el_fail(EDGELLM_EUNSUPPORTED, "%s is \"%.*s\"; this version knows none, linear and yarn", key,
                       (int)EL_MIN(kind.n, (size_t)40), kind.data);
    hp->rope_scaling = kinds[k].kind;
    if (hp->rope_scaling == EL_ROPE_NONE)
        hp->rope_factor = 1;

    hp->rope_ctx_orig = hp->n_ctx_train ? hp->n_ctx_train : 4096;
    EL_TRY(el_hparams_i32(file, arch, "rope.scaling.original_context_length", 1, MAX_CTX, &hp->rope_ctx_orig));
    hp->rope_attn_factor = 1;
    hp->yarn_beta_fast = 32;
    hp->yarn_beta_slow = 1;
    EL_TRY(el_hparams_f32(file, arch, "rope.scaling.attn_factor", 1e-6f, 1e6f, &hp->rope_attn_factor));
    if (hp->rope_scaling == EL_ROPE_YARN && arch->traits.yarn_keys) {
        float stretch = logf(EL_MAX(hp->rope_factor, 1.0f));
        EL_TRY(el_hparams_f32(file, arch, "rope.scaling.yarn_beta_fast", 1e-6f, 1e6f, &hp->yarn_beta_fast));
        EL_TRY(el_hparams_f32(file, arch, "rope.scaling.yarn_beta_slow", 1e-6f, 1e6f, &hp->yarn_beta_slow));
        EL_TRY(el_hparams_f32(file, arch, "rope.scaling.yarn_log_multiplier", 1e-6f, 1e6f, &yarn_log_mul));
        /* YaRN (Peng et al. 2023, section 3.4) scales by m(factor) = 0.1 ln(factor) + 1, which ggml_rope_ext multiplies
         * in by itself; a file's log multiplier L asks for m(factor) / (0.1 L ln(factor) + 1) instead. */
        if (yarn_log_mul != 0)
            hp->rope_attn_factor /= 0.1f * yarn_log_mul * stretch + 1.0f;
    }
done:
    return status;
}

/* Which layers slide: the file's own pattern (one flag a layer, or a period), else the family's period. */
static edgellm_status read_window(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    char key[KEY];
    const el_gguf_kv *pattern;
    int32_t period = arch->traits.sliding_period;
    edgellm_status status = EDGELLM_OK;

    if (period == 0)
        return EDGELLM_OK;
    EL_TRY(el_hparams_i32(file, arch, "attention.sliding_window", 1, MAX_CTX, &hp->window));
    if (hp->window == 0)
        return EDGELLM_OK;
    make_key(key, arch, "attention.sliding_window_pattern");
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
    EL_TRY(el_hparams_i32(file, arch, "attention.sliding_window_pattern", 1, EL_MAX_LAYERS, &period));
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].sliding = i % period < period - 1;
done:
    return status;
}

edgellm_status el_hparams_read(el_hparams *hp, const el_gguf *file, const el_arch *arch, int32_t n_vocab)
{
    edgellm_status status = EDGELLM_OK;

    memset(hp, 0, sizeof *hp);
    hp->expert_scale = 1;
    EL_TRY(read_sizes(hp, file, arch, n_vocab));
    hp->layers = el_alloc((size_t)hp->n_layer, sizeof *hp->layers);
    if (!hp->layers)
        return el_no_memory((size_t)hp->n_layer * sizeof *hp->layers);
    EL_TRY(read_heads(hp, file, arch));
    EL_TRY(read_rope(hp, file, arch));
    EL_TRY(read_window(hp, file, arch));
    if (arch->hparams)
        EL_TRY(arch->hparams(hp, file, arch));
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
