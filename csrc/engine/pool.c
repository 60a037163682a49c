/* pool.c - reserves the KV cache. */
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

edgellm_status el_pool_slot_bytes(const el_model *model, int32_t kv_type, uint64_t *n_bytes)
{
    const el_hparams *hp = &model->hp;
    const enum ggml_type type = ggml_type_of(kv_type);

    if (hp->head_k % ggml_blck_size(type) != 0 || hp->head_v % ggml_blck_size(type) != 0)
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "a %s KV cache needs heads of a multiple of %d; this model's are %d and %d wide",
                       ggml_type_name(type), (int)ggml_blck_size(type), hp->head_k, hp->head_v);
    *n_bytes = 0;
    for (int32_t i = 0; i < hp->n_layer; i++)
        *n_bytes += ggml_row_size(type, (int64_t)hp->head_k * hp->layers[i].n_head_kv) +
                    ggml_row_size(type, (int64_t)hp->head_v * hp->layers[i].n_head_kv);
    return EDGELLM_OK;
}

edgellm_status el_pool_init(el_pool *p, const el_model *model, int32_t kv_type, int32_t n_slots)
{
    const el_hparams *hp = &model->hp;
    const enum ggml_type type = ggml_type_of(kv_type);
    struct ggml_init_params params = {.mem_size = 2 * (size_t)hp->n_layer * ggml_tensor_overhead(), .no_alloc = true};
    uint64_t slot_bytes, total;
    size_t used = 0;
    edgellm_status status = EDGELLM_OK;

    memset(p, 0, sizeof *p);
    EL_TRY(el_pool_slot_bytes(model, kv_type, &slot_bytes));
    if (!el_mul(slot_bytes, (uint64_t)n_slots, &total) || total > SIZE_MAX / 2)
        return el_fail(EDGELLM_ENOMEM, "a KV cache of %d tokens does not fit the address space", n_slots);
    p->headers = params.mem_buffer = el_alloc(1, params.mem_size);
    p->kv = el_alloc((size_t)hp->n_layer, sizeof *p->kv);
    p->memory = el_alloc(1, (size_t)total);
    p->ctx = p->headers ? ggml_init(params) : NULL;
    if (!p->ctx || !p->kv || !p->memory) {
        status = el_fail(EDGELLM_ENOMEM, "out of memory: a KV cache of %d tokens takes %llu MB; lower n_ctx or n_seqs",
                         n_slots, (unsigned long long)(total >> 20));
        goto done;
    }
    for (int32_t i = 0; i < hp->n_layer; i++) {
        struct ggml_tensor **both[2] = {&p->kv[i].k, &p->kv[i].v};
        const int32_t heads[2] = {hp->head_k, hp->head_v};
        for (int j = 0; j < 2; j++) {
            *both[j] = ggml_new_tensor_2d(p->ctx, type, (int64_t)heads[j] * hp->layers[i].n_head_kv, n_slots);
            (*both[j])->data = (char *)p->memory + used;
            used += ggml_nbytes(*both[j]);
        }
    }
    p->n_bytes = total;
done:
    if (status != EDGELLM_OK)
        el_pool_clear(p);
    return status;
}

void el_pool_clear(el_pool *p)
{
    if (p->ctx)
        ggml_free(p->ctx);
    el_free(p->headers);
    el_free(p->kv);
    el_free(p->memory);
    memset(p, 0, sizeof *p);
}
