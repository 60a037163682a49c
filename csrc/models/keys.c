/* keys.c - reads one key of a family's metadata, checked. A key that is absent, or 0 where 0 means nothing, leaves the
 * default. Key names: the `gguf` package's constants. */
#include <stdio.h>

#include "arch.h"
#include "op_conv.h"
#include "op_scan.h"

enum { KEY = 160 };

static void make_key(char key[KEY], const el_arch *arch, const char *name)
{
    snprintf(key, KEY, "%s.%s", arch->name, name);
}

edgellm_status el_key_i32(const el_gguf *file, const el_arch *arch, const char *name, int32_t lo, int32_t hi,
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

edgellm_status el_key_f32(const el_gguf *file, const el_arch *arch, const char *name, float lo, float hi, float *value)
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

edgellm_status el_key_bool(const el_gguf *file, const el_arch *arch, const char *name, bool *value)
{
    char key[KEY];

    make_key(key, arch, name);
    return el_gguf_get_bool(file, key, value);
}

/* The key, absent (NULL), one number, or an array with one for each layer. */
static edgellm_status find_layers(const el_hparams *hp, const el_gguf *file, const el_arch *arch, const char *name,
                                  char key[KEY], const el_gguf_kv **kv)
{
    make_key(key, arch, name);
    *kv = el_gguf_find(file, key);
    if (*kv && (*kv)->type == EL_GGUF_ARR && (*kv)->n < (uint64_t)hp->n_layer)
        return el_fail(EDGELLM_EFORMAT, "%s has %llu entries for %d layers", key, (unsigned long long)(*kv)->n,
                       hp->n_layer);
    return EDGELLM_OK;
}

edgellm_status el_key_layers(el_hparams *hp, const el_gguf *file, const el_arch *arch, const char *name, int32_t lo,
                             int32_t hi, size_t at, bool zero)
{
    char key[KEY];
    const el_gguf_kv *kv;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(find_layers(hp, file, arch, name, key, &kv));
    for (int32_t i = 0; kv && i < hp->n_layer; i++) {
        int64_t found = 0;
        EL_TRY(el_gguf_item_i64(kv, kv->type == EL_GGUF_ARR ? (uint64_t)i : 0, &found));
        if (found == 0 && !zero)
            continue;
        if (found != 0 && (found < lo || found > hi))
            return el_fail(EDGELLM_EFORMAT, "%s is %lld for layer %d; it must be within %d .. %d", key,
                           (long long)found, i, lo, hi);
        *(int32_t *)((char *)&hp->layers[i] + at) = (int32_t)found;
    }
done:
    return status;
}

edgellm_status el_key_layers_f32(el_hparams *hp, const el_gguf *file, const el_arch *arch, const char *name, float lo,
                                 float hi, size_t at)
{
    char key[KEY];
    const el_gguf_kv *kv;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(find_layers(hp, file, arch, name, key, &kv));
    for (int32_t i = 0; kv && i < hp->n_layer; i++) {
        double found = 0;
        EL_TRY(el_gguf_item_f64(kv, kv->type == EL_GGUF_ARR ? (uint64_t)i : 0, &found));
        if (found == 0)
            continue;
        if (!(found >= (double)lo && found <= (double)hi))
            return el_fail(EDGELLM_EFORMAT, "%s is %g for layer %d; it must be within %g .. %g", key, found, i,
                           (double)lo, (double)hi);
        *(float *)(void *)((char *)&hp->layers[i] + at) = (float)found;
    }
done:
    return status;
}

void el_experts_where_routed(el_hparams *hp, const el_gguf *file)
{
    for (int32_t i = 0; i < hp->n_layer; i++) {
        char router[64];
        snprintf(router, sizeof router, "blk.%d.ffn_gate_inp.weight", i);
        hp->layers[i].experts = hp->expert.n > 0 && el_gguf_find_tensor(file, router) != NULL;
    }
}

edgellm_status el_key_mixers(el_hparams *hp, const el_gguf *file, const el_arch *arch,
                             const struct el_mixer *without_heads)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_layers(hp, file, arch, "attention.head_count_kv", 1, EL_MAX_HEADS,
                         offsetof(el_layer_hparams, n_head_kv), true));
    for (int32_t i = 0; i < hp->n_layer; i++)
        if (hp->layers[i].n_head_kv == 0)
            hp->layers[i].mixer = without_heads;
done:
    return status;
}

edgellm_status el_key_sections(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    char key[KEY];
    const el_gguf_kv *sections;
    int64_t first = 0, second = 0;
    edgellm_status status = EDGELLM_OK;

    make_key(key, arch, "rope.dimension_sections");
    sections = el_gguf_find(file, key);
    if (!sections || sections->type != EL_GGUF_ARR || sections->n < 2)
        return EDGELLM_OK;
    EL_TRY(el_gguf_item_i64(sections, 0, &first));
    EL_TRY(el_gguf_item_i64(sections, 1, &second));
    if (first > 0 && second > 0)
        hp->rope_layout = EL_ROPE_HALVES;
done:
    return status;
}

edgellm_status el_key_recurrent(el_hparams *hp, const el_gguf *file, const el_arch *arch, int32_t interval,
                                const struct el_mixer *recurrent, const struct el_mixer *others)
{
    char key[KEY];
    const el_gguf_kv *kinds;
    edgellm_status status = EDGELLM_OK;

    make_key(key, arch, "attention.recurrent_layers");
    kinds = el_gguf_find(file, key);
    if (kinds && kinds->type == EL_GGUF_ARR && kinds->n < (uint64_t)hp->n_layer)
        return el_fail(EDGELLM_EFORMAT, "%s has %llu entries for %d layers", key, (unsigned long long)kinds->n,
                       hp->n_layer);
    EL_TRY(el_key_i32(file, arch, "full_attention_interval", 1, EL_MAX_LAYERS, &interval));
    for (int32_t i = 0; i < hp->n_layer; i++) {
        int64_t is_recurrent = (i + 1) % interval != 0;
        if (kinds)
            EL_TRY(el_gguf_item_i64(kinds, kinds->type == EL_GGUF_ARR ? (uint64_t)i : 0, &is_recurrent));
        hp->layers[i].mixer = is_recurrent ? recurrent : others;
    }
done:
    return status;
}

edgellm_status el_key_ssm(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    el_ssm_hparams *s = &hp->ssm;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_key_i32(file, arch, "ssm.conv_kernel", 2, EL_CONV_MAX_TAPS, &s->d_conv));
    EL_TRY(el_key_i32(file, arch, "ssm.inner_size", 1, EL_MAX_WIDTH, &s->d_inner));
    EL_TRY(el_key_i32(file, arch, "ssm.state_size", 1, EL_SCAN_MAX_STATE, &s->d_state));
    EL_TRY(el_key_i32(file, arch, "ssm.time_step_rank", 1, EL_MAX_WIDTH, &s->dt_rank));
    EL_TRY(el_key_i32(file, arch, "ssm.group_count", 1, EL_MAX_HEADS, &s->n_group));
    EL_TRY(el_key_bool(file, arch, "ssm.dt_b_c_rms", &s->norm_dt_b_c));
done:
    return status;
}

edgellm_status el_key_require(int32_t value, const el_arch *arch, const char *name)
{
    if (value > 0)
        return EDGELLM_OK;
    return el_fail(EDGELLM_EFORMAT, "%s.%s is missing or 0; a model needs it", arch->name, name);
}
