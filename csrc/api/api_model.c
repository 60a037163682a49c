/* api_model.c - the boundary for vocabularies, models and files: checks arguments, calls one inner function. */
#include "edgellm.h"

#include <stdio.h>
#include <string.h>

#include "ggml.h"
#include "model.h"
#include "adapter.h"
#include "vocab.h"

const char *edgellm_last_error(void) { return el_error_text(); }

void edgellm_free(void *memory) { el_free(memory); }

/* ---- vocabulary --------------------------------------------------------------------------- */

edgellm_status edgellm_vocab_open(edgellm_vocab **out, const char *path_utf8)
{
    edgellm_vocab *v = NULL;
    edgellm_status status = EDGELLM_OK;

    el_error_clear();
    if (!out || !path_utf8)
        return el_fail(EDGELLM_EINVAL, "out and path_utf8 must not be NULL");
    *out = NULL;
    v = el_alloc(1, sizeof *v);
    if (!v)
        return el_no_memory(sizeof *v);
    EL_TRY(el_gguf_open(&v->file, path_utf8, EL_GGUF_HEADER_ONLY));
    EL_TRY(el_vocab_from_gguf(&v->tokenizer, v->file));
    *out = v;
    v = NULL;
done:
    edgellm_vocab_free(v);
    return status;
}

void edgellm_vocab_free(edgellm_vocab *vocab)
{
    if (!vocab)
        return;
    el_tokenizer_free(vocab->tokenizer);
    el_gguf_close(vocab->file);
    el_free(vocab);
}

int32_t edgellm_vocab_size(const edgellm_vocab *vocab)
{
    return vocab ? (int32_t)el_tokenizer_n_tokens(vocab->tokenizer) : 0;
}

int32_t edgellm_vocab_special(const edgellm_vocab *vocab, int role)
{
    if (!vocab || role < EDGELLM_TOKEN_BOS || role > EDGELLM_TOKEN_FIM_MID)
        return -1;
    return el_tokenizer_special(vocab->tokenizer, role);
}

static bool has_token(const edgellm_vocab *vocab, int32_t token)
{
    return vocab && token >= 0 && (size_t)token < el_tokenizer_n_tokens(vocab->tokenizer);
}

int edgellm_vocab_is_eog(const edgellm_vocab *vocab, int32_t token)
{
    return has_token(vocab, token) && el_tokenizer_is_eog(vocab->tokenizer, token);
}

int edgellm_vocab_kind(const edgellm_vocab *vocab, int32_t token)
{
    if (!has_token(vocab, token))
        return -1;
    switch (el_tokenizer_type(vocab->tokenizer, token)) {
    case EL_TOKEN_CONTROL:
        return 1;
    case EL_TOKEN_USER_DEFINED:
        return 2;
    case EL_TOKEN_UNKNOWN:
        return 3;
    case EL_TOKEN_UNUSED:
        return 4;
    case EL_TOKEN_BYTE:
        return 5;
    default:
        return 0;
    }
}

int edgellm_vocab_adds(const edgellm_vocab *vocab, int role)
{
    return vocab && el_tokenizer_adds(vocab->tokenizer, role);
}

edgellm_status edgellm_tokenize(const edgellm_vocab *vocab, const char *text, size_t n_bytes, uint32_t flags,
                                int32_t *ids, size_t cap, size_t *n)
{
    el_error_clear();
    if (!vocab || (!text && n_bytes) || (!ids && cap) || !n)
        return el_fail(EDGELLM_EINVAL, "vocab, text, ids and n must not be NULL");
    *n = 0;
    return el_tokenize(vocab->tokenizer, text ? text : "", n_bytes, flags, ids, cap, n);
}

edgellm_status edgellm_detokenize(const edgellm_vocab *vocab, const int32_t *ids, size_t n_ids, uint32_t flags,
                                  char *buf, size_t cap, size_t *n_bytes)
{
    el_error_clear();
    if (!vocab || (!ids && n_ids) || (!buf && cap) || !n_bytes)
        return el_fail(EDGELLM_EINVAL, "vocab, ids, buf and n_bytes must not be NULL");
    *n_bytes = 0;
    for (size_t i = 0; i < n_ids; i++)
        if (!has_token(vocab, ids[i]))
            return el_fail(EDGELLM_EINVAL, "token %d is outside the vocabulary of %zu", ids[i],
                           el_tokenizer_n_tokens(vocab->tokenizer));
    return el_detokenize(vocab->tokenizer, ids, n_ids, flags, buf, cap, n_bytes);
}

