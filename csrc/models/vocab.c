/* vocab.c - gathers the arrays of tokenizer.ggml.* for csrc/tokenizer, which knows no files. */
#include "vocab.h"

#include <stdio.h>
#include <string.h>

#define PREFIX "tokenizer.ggml."

/* An array with one item a token; NULL data when the key is absent. type2 is also accepted. */
static edgellm_status find_items(const el_gguf *file, const char *key, el_gguf_type type, el_gguf_type type2, size_t n,
                                 const el_gguf_kv **out)
{
    const el_gguf_kv *kv = el_gguf_find(file, key);

    *out = NULL;
    if (!kv)
        return EDGELLM_OK;
    if (kv->type != EL_GGUF_ARR || (kv->item_type != type && kv->item_type != type2))
        return el_fail(EDGELLM_EFORMAT, "%s must be an array of 32-bit %s", key,
                       type == EL_GGUF_F32 ? "floats" : "integers");
    if (kv->n != n)
        return el_fail(EDGELLM_EFORMAT, "%s has %llu items for %zu tokens; one for each token is needed", key,
                       (unsigned long long)kv->n, n);
    *out = kv;
    return EDGELLM_OK;
}

/* The strings of an array as *items, *n of them; nothing when the key is absent. */
static edgellm_status find_strings(const el_gguf *file, const char *key, el_str **items, size_t *n)
{
    const el_gguf_kv *kv = el_gguf_find(file, key);

    *items = NULL;
    *n = 0;
    if (!kv)
        return EDGELLM_OK;
    if (kv->type != EL_GGUF_ARR || (kv->item_type != EL_GGUF_STR && kv->n > 0))
        return el_fail(EDGELLM_EFORMAT, "%s must be an array of strings", key);
    *n = (size_t)kv->n;
    return kv->n ? el_gguf_strings(kv, items) : EDGELLM_OK;
}

/* A token id; absent, or 2^32 - 1 as some converters write "none", leaves *id as it is. */
static edgellm_status read_id(const el_gguf *file, const char *name, size_t n_tokens, int32_t *id)
{
    char key[64];
    const el_gguf_kv *kv;
    int64_t value = -1;
    edgellm_status status;

    snprintf(key, sizeof key, PREFIX "%s", name);
    kv = el_gguf_find(file, key);
    if (!kv)
        return EDGELLM_OK;
    if (kv->type == EL_GGUF_ARR)
        return el_fail(EDGELLM_EFORMAT, "%s must be one integer, not an array", key);
    status = el_gguf_item_i64(kv, 0, &value);
    if (status != EDGELLM_OK || value == -1 || value == (int64_t)UINT32_MAX)
        return status;
    if (value < 0 || (uint64_t)value >= n_tokens)
        return el_fail(EDGELLM_EFORMAT, "%s is %lld, but the vocabulary has only %zu tokens", key, (long long)value,
                       n_tokens);
    *id = (int32_t)value;
    return EDGELLM_OK;
}

static edgellm_status read_ids(const el_gguf *file, el_vocab_data *data)
{
    /* names that older converters gave to three roles */
    static const struct {
        int role;
        const char *name;
    } old[] = {{EDGELLM_TOKEN_FIM_PRE, "prefix_token_id"},
               {EDGELLM_TOKEN_FIM_SUF, "suffix_token_id"},
               {EDGELLM_TOKEN_FIM_MID, "middle_token_id"}};
    edgellm_status status = EDGELLM_OK;

    for (size_t role = 0; role < EL_COUNT(data->special); role++)
        data->special[role] = -1;
    for (size_t i = 0; i < EL_COUNT(old); i++)
        EL_TRY(read_id(file, old[i].name, data->n_tokens, &data->special[old[i].role]));
    for (int role = 0; el_special_key(role); role++)
        EL_TRY(read_id(file, el_special_key(role), data->n_tokens, &data->special[role]));
    data->cls = -1;
    EL_TRY(read_id(file, "cls_token_id", data->n_tokens, &data->cls));
done:
    return status;
}

static edgellm_status read_flag(const el_gguf *file, const char *key, int8_t *flag)
{
    bool value = false;
    edgellm_status status = el_gguf_get_bool(file, key, &value);

    *flag = (int8_t)(el_gguf_find(file, key) ? value : -1);
    return status;
}

