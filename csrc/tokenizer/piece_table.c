/* piece_table.c - see the header. */
#include "piece_table.h"

#include <string.h>

/* Sound vocabularies need fewer than 100 steps; a file made to collide would cost n * n / 2 without a limit. */
enum { MAX_STEPS = 2048 };
#define REMOVED UINT32_MAX

static uint64_t load64(const char *s)
{
    uint64_t v;
    memcpy(&v, s, sizeof v);
    return v;
}

static uint64_t load32(const char *s)
{
    uint32_t v;
    memcpy(&v, s, sizeof v);
    return v;
}

static uint64_t mix(uint64_t h)
{
    h *= 0x9E3779B97F4A7C15u;
    return h ^ h >> 32;
}

/* Whole words with an overlapping last one: pieces are short, a loop over bytes costs three times as much. */
static uint32_t hash(const char *s, size_t n)
{
    uint64_t h = (uint64_t)n * 0xA0761D6478BD642Fu;

    if (n >= 8) {
        for (size_t i = 0; i + 8 < n; i += 8)
            h = mix(h ^ load64(s + i));
        h ^= load64(s + n - 8);
    } else if (n >= 4) {
        h ^= load32(s) | load32(s + n - 4) << 32;
    } else if (n > 0) {
        h ^= (uint64_t)(uint8_t)s[0] | (uint64_t)(uint8_t)s[n / 2] << 8 | (uint64_t)(uint8_t)s[n - 1] << 16;
    }
    h = mix(mix(h));
    return (uint32_t)(h >> 32 ^ h);
}

edgellm_status el_piece_table_new(el_piece_table *table, size_t n)
{
    uint64_t n_slots = 16;

    while (n_slots / 2 < n)
        n_slots *= 2;
    *table = (el_piece_table){NULL, n_slots - 1, 0};
    if (n_slots > SIZE_MAX / sizeof *table->slots)
        return el_no_memory(n);
    table->slots = el_alloc((size_t)n_slots, sizeof *table->slots);
    return table->slots ? EDGELLM_OK : el_no_memory((size_t)n_slots * sizeof *table->slots);
}

void el_piece_table_free(el_piece_table *table)
{
    el_free(table->slots);
    *table = (el_piece_table){NULL, 0, 0};
}

/* The slot of the string, or the empty one where it would go; NULL after MAX_STEPS. */
static uint64_t *find_slot(const el_piece_table *table, const el_str *strings, const char *data, size_t n, uint32_t tag)
{
    uint64_t at = tag & table->mask;

    for (int step = 0; step < MAX_STEPS; step++, at = (at + 1) & table->mask) {
        uint64_t slot = table->slots[at];
        uint32_t index = (uint32_t)slot - 1;

        if (slot == 0)
            return &table->slots[at];
        if ((uint32_t)(slot >> 32) == tag && (uint32_t)slot != REMOVED && strings[index].n == n &&
            memcmp(strings[index].data, data, n) == 0)
            return &table->slots[at];
    }
    return NULL;
}

el_piece_added el_piece_table_add(el_piece_table *table, const el_str *strings, uint32_t index)
{
    el_str s = strings[index];
    uint32_t tag = hash(s.data, s.n);
    uint64_t *slot = find_slot(table, strings, s.data, s.n, tag);

    if (!slot)
        return EL_PIECE_CROWDED;
    if (*slot)
        return EL_PIECE_TWICE;
    *slot = (uint64_t)tag << 32 | (index + 1);
    table->longest = EL_MAX(table->longest, s.n);
    return EL_PIECE_NEW;
}

void el_piece_table_remove(el_piece_table *table, const el_str *strings, uint32_t index)
{
    el_str s = strings[index];
    uint64_t *slot = find_slot(table, strings, s.data, s.n, hash(s.data, s.n));

    if (slot && (uint32_t)*slot == index + 1)
        *slot |= REMOVED;
}

int32_t el_piece_table_find(const el_piece_table *table, const el_str *strings, const char *data, size_t n)
{
    const uint64_t *slot;

    if (n > table->longest || n == 0)
        return -1;
    slot = find_slot(table, strings, data, n, hash(data, n));
    return slot && *slot ? (int32_t)((uint32_t)*slot - 1) : -1;
}
