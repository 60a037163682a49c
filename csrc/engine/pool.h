/* pool.h - the engine's memory of what sequences have seen, one reservation of each kind for all layers:
 *   the KV cache: K and V rows for every slot, token-major
 *   recurrent memory: what state-space and convolution layers carry along, a few numbers per sequence whatever its
 *   length. Every sequence has two slots: a step reads one and writes the other, so that a step that fails or is
 *   cancelled has changed nothing.
 * The pages are the operating system's zero pages until a sequence first writes to them, so a large context costs
 * nothing before it is used, and a slot that was never written holds zeros, not noise. */
#ifndef EL_POOL_H
#define EL_POOL_H

#include "graph.h"

enum { EL_STATES_PER_SEQ = 2 };

typedef struct el_pool {
    el_layer_memory *layers; /* one per layer */
    struct ggml_context *ctx;
    void *headers;
    void *memory;           /* of the KV cache */
    void *states;           /* recurrent memory */
    uint64_t n_bytes;       /* of the KV cache */
    uint64_t n_state_bytes; /* of all sequences; 0: the model has no recurrent memory */
    int32_t n_states;
} el_pool;

/* Bytes that one slot takes in all layers that do not slide, and in those that do. EUNSUPPORTED when the type does not
 * fit the model's heads. */
edgellm_status el_pool_slot_bytes(const el_model *model, int32_t kv_type, uint64_t *full, uint64_t *sliding);
uint64_t el_pool_state_bytes(const el_model *model); /* recurrent memory of one slot */
/* n_sliding: slots of sliding layers; 0: as many as the others. */
edgellm_status el_pool_init(el_pool *p, const el_model *model, int32_t kv_type, int32_t n_slots, int32_t n_sliding,
                            int32_t n_seqs);
void el_pool_clear(el_pool *p);

/* Recurrent memory of one slot, gathered and spread: a checkpoint. Bytes: n_state_bytes / n_states. */
void el_pool_save_state(const el_pool *p, const el_model *model, int32_t state, void *to);
void el_pool_load_state(el_pool *p, const el_model *model, int32_t state, const void *from);

#endif
