/* llama_shim.c - the few calls a worker needs of llama.cpp, with flat arguments, so that the layout of llama.h's
 * structs stays the C compiler's business. bench/native.py compiles it against the llama.cpp it has built. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "ggml-backend.h"
#include "llama.h"

typedef struct shim {
    struct llama_model *model;
    struct llama_context *ctx;
    struct llama_batch batch;
    int capacity;
} shim;

static void quiet(enum ggml_log_level level, const char *text, void *data)
{
    (void)level;
    (void)text;
    (void)data;
}

shim *shim_open(const char *path, int repack)
{
    shim *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    llama_log_set(quiet, NULL);
    ggml_backend_load_all();
    llama_backend_init();
    struct llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    params.use_extra_bufts = repack != 0;
    s->model = llama_model_load_from_file(path, params);
    if (s->model)
        return s;
    free(s);
    return NULL;
}

int shim_n_vocab(const shim *s)
{
    return llama_vocab_n_tokens(llama_model_get_vocab(s->model));
}

const char *shim_system(void)
{
    return llama_print_system_info();
}

/* flash: -1 llama.cpp's choice (its default), 0 off, 1 on. n_ctx counts the tokens of one sequence; kv_f32: a cache of
 * F32 instead of F16. */
int shim_shape(shim *s, int n_seqs, int n_ctx, int threads, int flash, int kv_f32)
{
    if (s->ctx)
        llama_free(s->ctx);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)(n_ctx * n_seqs);
    params.n_seq_max = (uint32_t)n_seqs;
    params.n_threads = threads;
    params.n_threads_batch = threads;
    params.flash_attn_type = (enum llama_flash_attn_type)flash;
    if (kv_f32)
        params.type_k = params.type_v = GGML_TYPE_F32;
    s->ctx = llama_init_from_model(s->model, params);
    return s->ctx ? 0 : -1;
}

void shim_clear(shim *s)
{
    llama_memory_clear(llama_get_memory(s->ctx), false);
}

/* n tokens with their sequences and positions; want[i] != 0 asks for logits. Returns llama_decode's answer. */
int shim_step(shim *s, int n, const int32_t *tokens, const int32_t *seqs, const int32_t *positions, const int8_t *want)
{
    if (n > s->capacity) {
        if (s->capacity)
            llama_batch_free(s->batch);
        s->batch = llama_batch_init(n, 0, 1);
        s->capacity = n;
    }
    for (int i = 0; i < n; i++) {
        s->batch.token[i] = tokens[i];
        s->batch.pos[i] = positions[i];
        s->batch.n_seq_id[i] = 1;
        s->batch.seq_id[i][0] = seqs[i];
        s->batch.logits[i] = want[i];
    }
    s->batch.n_tokens = n;
    const int status = llama_decode(s->ctx, s->batch);
    llama_synchronize(s->ctx);
    return status;
}

const float *shim_logits(shim *s, int i)
{
    return llama_get_logits_ith(s->ctx, i);
}
