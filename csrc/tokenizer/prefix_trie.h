/* prefix_trie.h - which strings of a set begin at a place of a text. Nodes are numbered breadth first, so that the
 * children of a node stand together in the order of their bytes and a node costs nine bytes.
 * Idea: the level-ordered trees of Jacobson 1989, "Space-efficient static trees and graphs", without the bit vectors.
 */
#ifndef EL_PREFIX_TRIE_H
#define EL_PREFIX_TRIE_H

#include <string.h>

#include "error.h"
#include "mem.h"

enum { EL_TRIE_MAX_LENGTH = 1024 }; /* bytes of a string: what one step of a text may cost; real ones have up to 128 */

typedef struct el_trie_item {
    el_str text;
    int32_t id;
} el_trie_item;

typedef struct el_prefix_trie {
    uint32_t *first; /* n_nodes + 1: the children of node i are first[i] to first[i + 1] - 1 */
    uint8_t *bytes;  /* that lead to a node */
    int32_t *ids;    /* of the string that ends at a node, -1: none */
    size_t n_nodes;
} el_prefix_trie;

/* Sorts the items. Empty and overlong strings are left out; of equal strings that with the lowest id stays.
 * Errors: ENOMEM, EFORMAT (more than 2^26 nodes). */
edgellm_status el_prefix_trie_new(el_prefix_trie *trie, el_trie_item *items, size_t n);
void el_prefix_trie_free(el_prefix_trie *trie);

/* The node after one more byte, 0 when no string goes on so. Start with node 0. */
static inline uint32_t el_prefix_step(const el_prefix_trie *trie, uint32_t node, uint8_t byte)
{
    uint32_t first = trie->first[node], n = trie->first[node + 1] - first;
    const uint8_t *at;

    if (n == 0)
        return 0;
    at = memchr(trie->bytes + first, byte, n);
    return at ? (uint32_t)(at - trie->bytes) : 0;
}

/* Length of the longest string at text, 0 if none; *id gets its id. */
size_t el_prefix_longest(const el_prefix_trie *trie, const char *text, size_t n, int32_t *id);

#endif
