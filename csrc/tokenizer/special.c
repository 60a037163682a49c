/* special.c - a trie and the walk that chooses among overlapping matches. */
#include "special.h"

#include <string.h>

void el_specials_free(el_specials *s)
{
    el_free(s->nodes);
    memset(s, 0, sizeof *s);
}

static edgellm_status new_node(el_specials *s, uint8_t byte, uint32_t *out)
{
    if (s->n_nodes + 1 >= s->room) {
        uint32_t room = s->room ? s->room * 2 : 256;
        el_special_node *nodes;

        if (s->room > UINT32_MAX / 4)
            return el_no_memory(SIZE_MAX);
        nodes = el_realloc(s->nodes, room, sizeof *nodes);
        if (!nodes)
            return el_no_memory(room * sizeof *nodes);
        s->nodes = nodes;
        s->room = room;
    }
    *out = ++s->n_nodes;
    s->nodes[*out] = (el_special_node){0, 0, -1, byte, false};
    return EDGELLM_OK;
}

/* The link (root or child field) below `at` that leads to `byte`, or ends in 0. */
static uint32_t *link_of(el_specials *s, uint32_t at, uint8_t byte)
{
    uint32_t *link;

    if (at == 0)
        return &s->root[byte];
    link = &s->nodes[at].child;
    while (*link && s->nodes[*link].byte != byte)
        link = &s->nodes[*link].sibling;
    return link;
}

edgellm_status el_specials_add(el_specials *s, el_str piece, int32_t token, bool is_user)
{
    uint32_t at = 0;

    if (piece.n == 0)
        return EDGELLM_OK;
    for (size_t i = 0; i < piece.n; i++) {
        uint32_t next = *link_of(s, at, (uint8_t)piece.data[i]);

        if (!next) {
            edgellm_status status = new_node(s, (uint8_t)piece.data[i], &next);

            if (status != EDGELLM_OK)
                return status;
            *link_of(s, at, (uint8_t)piece.data[i]) = next; /* again: the nodes may have moved */
        }
        at = next;
    }
    if (s->nodes[at].token < 0) {
        s->nodes[at].token = token;
        s->nodes[at].is_user = is_user;
        s->first_any[(uint8_t)piece.data[0]] = true;
        s->first_user[(uint8_t)piece.data[0]] |= is_user;
        s->longest_any = EL_MAX(s->longest_any, piece.n);
        s->longest_user = is_user ? EL_MAX(s->longest_user, piece.n) : s->longest_user;
    }
    return EDGELLM_OK;
}

static uint32_t step(const el_specials *s, uint32_t at, uint8_t byte)
{
    at = s->nodes[at].child;
    while (at && s->nodes[at].byte != byte)
        at = s->nodes[at].sibling;
    return at;
}

static uint32_t node_of(const el_specials *s, const char *text, size_t n)
{
    uint32_t at = n ? s->root[(uint8_t)text[0]] : 0;

    for (size_t i = 1; at && i < n; i++)
        at = step(s, at, (uint8_t)text[i]);
    return at;
}

int32_t el_specials_find(const el_specials *s, const char *text, size_t n)
{
    uint32_t at = node_of(s, text, n);

    return at ? s->nodes[at].token : -1;
}

void el_specials_demote(el_specials *s, el_str piece)
{
    uint32_t at = node_of(s, piece.data, piece.n);

    if (at)
        s->nodes[at].is_user = false;
}

void el_special_walk_init(el_special_walk *walk, const el_specials *specials, const char *text, size_t n, bool parse)
{
    *walk = (el_special_walk){specials, text, n, 0, parse, NULL, 0, 0};
}

void el_special_walk_free(el_special_walk *walk)
{
    el_free(walk->held);
    walk->held = NULL;
}

/* The longest match at `start` that ends by `limit`. */
static el_match longest_at(const el_special_walk *walk, size_t start, size_t limit)
{
    const el_specials *s = walk->specials;
    el_match best = {start, 0, -1};
    uint32_t at = s->root[(uint8_t)walk->text[start]];

    for (size_t i = start + 1; at; i++) {
        const el_special_node *node = &s->nodes[at];

        if (node->token >= 0 && (walk->parse || node->is_user))
            best = (el_match){start, i - start, node->token};
        if (i == limit)
            break;
        at = step(s, at, (uint8_t)walk->text[i]);
    }
    return best;
}

static el_match first_match(const el_special_walk *walk, size_t from, size_t limit)
{
    const bool *first = walk->parse ? walk->specials->first_any : walk->specials->first_user;

    for (size_t i = from; i < limit; i++)
        if (first[(uint8_t)walk->text[i]]) {
            el_match match = longest_at(walk, i, limit);

            if (match.n)
                return match;
        }
    return (el_match){limit, 0, -1};
}

static edgellm_status hold(el_special_walk *walk, el_match match)
{
    if (walk->n_held == walk->room) {
        size_t room = walk->room ? walk->room * 2 : 8;
        el_match *held = el_realloc(walk->held, room, sizeof *held);

        if (!held)
            return el_no_memory(room * sizeof *held);
        walk->held = held;
        walk->room = room;
    }
    walk->held[walk->n_held++] = match;
    return EDGELLM_OK;
}

/* A match stands when no longer one starts inside it. If one does, that one (and so on) stands first, is held, and
 * the text before it is searched again with less room. Each held match is longer than the one it displaced, so there
 * are never more of them than lengths of tokens. */
edgellm_status el_special_walk_next(el_special_walk *walk, el_match *match)
{
    const bool *first = walk->parse ? walk->specials->first_any : walk->specials->first_user;
    size_t longest = walk->parse ? walk->specials->longest_any : walk->specials->longest_user;

    for (;;) {
        size_t limit = walk->n_held ? walk->held[walk->n_held - 1].start : walk->n;
        el_match found = first_match(walk, walk->at, limit), best = found;
        edgellm_status status;

        if (found.n == 0) {
            *match = walk->n_held ? walk->held[--walk->n_held] : found;
            walk->at = match->start + match->n;
            return EDGELLM_OK;
        }
        for (size_t i = found.start + 1; i < best.start + best.n && best.n < longest; i++)
            if (first[(uint8_t)walk->text[i]]) {
                el_match other = longest_at(walk, i, limit);

                if (other.n > best.n)
                    best = other;
            }
        if (best.start == found.start) {
            *match = found;
            walk->at = found.start + found.n;
            return EDGELLM_OK;
        }
        status = hold(walk, best);
        if (status != EDGELLM_OK)
            return status;
    }
}