static edgellm_status read_flags(const el_gguf *file, el_vocab_data *data)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(read_flag(file, PREFIX "add_bos_token", &data->add_bos));
    EL_TRY(read_flag(file, PREFIX "add_eos_token", &data->add_eos));
    EL_TRY(read_flag(file, PREFIX "add_sep_token", &data->add_sep));
    EL_TRY(read_flag(file, PREFIX "add_space_prefix", &data->add_space_prefix));
    EL_TRY(read_flag(file, PREFIX "remove_extra_whitespaces", &data->remove_extra_whitespaces));
    EL_TRY(read_flag(file, PREFIX "ignore_merges", &data->ignore_merges));
    EL_TRY(read_flag(file, PREFIX "normalizer.lowercase", &data->lowercase));
    EL_TRY(read_flag(file, PREFIX "normalizer.strip_accents", &data->strip_accents));
done:
    return status;
}

/* An array of bytes; nothing when the key is absent. */
static edgellm_status read_charsmap(const el_gguf *file, el_vocab_data *data)
{
    const el_gguf_kv *kv = el_gguf_find(file, PREFIX "precompiled_charsmap");

    if (!kv)
        return EDGELLM_OK;
    if (kv->type != EL_GGUF_ARR || (kv->item_type != EL_GGUF_U8 && kv->item_type != EL_GGUF_I8 && kv->n > 0))
        return el_fail(EDGELLM_EFORMAT, PREFIX "precompiled_charsmap must be an array of bytes");
    data->charsmap = kv->data;
    data->n_charsmap = (size_t)kv->n;
    return EDGELLM_OK;
}

/* Scores may be integers; the tokenizer takes floats. *converted is the caller's to free. */
static edgellm_status read_scores(const el_gguf *file, el_vocab_data *data, float **converted)
{
    const el_gguf_kv *kv;
    edgellm_status status = find_items(file, PREFIX "scores", EL_GGUF_F32, EL_GGUF_I32, data->n_tokens, &kv);

    if (status != EDGELLM_OK || !kv)
        return status;
    if (kv->item_type == EL_GGUF_F32) {
        data->scores = kv->data;
        return EDGELLM_OK;
    }
    *converted = el_alloc(data->n_tokens, sizeof **converted);
    if (!*converted)
        return el_no_memory(data->n_tokens * sizeof **converted);
    for (size_t i = 0; i < data->n_tokens && status == EDGELLM_OK; i++) {
        double value = 0;

        status = el_gguf_item_f64(kv, i, &value);
        (*converted)[i] = (float)value;
    }
    data->scores = (const uint8_t *)*converted;
    return status;
}

edgellm_status el_vocab_from_gguf(el_tokenizer **out, const el_gguf *file)
{
    edgellm_status status = EDGELLM_OK;
    el_vocab_data data = {0};
    el_str *tokens = NULL, *merges = NULL;
    float *scores = NULL;
    const el_gguf_kv *types = NULL;

    *out = NULL;
    if (!el_gguf_find(file, PREFIX "model"))
        return el_fail(EDGELLM_EFORMAT, "the file has no " PREFIX "model key, so it holds no vocabulary");
    EL_TRY(el_gguf_get_str(file, PREFIX "model", &data.model));
    EL_TRY(el_gguf_get_str(file, PREFIX "pre", &data.pre));
    EL_TRY(el_gguf_get_str(file, "general.name", &data.name));
    EL_TRY(el_gguf_get_str(file, "general.architecture", &data.arch));
    if (el_str_eq(data.model, "no_vocab"))
        data.model = (el_str){"none", 4};
    EL_TRY(find_strings(file, PREFIX "tokens", &tokens, &data.n_tokens));
    EL_TRY(find_strings(file, PREFIX "merges", &merges, &data.n_merges));
    EL_TRY(find_items(file, PREFIX "token_type", EL_GGUF_I32, EL_GGUF_U32, data.n_tokens, &types));
    EL_TRY(read_scores(file, &data, &scores));
    EL_TRY(read_charsmap(file, &data));
    EL_TRY(read_ids(file, &data));
    EL_TRY(read_flags(file, &data));
    data.tokens = tokens;
    data.merges = merges;
    data.types = types ? types->data : NULL;
    EL_TRY(el_tokenizer_new(out, &data));
done:
    el_free(tokens);
    el_free(merges);
    el_free(scores);
    return status;
}
