/* piece_table.c - see the header. */
#include "piece_table.h"

#include <string.h>

/* Sound vocabularies need fewer than 100 steps; a file made to collide would cost n * n / 2 without a limit. */
enum { MAX_STEPS = 2048 };
enum { INDEX = 0xFFFFFF, REMOVED = INDEX }; /* in the lower bits; the index of a piece is one less */

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
    return (uint32_t)(mix(mix(h)) >> 32); /* the upper half of a product depends on all of its bits */
}

edgellm_status el_piece_table_new(el_piece_table *table, size_t n)
{
    size_t n_slots = 16;

    while (n_slots / 5 * 3 < n)
        n_slots *= 2;
    *table = (el_piece_table){el_alloc(n_slots, sizeof *table->slots), n_slots - 1, 0};
    return table->slots ? EDGELLM_OK : el_no_memory(n_slots * sizeof *table->slots);
}

void el_piece_table_free(el_piece_table *table)
{
    el_free(table->slots);
    *table = (el_piece_table){NULL, 0, 0};
}

/* The slot of the string, or the empty one where it would go; NULL after MAX_STEPS. */
static uint32_t *find_slot(const el_piece_table *table, const el_str *strings, const char *data, size_t n, uint32_t h)
{
    size_t at = h & table->mask;

    for (int step = 0; step < MAX_STEPS; step++, at = (at + 1) & table->mask) {
        uint32_t slot = table->slots[at], index = (slot & INDEX) - 1;

        if (slot == 0)
            return &table->slots[at];
        if (((slot ^ h) & ~(uint32_t)INDEX) == 0 && (slot & INDEX) != REMOVED && strings[index].n == n &&
            memcmp(strings[index].data, data, n) == 0)
            return &table->slots[at];
    }
    return NULL;
}

static bool add(el_piece_table *table, const el_str *strings, size_t index, uint32_t h)
{
    uint32_t *slot = find_slot(table, strings, strings[index].data, strings[index].n, h);

    if (slot && !*slot)
        *slot = (h & ~(uint32_t)INDEX) | (uint32_t)(index + 1);
    table->longest = EL_MAX(table->longest, strings[index].n);
    return slot != NULL;
}

static void fetch(const el_piece_table *table, uint32_t h)
{
#if defined(__GNUC__)
    __builtin_prefetch(&table->slots[h & table->mask], 1);
#else
    (void)table;
    (void)h;
#endif
}

/* In groups: the slots of a whole group are on their way from memory before the first is needed (half the time). */
edgellm_status el_piece_table_fill(el_piece_table *table, const el_str *strings, size_t n, size_t max_length,
                                   const uint8_t *marks, uint8_t mask, const char *what)
{
    enum { GROUP = 16 };

    for (size_t first = 0; first < n; first += GROUP) {
        uint32_t hashes[GROUP];
        size_t index[GROUP];
        int used = 0;

        for (size_t i = first; i < n && i < first + GROUP; i++)
            if (strings[i].n > 0 && strings[i].n <= max_length && !(marks && marks[i] & mask)) {
                index[used] = i;
                hashes[used] = hash(strings[i].data, strings[i].n);
                fetch(table, hashes[used++]);
            }
        for (int k = 0; k < used; k++)
            if (!add(table, strings, index[k], hashes[k]))
                return el_fail(EDGELLM_EFORMAT,
                               "%s %zu and %d before it share one hash; no sound vocabulary looks like this", what,
                               index[k], MAX_STEPS);
    }
    return EDGELLM_OK;
}

void el_piece_table_remove(el_piece_table *table, const el_str *strings, uint32_t index)
{
    el_str s = strings[index];
    uint32_t *slot = find_slot(table, strings, s.data, s.n, hash(s.data, s.n));

    if (slot && (*slot & INDEX) == index + 1)
        *slot |= REMOVED;
}

int32_t el_piece_table_find(const el_piece_table *table, const el_str *strings, const char *data, size_t n)
{
    const uint32_t *slot;

    if (n > table->longest || n == 0)
        return -1;
    slot = find_slot(table, strings, data, n, hash(data, n));
    return slot && *slot ? (int32_t)(*slot & INDEX) - 1 : -1;
}
