/* prefix_trie.c - see the header. */
#include "prefix_trie.h"

#include <stdlib.h>

enum { MAX_NODES = 1 << 26 };

typedef struct span { /* of the sorted items: those that begin with a node's bytes */
    uint32_t from, to, depth;
} span;

static int compare(const void *a, const void *b)
{
    const el_trie_item *x = a, *y = b;
    int order = memcmp(x->text.data, y->text.data, EL_MIN(x->text.n, y->text.n));

    if (order == 0 && x->text.n != y->text.n)
        order = x->text.n < y->text.n ? -1 : 1;
    return order ? order : (x->id > y->id) - (x->id < y->id);
}

static size_t drop_unusable(el_trie_item *items, size_t n)
{
    size_t used = 0;

    for (size_t i = 0; i < n; i++)
        if (items[i].text.n > 0 && items[i].text.n <= EL_TRIE_MAX_LENGTH)
            items[used++] = items[i];
    return used;
}

static edgellm_status reserve(el_prefix_trie *trie, span **spans, size_t *room, size_t n)
{
    size_t more = EL_MAX(2 * *room, 1024);
    void *p;

    if (n + 1 < *room)
        return EDGELLM_OK;
    if (n >= MAX_NODES)
        return el_fail(EDGELLM_EFORMAT, "the vocabulary's pieces need more than %d nodes of a trie; no sound one does",
                       MAX_NODES);
    if (!(p = el_realloc(trie->first, more, sizeof *trie->first)))
        return el_no_memory(more * sizeof *trie->first);
    trie->first = p;
    if (!(p = el_realloc(trie->bytes, more, 1)))
        return el_no_memory(more);
    trie->bytes = p;
    if (!(p = el_realloc(trie->ids, more, sizeof *trie->ids)))
        return el_no_memory(more * sizeof *trie->ids);
    trie->ids = p;
    if (!(p = el_realloc(*spans, more, sizeof **spans)))
        return el_no_memory(more * sizeof **spans);
    *spans = p;
    *room = more;
    return EDGELLM_OK;
}

/* Adds the children of one node; the items that end at it come first in its span. */
static edgellm_status add_children(el_prefix_trie *trie, span **spans, size_t *room, const el_trie_item *items,
                                   size_t node)
{
    span s = (*spans)[node];

    trie->first[node] = (uint32_t)trie->n_nodes;
    while (s.from < s.to && items[s.from].text.n == s.depth) {
        if (trie->ids[node] < 0)
            trie->ids[node] = items[s.from].id;
        s.from++;
    }
    while (s.from < s.to) {
        uint8_t byte = (uint8_t)items[s.from].text.data[s.depth];
        uint32_t to = s.from + 1;
        edgellm_status status = reserve(trie, spans, room, trie->n_nodes);

        if (status != EDGELLM_OK)
            return status;
        while (to < s.to && (uint8_t)items[to].text.data[s.depth] == byte)
            to++;
        trie->bytes[trie->n_nodes] = byte;
        trie->ids[trie->n_nodes] = -1;
        (*spans)[trie->n_nodes++] = (span){s.from, to, s.depth + 1};
        s.from = to;
    }
    return EDGELLM_OK;
}

edgellm_status el_prefix_trie_new(el_prefix_trie *trie, el_trie_item *items, size_t n)
{
    edgellm_status status = EDGELLM_OK;
    span *spans = NULL;
    size_t room = 0;

    *trie = (el_prefix_trie){0};
    n = drop_unusable(items, n);
    if (n)
        qsort(items, n, sizeof *items, compare);
    EL_TRY(reserve(trie, &spans, &room, 0));
    spans[0] = (span){0, (uint32_t)n, 0};
    trie->bytes[0] = 0;
    trie->ids[0] = -1;
    trie->n_nodes = 1;
    for (size_t node = 0; node < trie->n_nodes; node++)
        EL_TRY(add_children(trie, &spans, &room, items, node));
    trie->first[trie->n_nodes] = (uint32_t)trie->n_nodes;
done:
    el_free(spans);
    if (status != EDGELLM_OK)
        el_prefix_trie_free(trie);
    return status;
}

void el_prefix_trie_free(el_prefix_trie *trie)
{
    el_free(trie->first);
    el_free(trie->bytes);
    el_free(trie->ids);
    *trie = (el_prefix_trie){0};
}

size_t el_prefix_longest(const el_prefix_trie *trie, const char *text, size_t n, int32_t *id)
{
    size_t longest = 0;
    uint32_t node = 0;

    for (size_t i = 0; i < n && (node = el_prefix_step(trie, node, (uint8_t)text[i])); i++)
        if (trie->ids[node] >= 0) {
            longest = i + 1;
            *id = trie->ids[node];
        }
    return longest;
}
