/* pool.c - reserves the KV cache and the recurrent memory. */
#include "pool.h"

#include <string.h>

#include "ggml.h"

static enum ggml_type ggml_type_of(int32_t kv_type)
{
    switch (kv_type) {
    case EDGELLM_KV_F32:
        return GGML_TYPE_F32;
    case EDGELLM_KV_Q8_0:
        return GGML_TYPE_Q8_0;
    default:
        return GGML_TYPE_F16;
    }
}

edgellm_status el_pool_slot_bytes(const el_model *model, int32_t kv_type, uint64_t *full, uint64_t *sliding)
{
    const el_hparams *hp = &model->hp;
    const enum ggml_type type = ggml_type_of(kv_type);

    *full = *sliding = 0;
    for (int32_t i = 0; i < hp->n_layer; i++) {
        const el_layer_hparams *lh = &hp->layers[i];
        if (lh->k_width == 0)
            continue;
        if (lh->head_k % ggml_blck_size(type) != 0 || lh->head_v % ggml_blck_size(type) != 0)
            return el_fail(EDGELLM_EUNSUPPORTED,
                           "a %s KV cache needs heads of a multiple of %d; this model's are %d and %d wide",
                           ggml_type_name(type), (int)ggml_blck_size(type), lh->head_k, lh->head_v);
        *(lh->sliding ? sliding : full) += ggml_row_size(type, lh->k_width) + ggml_row_size(type, lh->v_width);
    }
    return EDGELLM_OK;
}

uint64_t el_pool_state_bytes(const el_model *model)
{
    const el_hparams *hp = &model->hp;
    uint64_t n = 0;

    for (int32_t i = 0; i < hp->n_layer; i++)
        n += (uint64_t)(hp->layers[i].conv_width + hp->layers[i].state_width) * sizeof(float);
    return n;
}

static struct ggml_tensor *take(struct ggml_context *ctx, enum ggml_type type, int64_t width, int64_t n, char *memory,
                                size_t *used)
{
    struct ggml_tensor *t;

    if (width == 0)
        return NULL;
    t = ggml_new_tensor_2d(ctx, type, width, n);
    t->data = memory + *used;
    *used += ggml_nbytes(t);
    return t;
}

static void lay_out(el_pool *p, const el_hparams *hp, enum ggml_type type, int32_t n_slots, int32_t n_sliding)
{
    size_t kv = 0, states = 0;

    for (int32_t i = 0; i < hp->n_layer; i++) {
        const el_layer_hparams *lh = &hp->layers[i];
        el_layer_memory *m = &p->layers[i];
        const int32_t n = lh->sliding && n_sliding > 0 ? n_sliding : n_slots;
        m->k = take(p->ctx, type, lh->k_width, n, p->memory, &kv);
        m->v = take(p->ctx, type, lh->v_width, n, p->memory, &kv);
        m->conv = take(p->ctx, GGML_TYPE_F32, lh->conv_width, p->n_states, p->states, &states);
        m->state = take(p->ctx, GGML_TYPE_F32, lh->state_width, p->n_states, p->states, &states);
    }
}

edgellm_status el_pool_init(el_pool *p, const el_model *model, int32_t kv_type, int32_t n_slots, int32_t n_sliding,
                            int32_t n_seqs)
{
    const el_hparams *hp = &model->hp;
    struct ggml_init_params params = {.mem_size = 4 * (size_t)hp->n_layer * ggml_tensor_overhead(), .no_alloc = true};
    uint64_t full, sliding, total, more;
    edgellm_status status = EDGELLM_OK;

    memset(p, 0, sizeof *p);
    EL_TRY(el_pool_slot_bytes(model, kv_type, &full, &sliding));
    if (!el_mul(full, (uint64_t)n_slots, &total) ||
        !el_mul(sliding, (uint64_t)(n_sliding > 0 ? n_sliding : n_slots), &more) || total > SIZE_MAX / 4 ||
        more > SIZE_MAX / 4)
        return el_fail(EDGELLM_ENOMEM, "a KV cache of %d tokens does not fit the address space", n_slots);
    p->n_states = EL_STATES_PER_SEQ * n_seqs;
    total += more;
    p->n_bytes = total;
    if (!el_mul(el_pool_state_bytes(model), (uint64_t)p->n_states, &p->n_state_bytes) ||
        p->n_state_bytes > SIZE_MAX / 2)
        return el_fail(EDGELLM_ENOMEM, "recurrent memory of %d sequences does not fit the address space", n_seqs);
    p->headers = params.mem_buffer = el_alloc(1, params.mem_size);
    p->layers = el_alloc((size_t)hp->n_layer, sizeof *p->layers);
    p->memory = el_alloc(1, (size_t)EL_MAX(total, 1));
    p->states = el_alloc(1, (size_t)EL_MAX(p->n_state_bytes, 1));
    p->ctx = p->headers ? ggml_init(params) : NULL;
    if (!p->ctx || !p->layers || !p->memory || !p->states) {
        status = el_fail(EDGELLM_ENOMEM, "out of memory: a KV cache of %d tokens takes %llu MB; lower n_ctx or n_seqs",
                         n_slots, (unsigned long long)((total + p->n_state_bytes) >> 20));
        goto done;
    }
    lay_out(p, hp, ggml_type_of(kv_type), n_slots, n_sliding);
done:
    if (status != EDGELLM_OK)
        el_pool_clear(p);
    return status;
}

/* Copies each layer's part of a slot to (save) or from `copy`. */
static void for_each_part(const el_pool *p, const el_model *model, int32_t state, char *copy, bool save)
{
    for (int32_t i = 0; i < model->hp.n_layer; i++) {
        struct ggml_tensor *parts[2] = {p->layers[i].conv, p->layers[i].state};
        for (int k = 0; k < 2; k++) {
            char *row = parts[k] ? (char *)parts[k]->data + (size_t)state * parts[k]->nb[1] : NULL;
            if (!row)
                continue;
            memcpy(save ? copy : row, save ? row : copy, parts[k]->nb[1]);
            copy += parts[k]->nb[1];
        }
    }
}

void el_pool_save_state(const el_pool *p, const el_model *model, int32_t state, void *to)
{
    for_each_part(p, model, state, to, true);
}

void el_pool_load_state(el_pool *p, const el_model *model, int32_t state, const void *from)
{
    for_each_part(p, model, state, (char *)(uintptr_t)from, false);
}

void el_pool_clear(el_pool *p)
{
    if (p->ctx)
        ggml_free(p->ctx);
    el_free(p->headers);
    el_free(p->layers);
    el_free(p->memory);
    el_free(p->states);
    memset(p, 0, sizeof *p);
}