edgellm_status edgellm_vocab_piece(const edgellm_vocab *vocab, int32_t token, const char **piece, size_t *n_bytes)
{
    el_str text;

    el_error_clear();
    if (!vocab || !piece || !n_bytes)
        return el_fail(EDGELLM_EINVAL, "vocab, piece and n_bytes must not be NULL");
    if (!has_token(vocab, token))
        return el_fail(EDGELLM_EINVAL, "token %d is outside the vocabulary of %zu", token,
                       el_tokenizer_n_tokens(vocab->tokenizer));
    text = el_tokenizer_piece(vocab->tokenizer, token);
    *piece = text.data;
    *n_bytes = text.n;
    return EDGELLM_OK;
}

/* ---- model -------------------------------------------------------------------------------- */

edgellm_status edgellm_model_open(edgellm_model **out, const char *path_utf8)
{
    el_error_clear();
    if (!out || !path_utf8)
        return el_fail(EDGELLM_EINVAL, "out and path_utf8 must not be NULL");
    return el_model_open(out, path_utf8);
}

void edgellm_model_free(edgellm_model *model) { el_model_free(model); }

const edgellm_vocab *edgellm_model_vocab(const edgellm_model *model) { return model ? &model->vocab : NULL; }

/* The weight type that holds the most bytes. */
static const char *commonest_type(const el_gguf *file)
{
    uint64_t bytes[GGML_TYPE_COUNT] = {0};
    size_t best = 0;

    for (size_t i = 0; i < el_gguf_n_tensors(file); i++) {
        const el_gguf_tensor *t = el_gguf_tensor_at(file, i);
        if (t->type < GGML_TYPE_COUNT)
            bytes[t->type] += t->n_bytes;
    }
    for (size_t i = 1; i < GGML_TYPE_COUNT; i++)
        if (bytes[i] > bytes[best])
            best = i;
    return ggml_type_name((enum ggml_type)best);
}

edgellm_status edgellm_model_get_info(const edgellm_model *model, edgellm_model_info *info)
{
    const el_hparams *hp;
    const char *type;

    el_error_clear();
    if (!model || !info || info->struct_size != sizeof *info)
        return el_fail(EDGELLM_EINVAL, "model and info must not be NULL, and info->struct_size must be %zu",
                       sizeof *info);
    hp = &model->hp;
    memset(info, 0, sizeof *info);
    info->struct_size = sizeof *info;
    info->n_vocab = hp->n_vocab;
    info->n_ctx_train = hp->n_ctx_train;
    info->n_embd = hp->n_embd;
    info->n_layer = hp->n_layer;
    info->n_head = hp->layers[0].n_head;
    info->n_head_kv = hp->layers[0].n_head_kv;
    info->n_expert = hp->expert.n;
    info->gives_logits = model->output.w != NULL;
    info->has_encoder = hp->n_encoder > 0 && hp->causal;
    info->decoder_start = hp->decoder_start;
    info->causal = hp->causal;
    info->n_embd_out = hp->n_embd_out;
    info->n_classes = model->cls.w || model->cls_out.w ? hp->n_classes : 0;
    info->pooling = hp->pooling;
    info->n_params = model->n_params;
    info->n_bytes = model->n_bytes;
    for (int32_t i = 0; i < hp->n_layer; i++)
        info->kv_bytes_per_token += (uint64_t)(hp->layers[i].k_width + hp->layers[i].v_width) * 2;
    snprintf(info->architecture, sizeof info->architecture, "%s", model->arch->name);
    type = commonest_type(model->file);
    for (size_t i = 0; type[i] && i + 1 < sizeof info->type; i++)
        info->type[i] = (char)(type[i] >= 'a' && type[i] <= 'z' ? type[i] - 'a' + 'A' : type[i]);
    return EDGELLM_OK;
}

edgellm_status edgellm_adapter_open(edgellm_adapter **out, const edgellm_model *model, const char *path_utf8)
{
    el_error_clear();
    if (!out || !model || !path_utf8)
        return el_fail(EDGELLM_EINVAL, "out, model and path_utf8 must not be NULL");
    return el_adapter_open(out, model, path_utf8);
}

void edgellm_adapter_free(edgellm_adapter *adapter) { el_adapter_free(adapter); }

edgellm_status edgellm_inspect(const char *path_utf8, int32_t max_array, char **json, size_t *n_bytes)
{
    el_gguf *file = NULL;
    edgellm_status status = EDGELLM_OK;

    el_error_clear();
    if (!path_utf8 || !json || !n_bytes || max_array < 0)
        return el_fail(EDGELLM_EINVAL, "path_utf8, json and n_bytes must not be NULL, and max_array not negative");
    *json = NULL;
    *n_bytes = 0;
    EL_TRY(el_gguf_open(&file, path_utf8, 0));
    EL_TRY(el_gguf_json(file, max_array, json, n_bytes));
done:
    el_gguf_close(file);
    return status;
}
