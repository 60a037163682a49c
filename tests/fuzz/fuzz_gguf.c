/* fuzz_gguf.c - libFuzzer target: any bytes as a GGUF file, opened both ways, every getter asked for every key.
 * The corpus is seeded by tests/support/damaged.py --corpus. */
#include "gguf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static volatile uint64_t sink; /* keeps reads from being removed */

static void touch(const void *data, uint64_t n_bytes)
{
    const uint8_t *p = data;

    for (uint64_t i = 0; i < n_bytes; i++)
        sink += p[i];
}

static void ask_by_name(const el_gguf *file, const char *key)
{
    uint32_t u32 = 0;
    int32_t i32 = 0;
    uint64_t u64 = 0;
    float f32 = 0;
    bool flag = false;
    el_str s = {"", 0};

    el_gguf_get_u32(file, key, &u32);
    el_gguf_get_i32(file, key, &i32);
    el_gguf_get_u64(file, key, &u64);
    el_gguf_get_f32(file, key, &f32);
    el_gguf_get_bool(file, key, &flag);
    el_gguf_get_str(file, key, &s);
    touch(s.data, s.n);
    sink += u32 + (uint32_t)i32 + u64 + (f32 > 0) + flag;
}

static void ask_items(const el_gguf_kv *kv)
{
    el_str *strings = NULL;
    int64_t i64 = 0;
    double f64 = 0;

    touch(kv->data, kv->n_bytes);
    for (uint64_t i = 0; i < EL_MIN(kv->n, 64); i++) {
        el_gguf_item_i64(kv, i, &i64);
        el_gguf_item_f64(kv, i, &f64);
    }
    el_gguf_item_i64(kv, kv->n, &i64); /* one past the end: refused */
    sink += (uint64_t)i64 + (f64 > 0);
    if (el_gguf_strings(kv, &strings) == EDGELLM_OK)
        for (uint64_t i = 0; i < kv->n; i++)
            touch(strings[i].data, strings[i].n);
    el_free(strings);
}

static void ask_all(const el_gguf *file)
{
    char *json = NULL;
    size_t n = 0;

    for (size_t i = 0; i < el_gguf_n_kv(file); i++) {
        const el_gguf_kv *kv = el_gguf_kv_at(file, i);
        char *key = el_strndup(kv->key.data, kv->key.n);

        if (!key)
            break;
        if (el_gguf_find(file, key) != kv)
            abort(); /* keys hold no NUL and are unique, so each must be found by its name */
        ask_by_name(file, key);
        ask_items(kv);
        el_free(key);
    }
    for (size_t i = 0; i < el_gguf_n_tensors(file); i++) {
        const el_gguf_tensor *t = el_gguf_tensor_at(file, i);

        touch(t->name.data, t->name.n);
        if (t->data)
            touch(t->data, t->n_bytes);
    }
    el_gguf_find_tensor(file, "token_embd.weight");
    for (int32_t max_array = 0; max_array < 100; max_array += 50) {
        if (el_gguf_json(file, max_array, &json, &n) == EDGELLM_OK && strlen(json) != n)
            abort(); /* the JSON holds no NUL */
        el_free(json);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    for (unsigned flags = 0; flags <= EL_GGUF_HEADER_ONLY; flags++) {
        el_gguf *file = NULL;
        edgellm_status status;

        el_error_clear();
        status = el_gguf_open_memory(&file, data, n_bytes, flags);
        if ((status == EDGELLM_OK) != (file != NULL) || (status != EDGELLM_OK && !*el_error_text()))
            abort();
        if (file)
            ask_all(file);
        el_gguf_close(file);
    }
    return 0;
}
