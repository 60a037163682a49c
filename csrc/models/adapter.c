/* adapter.c - opens a LoRA adapter and matches its matrices with a model's weights. */
#include "adapter.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml.h"
#include "log.h"

enum { MAX_RANK = 1 << 14 };

static edgellm_status check_kind(el_adapter *x)
{
    el_str kind = {"model", 5}, type = {"", 0}, arch = {"", 0};
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_gguf_get_str(x->file, "general.type", &kind));
    EL_TRY(el_gguf_get_str(x->file, "adapter.type", &type));
    EL_TRY(el_gguf_get_str(x->file, "general.architecture", &arch));
    EL_TRY(el_gguf_get_f32(x->file, "adapter.lora.alpha", &x->alpha));
    if (!el_str_eq(kind, "adapter"))
        return el_fail(EDGELLM_EFORMAT, "this GGUF file is no adapter: it holds a %.*s %.*s",
                       (int)EL_MIN(arch.n, (size_t)40), arch.data, (int)EL_MIN(kind.n, (size_t)40), kind.data);
    if (!el_str_eq(type, "lora"))
        return el_fail(EDGELLM_EUNSUPPORTED, "adapter.type is \"%.*s\"; only LoRA adapters are known",
                       (int)EL_MIN(type.n, (size_t)40), type.data);
    if (!el_str_eq(arch, x->model->arch->name))
        return el_fail(EDGELLM_EINVAL, "the adapter is for a %.*s model, and this is a %s model",
                       (int)EL_MIN(arch.n, (size_t)40), arch.data, x->model->arch->name);
    if (!(x->alpha >= 0 && x->alpha < 1e9f))
        return el_fail(EDGELLM_EFORMAT, "adapter.lora.alpha is %g; it must be a positive number", (double)x->alpha);
done:
    return status;
}

/* The file's tensor BASE.lora_a or _b, where `name` is that of a weight or "BASE:row" of a part of one. */
static const el_gguf_tensor *matrix_of(const el_adapter *x, const char *name, char letter)
{
    char full[GGML_MAX_NAME + 16];

    snprintf(full, sizeof full, "%.*s.lora_%c", (int)strcspn(name, ":"), name, letter);
    return el_gguf_find_tensor(x->file, full);
}

static bool usable(const el_gguf_tensor *t)
{
    return t->type == GGML_TYPE_F32 || t->type == GGML_TYPE_F16 || t->type == GGML_TYPE_BF16 ||
           (t->type < GGML_TYPE_COUNT && ggml_is_quantized((enum ggml_type)t->type) && t->type != GGML_TYPE_Q8_1 &&
            t->type != GGML_TYPE_Q8_K);
}

/* An embedding's A is stored the other way round: a row of it is looked up by token. */
static bool is_embedding(const el_adapter *x, const struct ggml_tensor *w) { return w == x->model->token_embd; }

/* Shapes that B A x needs; rows: of the whole weight. */
static edgellm_status check_pair(const el_adapter *x, const struct ggml_tensor *w, const el_gguf_tensor *a,
                                 const el_gguf_tensor *b)
{
    const bool embedding = is_embedding(x, w);
    const int64_t rank = embedding ? a->ne[0] : a->ne[1];
    const int64_t n_in = embedding ? a->ne[1] : a->ne[0], wanted_in = embedding ? w->ne[1] : w->ne[0];
    const int64_t n_out = b->ne[1];
    const int64_t first = strchr(w->name, ':') ? strtoll(strchr(w->name, ':') + 1, NULL, 10) : 0;
    const int64_t wanted_out = embedding ? w->ne[0] : w->ne[1];

    if (!usable(a) || !usable(b))
        return el_fail(EDGELLM_EUNSUPPORTED, "the adapter's matrices for %s have a type that cannot be multiplied",
                       w->name);
    if (rank < 1 || rank > MAX_RANK || n_in != wanted_in || b->ne[0] != rank || a->ne[2] != w->ne[2] ||
        b->ne[2] != w->ne[2] || n_out < first + wanted_out || (!strchr(w->name, ':') && n_out != wanted_out))
        return el_fail(EDGELLM_EINVAL,
                       "the adapter is for another model: its matrices for %s are [%" PRId64 ", %" PRId64
                       "] and [%" PRId64 ", %" PRId64 "], and that weight is [%" PRId64 ", %" PRId64 "]",
                       w->name, a->ne[0], a->ne[1], b->ne[0], b->ne[1], w->ne[0], w->ne[1]);
    return EDGELLM_OK;
}

static struct ggml_tensor *header(el_adapter *x, const el_gguf_tensor *found, int64_t first, int64_t n)
{
    const int64_t ne[3] = {found->ne[0], n, found->ne[2]};
    struct ggml_tensor *t = ggml_new_tensor(x->ctx, (enum ggml_type)found->type, ne[2] > 1 ? 3 : 2, ne);

    t->nb[2] = t->nb[1] * (size_t)found->ne[1]; /* experts' matrices keep their distance */
    t->nb[3] = t->nb[2] * (size_t)found->ne[2];
    t->data = (char *)(uintptr_t)found->data + (size_t)first * t->nb[1];
    return t;
}

