/* pair_merge.c - see the header. */
#include "pair_merge.h"

#include <string.h>

enum { FAN = 16, MAX_LEVELS = 9 }; /* 16^8 symbols is more than 32 bits count */

typedef struct tree {
    uint32_t *level[MAX_LEVELS];
    size_t n[MAX_LEVELS]; /* rounded up to whole nodes */
    int n_levels;
} tree;

static size_t whole_nodes(size_t n) { return (n + FAN - 1) / FAN * FAN; }

/* Level 0 is the pairs' keys; each further level has one entry for 16 of the level below; the last is one node. */
static size_t tree_shape(tree *t, uint32_t *keys, size_t n)
{
    size_t used = 0;

    t->n_levels = 0;
    do {
        t->level[t->n_levels] = keys ? keys + used : NULL;
        t->n[t->n_levels] = whole_nodes(n);
        used += t->n[t->n_levels++];
        n = (n + FAN - 1) / FAN;
    } while (n > 1);
    return used;
}

static uint32_t node_min(const uint32_t *node)
{
    uint32_t low = node[0];

    for (int i = 1; i < FAN; i++)
        low = EL_MIN(low, node[i]);
    return low;
}

static void tree_fill(tree *t, size_t n)
{
    for (int k = 0; k < t->n_levels; k++) {
        if (k > 0)
            for (size_t i = 0; i < n; i++)
                t->level[k][i] = node_min(t->level[k - 1] + i * FAN);
        for (size_t i = n; i < t->n[k]; i++)
            t->level[k][i] = EL_NO_PAIR;
        n = (n + FAN - 1) / FAN;
    }
}

static void tree_set(tree *t, size_t at, uint32_t key)
{
    t->level[0][at] = key;
    for (int k = 1; k < t->n_levels; k++) {
        uint32_t low;

        at /= FAN;
        low = node_min(t->level[k - 1] + at * FAN);
        if (t->level[k][at] == low)
            return;
        t->level[k][at] = low;
    }
}

/* The leftmost pair with the lowest key, or SIZE_MAX when no pair can be joined. */
static size_t tree_best(const tree *t)
{
    const uint32_t *top = t->level[t->n_levels - 1];
    uint32_t low = node_min(top);
    size_t at = 0;

    if (low == EL_NO_PAIR)
        return SIZE_MAX;
    for (int k = t->n_levels - 1; k >= 0; k--) {
        at *= FAN;
        while (t->level[k][at] != low)
            at++;
    }
    return at;
}

edgellm_status el_merger_init(el_merger *merger, el_pair_fn *lookup, const void *context, size_t n_bytes)
{
    size_t n_cache = 64;

    memset(merger, 0, sizeof *merger);
    merger->lookup = lookup;
    merger->context = context;
    while (n_cache < n_bytes && n_cache < 16384) /* 256 KB at most: stays in the second-level cache */
        n_cache *= 2;
    merger->cache = el_alloc(n_cache, sizeof *merger->cache);
    if (!merger->cache)
        return el_no_memory(n_cache * sizeof *merger->cache);
    memset(merger->cache, 0xFF, n_cache * sizeof *merger->cache);
    merger->cache_mask = n_cache - 1;
    return EDGELLM_OK;
}

static void free_symbols(el_merger *merger)
{
    el_free(merger->offset);
    el_free(merger->id);
    el_free(merger->next);
    el_free(merger->previous);
    el_free(merger->made);
    el_free(merger->keys);
    merger->offset = merger->next = merger->previous = merger->keys = NULL;
    merger->id = merger->made = NULL;
    merger->room = 0;
}

void el_merger_free(el_merger *merger)
{
    free_symbols(merger);
    el_free(merger->cache);
    merger->cache = NULL;
}

edgellm_status el_merger_reserve(el_merger *merger, size_t n)
{
    tree shape;
    size_t room = EL_MAX(n, 256);

    if (n <= merger->room)
        return EDGELLM_OK;
    free_symbols(merger);
    merger->offset = el_alloc(room + 1, sizeof *merger->offset);
    merger->id = el_alloc(room, sizeof *merger->id);
    merger->next = el_alloc(room, sizeof *merger->next);
    merger->previous = el_alloc(room, sizeof *merger->previous);
    merger->made = el_alloc(room, sizeof *merger->made);
    merger->keys = el_alloc(tree_shape(&shape, NULL, room), sizeof *merger->keys);
    if (!merger->offset || !merger->id || !merger->next || !merger->previous || !merger->made || !merger->keys) {
        free_symbols(merger);
        return el_no_memory(room * 6 * sizeof(uint32_t));
    }
    merger->room = room;
    return EDGELLM_OK;
}

/* Key of joining symbol i with the one after it; made[i] gets the id. */
static uint32_t pair_key(el_merger *m, size_t i, size_t n)
{
    size_t j = m->next[i];
    uint32_t start = m->offset[i], middle, end;
    el_pair_entry *entry = NULL;
    uint32_t key;

    if (j == n)
        return EL_NO_PAIR;
    middle = m->offset[j];
    end = m->offset[m->next[j]];
    if (m->id[i] >= 0 && m->id[j] >= 0) {
        uint32_t mixed = (uint32_t)m->id[i] * 0x9E3779B1u ^ (uint32_t)m->id[j] * 0x85EBCA77u;

        entry = &m->cache[(mixed ^ mixed >> 15) & m->cache_mask];
        if (entry->left == m->id[i] && entry->right == m->id[j]) {
            m->made[i] = entry->made;
            return entry->key;
        }
    }
    key = m->lookup(m->context, m->text + start, middle - start, end - middle, &m->made[i]);
    if (entry)
        *entry = (el_pair_entry){m->id[i], m->id[j], key, m->made[i]};
    return key;
}

void el_merger_run(el_merger *m, size_t n)
{
    tree t;
    size_t i;

    tree_shape(&t, m->keys, n);
    for (i = 0; i < n; i++) {
        m->next[i] = (uint32_t)i + 1;
        m->previous[i] = (uint32_t)i - 1;
    }
    for (i = 0; i < n; i++)
        m->keys[i] = pair_key(m, i, n);
    tree_fill(&t, n);

    while ((i = tree_best(&t)) != SIZE_MAX) {
        size_t gone = m->next[i], after = m->next[gone];

        m->id[i] = m->made[i];
        m->next[i] = (uint32_t)after;
        if (after < n)
            m->previous[after] = (uint32_t)i;
        tree_set(&t, gone, EL_NO_PAIR);
        tree_set(&t, i, pair_key(m, i, n));
        if (i > 0)
            tree_set(&t, m->previous[i], pair_key(m, m->previous[i], n));
    }
}
