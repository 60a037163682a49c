/* pool.h - the memory of the KV cache: for each layer K and V rows for every slot, token-major, one reservation.
 * The pages are the operating system's zero pages until a sequence first writes to them, so a large context costs
 * nothing before it is used, and a slot that was never written holds zeros, not noise. */
#ifndef EL_POOL_H
#define EL_POOL_H

#include "graph.h"

typedef struct el_pool {
    el_kv_tensors *kv; /* one per layer */
    struct ggml_context *ctx;
    void *headers;
    void *memory;
    uint64_t n_bytes;
} el_pool;

/* Bytes that one slot takes in all layers. EUNSUPPORTED when the type does not fit the model's heads. */
edgellm_status el_pool_slot_bytes(const el_model *model, int32_t kv_type, uint64_t *n_bytes);
edgellm_status el_pool_init(el_pool *p, const el_model *model, int32_t kv_type, int32_t n_slots);
void el_pool_clear(el_pool *p);

#endif
