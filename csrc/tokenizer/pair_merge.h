/* pair_merge.h - the loop at the heart of both kinds of BPE: join the best pair of neighbours until none is left.
 * Which pair is best is the caller's: a lookup gives each pair a key, the lowest key goes first, among equal keys the
 * leftmost. A tree of minima, 16 children a node, keeps that O(n log n) for words of any length; a word of up to 16
 * symbols is one node, so the usual case is a plain scan. (A heap needs room for outdated entries and misses the
 * cache on every step; the tree's nodes are one cache line each and neighbours share them.) */
#ifndef EL_PAIR_MERGE_H
#define EL_PAIR_MERGE_H

#include "error.h"
#include "mem.h"

#define EL_NO_PAIR UINT32_MAX

/* Key of joining text[0 .. n_left) with the n_right bytes after it, and the id of the result (-1: it has none). */
typedef uint32_t el_pair_fn(const void *context, const char *text, size_t n_left, size_t n_right, int32_t *made);

typedef struct el_pair_entry {
    int32_t left, right; /* ids; left is -1 in an empty entry */
    uint32_t key;
    int32_t made;
} el_pair_entry;

typedef struct el_merger {
    el_pair_fn *lookup;
    const void *context;
    /* One entry a symbol, n symbols; the caller fills offset (n + 1 of them, into text) and id (-1: not a piece). */
    const char *text;
    uint32_t *offset;
    int32_t *id;
    uint32_t *next; /* after el_merger_run: the symbol that follows, n after the last */
    uint32_t *previous;
    int32_t *made;  /* id of the pair that starts here */
    uint32_t *keys; /* of that pair, then the levels of the tree above */
    size_t room;
    el_pair_entry *cache; /* of lookups by ids, direct-mapped */
    size_t cache_mask;
} el_merger;

/* n_bytes: of the text that will go through, to choose the size of the cache. Errors: ENOMEM. */
edgellm_status el_merger_init(el_merger *merger, el_pair_fn *lookup, const void *context, size_t n_bytes);
void el_merger_free(el_merger *merger);

/* Room for n symbols (contents are lost). Errors: ENOMEM. */
edgellm_status el_merger_reserve(el_merger *merger, size_t n);

/* Joins; symbols left are 0, next[0], ... and each spans offset[i] to offset[next[i]]. n > 0. */
void el_merger_run(el_merger *merger, size_t n);

#endif
