/* special.h - finds tokens that stand for themselves in a text: control tokens and user-defined ones.
 * The order is llama.cpp's (tokenizer_st_partition): of all matches in the text the longest goes first, then the
 * leftmost, then what is left is searched again. */
#ifndef EL_SPECIAL_H
#define EL_SPECIAL_H

#include "error.h"
#include "mem.h"

typedef struct el_special_node {
    uint32_t child, sibling; /* 0: none */
    int32_t token;           /* -1: no token ends here */
    uint8_t byte;
    bool is_user; /* matched in every text; the others only when asked for */
} el_special_node;

typedef struct el_specials { /* a trie; node 0 is unused, roots are found by byte */
    el_special_node *nodes;
    uint32_t n_nodes, room;
    uint32_t root[256];
    bool first_user[256], first_any[256]; /* can a match start with this byte? */
    size_t longest_user, longest_any;     /* bytes of the longest piece */
} el_specials;

void el_specials_free(el_specials *s);

/* Of two tokens with the same bytes the first stays. Errors: ENOMEM. */
edgellm_status el_specials_add(el_specials *s, el_str piece, int32_t token, bool is_user);
/* A user-defined token that turns out to be a control token. */
void el_specials_demote(el_specials *s, el_str piece);
int32_t el_specials_find(const el_specials *s, const char *text, size_t n); /* of all of these bytes, or -1 */

typedef struct el_match {
    size_t start, n; /* n 0: no match, start is the end of the text */
    int32_t token;
} el_match;

/* One walk over a text: el_specials_next gives matches from left to right. */
typedef struct el_special_walk {
    const el_specials *specials;
    const char *text;
    size_t n, at;
    bool parse;     /* control tokens too */
    el_match *held; /* chosen, with text before them still to search; the nearest last */
    size_t n_held, room;
} el_special_walk;

void el_special_walk_init(el_special_walk *walk, const el_specials *specials, const char *text, size_t n, bool parse);
void el_special_walk_free(el_special_walk *walk);
/* Errors: ENOMEM. */
edgellm_status el_special_walk_next(el_special_walk *walk, el_match *match);

#endif
