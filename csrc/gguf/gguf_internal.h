/* gguf_internal.h - what the files of this folder share: the open file, the cursor over its bytes, the limits.
 * Limits are ours, far above any real file and low enough that no header makes us hold 100 MB: the largest
 * known header (a vocabulary of 260,000 with its merges) has 16 MB, 50 keys and under 2,000 tensors. */
#ifndef EL_GGUF_INTERNAL_H
#define EL_GGUF_INTERNAL_H

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "filemap.h"
#include "gguf.h"

#define EL_GGUF_MAX_HEADER (UINT64_C(64) << 20) /* bytes before the tensor data */
#define EL_GGUF_MAX_KEYS 131072
#define EL_GGUF_MAX_TENSORS 131072  /* of all parts together */
#define EL_GGUF_MAX_STRINGS 2097152 /* in one array: el_gguf_strings takes 16 bytes each */
#define EL_GGUF_MAX_KEY 65535       /* bytes, as the specification says */
#define EL_GGUF_MAX_NAME 64         /* bytes of a tensor name, as the specification says */
#define EL_GGUF_MAX_DIMS 4
#define EL_GGUF_MAX_PARTS 1024
#define EL_GGUF_MAX_JSON (UINT64_C(32) << 20)

/* Little-endian reads from any alignment; compilers make one load of each. */
static inline uint16_t el_rd16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t el_rd32(const uint8_t *p) { return el_rd16(p) | (uint32_t)el_rd16(p + 2) << 16; }
static inline uint64_t el_rd64(const uint8_t *p) { return el_rd32(p) | (uint64_t)el_rd32(p + 4) << 32; }

/* A name cut and escaped for a message. */
typedef struct el_gguf_quote {
    char text[100];
} el_gguf_quote;
el_gguf_quote el_gguf_quoted(el_str s);

/* Names to numbers. Items are structs that begin with an el_str; they must not move while the index lives. */
typedef struct el_gguf_index {
    uint64_t *slots; /* high half: hash, low half: 1 + item; 0 is free */
    uint64_t mask;
    const uint8_t *items;
    size_t stride;
} el_gguf_index;
#define EL_GGUF_ABSENT SIZE_MAX
/* Refuses two equal names; file and noun ("key") are for that message. */
edgellm_status el_gguf_index_build(el_gguf_index *index, const void *items, size_t n, size_t stride, const char *file,
                                   const char *noun);
size_t el_gguf_index_find(const el_gguf_index *index, const char *name, size_t n);

struct el_gguf {
    const char *name; /* of the (first) file, for messages; owned by its map or static */
    uint32_t version;
    uint64_t alignment;
    uint32_t split_no, split_count; /* 0, 0 when the file is whole */
    el_gguf_kv *kv;
    size_t n_kv;
    el_gguf_index keys;
    el_gguf_tensor *tensors;
    size_t n_tensors;
    el_gguf_index names;
    el_filemap *maps; /* one for each part; NULL when in memory */
    size_t n_maps;
};

/* A walk over one file's header. Every read goes through it and is checked against `end`. */
typedef struct el_gguf_cursor {
    const uint8_t *data;
    uint64_t file_bytes; /* what the file has */
    uint64_t end;        /* where a header must end: file_bytes or EL_GGUF_MAX_HEADER */
    uint64_t at;
    const char *file; /* for messages */
    char item[128];   /* what is being read, for messages: "key 'general.name'" */
    uint64_t n_kv, n_tensors;
} el_gguf_cursor;

/* Magic, version, counts (checked against the bytes left). */
edgellm_status el_gguf_read_start(el_gguf_cursor *c, el_gguf *file);
/* All keys and values, their index, general.alignment, split.no and split.count. */
edgellm_status el_gguf_read_keys(el_gguf_cursor *c, el_gguf *file);
/* Appends the tensors of one file to into->tensors and checks type, shape, place and overlap. */
edgellm_status el_gguf_read_tensors(el_gguf_cursor *c, el_gguf *into, uint64_t alignment, int32_t part, unsigned flags);

edgellm_status el_gguf_need(const el_gguf_cursor *c, uint64_t n_bytes); /* fails with a sentence */
edgellm_status el_gguf_take_u32(el_gguf_cursor *c, uint32_t *value);
edgellm_status el_gguf_take_u64(el_gguf_cursor *c, uint64_t *value);
/* A name: 1 to limit bytes of printable UTF-8. */
edgellm_status el_gguf_take_name(el_gguf_cursor *c, uint64_t limit, el_str *name);

/* Of a split file: fails with the name of the first part when this is a later one or is named so that the other
 * parts cannot be found. */
edgellm_status el_gguf_check_first(const el_gguf *file, const char *path);
/* The path of part `number` (from 0) beside the first; the caller frees it. */
edgellm_status el_gguf_part_path(const el_gguf *file, const char *path, uint32_t number, char **out);

/* Always fails: says what bytes that are not GGUF look like. */
edgellm_status el_gguf_not_gguf(const uint8_t *data, uint64_t n_bytes, const char *file);

bool el_gguf_type_removed(uint32_t type);
uint32_t el_gguf_value_bytes(uint32_t type);
const char *el_gguf_value_name(uint32_t type);

#endif