static edgellm_status match(el_adapter *x, size_t *n_used)
{
    edgellm_status status = EDGELLM_OK;

    for (struct ggml_tensor *w = ggml_get_first_tensor(x->model->weights); w;
         w = ggml_get_next_tensor(x->model->weights, w)) {
        const el_gguf_tensor *a = matrix_of(x, w->name, 'a'), *b = matrix_of(x, w->name, 'b');
        const char *part = strchr(w->name, ':');
        const int64_t first = part ? strtoll(part + 1, NULL, 10) : 0;

        if (!a || !b)
            continue;
        if (!el_is_multiplied(w) || w == x->model->position_embd)
            return el_fail(EDGELLM_EUNSUPPORTED,
                           "the adapter changes %s, which takes part in no product; only weights of "
                           "products and the embeddings of tokens can be adapted",
                           w->name);
        EL_TRY(check_pair(x, w, a, b));
        x->entries[x->n++] = (el_adapted){
            .w = w,
            .a = header(x, a, 0, a->ne[1]),
            .b = header(x, b, first, is_embedding(x, w) ? b->ne[1] : w->ne[1]),
        };
        *n_used += part ? 0 : 2;
    }
done:
    return status;
}

static int by_address(const void *a, const void *b)
{
    const uintptr_t x = (uintptr_t)((const el_adapted *)a)->w, y = (uintptr_t)((const el_adapted *)b)->w;

    return x < y ? -1 : x > y;
}

/* A matrix that nothing asked for means that the file does not belong to this model. */
static edgellm_status check_all_used(const el_adapter *x, size_t n_used)
{
    for (size_t i = 0; i < el_gguf_n_tensors(x->file); i++) {
        const el_gguf_tensor *t = el_gguf_tensor_at(x->file, i);
        const size_t n = t->name.n > 7 ? t->name.n - 7 : 0; /* ".lora_a" */
        char base[GGML_MAX_NAME];
        if (n_used == el_gguf_n_tensors(x->file))
            return EDGELLM_OK;
        if (n == 0 || n >= sizeof base || memcmp(t->name.data + n, ".lora_", 6) != 0)
            return el_fail(EDGELLM_EUNSUPPORTED, "the adapter has a tensor %.*s, which is no part of a LoRA",
                           (int)EL_MIN(t->name.n, (size_t)80), t->name.data);
        snprintf(base, sizeof base, "%.*s", (int)n, t->name.data);
        if (!ggml_get_tensor(x->model->weights, base))
            return el_fail(EDGELLM_EINVAL, "the adapter is for another model: it changes %s, which this model lacks",
                           base);
    }
    return EDGELLM_OK;
}

edgellm_status el_adapter_open(el_adapter **out, const el_model *model, const char *path_utf8)
{
    edgellm_status status = EDGELLM_OK;
    struct ggml_init_params params = {.no_alloc = true};
    size_t n_weights = 0, n_used = 0;
    el_adapter *x = el_alloc(1, sizeof *x);

    *out = NULL;
    if (!x)
        return el_no_memory(sizeof *x);
    x->model = model;
    EL_TRY(el_gguf_open(&x->file, path_utf8, 0));
    EL_TRY(check_kind(x));
    for (struct ggml_tensor *w = ggml_get_first_tensor(model->weights); w; w = ggml_get_next_tensor(model->weights, w))
        n_weights++;
    params.mem_size = 2 * (n_weights + 1) * ggml_tensor_overhead();
    x->headers = params.mem_buffer = el_alloc(1, params.mem_size);
    x->entries = el_alloc(n_weights + 1, sizeof *x->entries);
    x->ctx = x->headers ? ggml_init(params) : NULL;
    if (!x->ctx || !x->entries) {
        status = el_no_memory(params.mem_size);
        goto done;
    }
    EL_TRY(match(x, &n_used));
    EL_TRY(check_all_used(x, n_used));
    if (x->n == 0) {
        status = el_fail(EDGELLM_EFORMAT, "the adapter changes no weight: it has no LoRA matrices");
        goto done;
    }
    qsort(x->entries, x->n, sizeof *x->entries, by_address);
    el_log(EL_LOG_INFO, "opened an adapter of %zu matrices", n_used);
    *out = x;
    x = NULL;
done:
    el_adapter_free(x);
    return status;
}

void el_adapter_free(el_adapter *x)
{
    if (!x)
        return;
    if (x->ctx)
        ggml_free(x->ctx);
    el_free(x->headers);
    el_free(x->entries);
    el_gguf_close(x->file);
    el_free(x);
}

const el_adapted *el_adapter_find(const el_adapter *x, const struct ggml_tensor *w)
{
    const el_adapted key = {.w = w};

    return bsearch(&key, x->entries, x->n, sizeof key, by_address);
}

float el_adapter_strength(const el_adapter *x, const el_adapted *entry, float scale)
{
    return x->alpha == 0 ? scale : scale * x->alpha / (float)entry->b->ne[0];
}
