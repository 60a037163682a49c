/* gguf.h - reads and validates GGUF files (versions 2 and 3, split or whole), mapped and without copies.
 * Knows no model. Everything it hands out points into the mapping and lives as long as the el_gguf.
 * Source of the format: the specification in ggml's docs/gguf.md. */
#ifndef EL_GGUF_H
#define EL_GGUF_H

#include "error.h"
#include "mem.h"

typedef enum el_gguf_type { /* numbers of the file format */
                            EL_GGUF_U8 = 0,
                            EL_GGUF_I8 = 1,
                            EL_GGUF_U16 = 2,
                            EL_GGUF_I16 = 3,
                            EL_GGUF_U32 = 4,
                            EL_GGUF_I32 = 5,
                            EL_GGUF_F32 = 6,
                            EL_GGUF_BOOL = 7,
                            EL_GGUF_STR = 8,
                            EL_GGUF_ARR = 9,
                            EL_GGUF_U64 = 10,
                            EL_GGUF_I64 = 11,
                            EL_GGUF_F64 = 12
} el_gguf_type;

typedef struct el_gguf_kv {
    el_str key;
    el_gguf_type type;
    el_gguf_type item_type; /* of an array, else equal to type */
    uint64_t n;             /* items of an array, else 1 */
    const uint8_t *data;    /* first value (of a string: its bytes' length field), any alignment */
    uint64_t n_bytes;       /* of all the values */
} el_gguf_kv;

typedef struct el_gguf_tensor {
    el_str name;
    uint32_t type;    /* ggml_type number, one that el_gguf_type_size knows */
    int32_t n_dims;   /* 1 to 4 */
    int64_t ne[4];    /* unused ones are 1 */
    const void *data; /* inside the mapping; NULL for a vocabulary-only open */
    uint64_t n_bytes;
    uint64_t offset; /* in its file, from the beginning */
    int32_t part;    /* of a split file, from 0 */
} el_gguf_tensor;

typedef struct el_gguf el_gguf;

enum { EL_GGUF_HEADER_ONLY = 1 }; /* do not require or map the tensor data nor the other parts */

edgellm_status el_gguf_open(el_gguf **out, const char *path_utf8, unsigned flags);
void el_gguf_close(el_gguf *file); /* NULL is fine */

/* The same checks on bytes in memory (fuzzing, models inside an archive); data outlives the el_gguf. */
edgellm_status el_gguf_open_memory(el_gguf **out, const void *data, size_t n_bytes, unsigned flags);

uint32_t el_gguf_version(const el_gguf *file);
uint64_t el_gguf_alignment(const el_gguf *file);
size_t el_gguf_n_kv(const el_gguf *file);
const el_gguf_kv *el_gguf_kv_at(const el_gguf *file, size_t i);
const el_gguf_kv *el_gguf_find(const el_gguf *file, const char *key); /* NULL when absent; hashed */
size_t el_gguf_n_tensors(const el_gguf *file);
const el_gguf_tensor *el_gguf_tensor_at(const el_gguf *file, size_t i);
const el_gguf_tensor *el_gguf_find_tensor(const el_gguf *file, const char *name); /* NULL when absent; hashed */

/* Typed reads. A key that is absent leaves *value as it is and returns OK; one of another type is EFORMAT and
 * the text names key, found type and wanted type. Integers of any width and sign convert when the value fits.
 * Floats accept f32 and f64. */
edgellm_status el_gguf_get_u32(const el_gguf *file, const char *key, uint32_t *value);
edgellm_status el_gguf_get_i32(const el_gguf *file, const char *key, int32_t *value);
edgellm_status el_gguf_get_u64(const el_gguf *file, const char *key, uint64_t *value);
edgellm_status el_gguf_get_f32(const el_gguf *file, const char *key, float *value);
edgellm_status el_gguf_get_bool(const el_gguf *file, const char *key, bool *value);
edgellm_status el_gguf_get_str(const el_gguf *file, const char *key, el_str *value);

/* Item i of an array (or of a scalar with i = 0), converted the same way. */
edgellm_status el_gguf_item_i64(const el_gguf_kv *kv, uint64_t i, int64_t *value); /* bool: 0 or 1 */
edgellm_status el_gguf_item_f64(const el_gguf_kv *kv, uint64_t i, double *value);

/* All strings of an array of strings; *out has kv->n entries and is freed by the caller with el_free. */
edgellm_status el_gguf_strings(const el_gguf_kv *kv, el_str **out);

/* Block geometry of a ggml type: false when the number is unknown. */
bool el_gguf_type_size(uint32_t type, uint32_t *block_elements, uint32_t *block_bytes, const char **name);

/* The header as JSON, as edgellm_inspect describes it. *json is el_alloc'ed, NUL-terminated. */
edgellm_status el_gguf_json(const el_gguf *file, int32_t max_array, char **json, size_t *n_bytes);

/* Has the file been cut or replaced since it was opened? OK, or EIO with a sentence. Cheap (fstat). */
edgellm_status el_gguf_check_unchanged(const el_gguf *file);

#endif
