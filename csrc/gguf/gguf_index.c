/* gguf_index.c - a hash table from names to numbers (open addressing, linear probing, at most half full).
 * Hash: FNV-1a, 64 bits (Fowler, Noll, Vo), with a final mix because only the low bits pick a slot.
 * A file can choose its names to collide, which would make building quadratic: after MAX_PROBES steps, thousands of
 * times what 131,072 honest names ever need, the file is refused instead. */
#include "gguf_internal.h"

enum { MAX_PROBES = 512, MAX_SAME_HASH = 8 };

static uint64_t hash_name(const char *s, size_t n)
{
    uint64_t h = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * UINT64_C(1099511628211);
    h = (h ^ h >> 32) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ h >> 29;
}

static el_str name_of(const el_gguf_index *index, size_t i)
{
    el_str name;

    memcpy(&name, index->items + i * index->stride, sizeof name);
    return name;
}

/* Walks the chain of a name. Returns its item, or EL_GGUF_ABSENT with *slot the free place (SIZE_MAX: too long). */
static size_t probe(const el_gguf_index *index, const char *name, size_t n, uint64_t hash, uint64_t *slot)
{
    int same_hash = 0;

    *slot = hash & index->mask;
    for (int step = 0; step < MAX_PROBES && same_hash < MAX_SAME_HASH; step++) {
        uint64_t entry = index->slots[*slot];

        if (!entry)
            return EL_GGUF_ABSENT;
        if (entry >> 32 == hash >> 32) {
            el_str other = name_of(index, (size_t)(uint32_t)entry - 1);

            if (other.n == n && memcmp(other.data, name, n) == 0)
                return (size_t)(uint32_t)entry - 1;
            same_hash++;
        }
        *slot = (*slot + 1) & index->mask;
    }
    *slot = UINT64_MAX;
    return EL_GGUF_ABSENT;
}

edgellm_status el_gguf_index_build(el_gguf_index *index, const void *items, size_t n, size_t stride, const char *file,
                                   const char *noun)
{
    size_t n_slots = 8;

    while (n_slots < 2 * n)
        n_slots *= 2;
    index->items = items;
    index->stride = stride;
    index->mask = n_slots - 1;
    index->slots = el_alloc(n_slots, sizeof *index->slots);
    if (!index->slots)
        return el_no_memory(n_slots * sizeof *index->slots);
    for (size_t i = 0; i < n; i++) {
        el_str name = name_of(index, i);
        uint64_t hash = hash_name(name.data, name.n);
        uint64_t slot;
        size_t twin = probe(index, name.data, name.n, hash, &slot);

        if (twin != EL_GGUF_ABSENT)
            return el_fail(EDGELLM_EFORMAT, "%.200s: %s '%s' appears twice (as number %zu and number %zu)", file, noun,
                           el_gguf_quoted(name).text, twin + 1, i + 1);
        if (slot == UINT64_MAX)
            return el_fail(EDGELLM_EFORMAT,
                           "%.200s: the %ss around '%s' are chosen to collide in a hash table; the file is hostile",
                           file, noun, el_gguf_quoted(name).text);
        index->slots[slot] = (hash & ~UINT64_C(0xFFFFFFFF)) | (uint64_t)(i + 1);
    }
    return EDGELLM_OK;
}

size_t el_gguf_index_find(const el_gguf_index *index, const char *name, size_t n)
{
    uint64_t slot;

    return index->slots ? probe(index, name, n, hash_name(name, n), &slot) : EL_GGUF_ABSENT;
}
