/* piece_table.h - from bytes to the index of a string in an array: open addressing, filled once, read by any thread.
 * A slot is 8 bits of hash beside 24 bits of index: a miss seldom touches the strings, and the table of a vocabulary
 * of 262,144 is 2 MB. */
#ifndef EL_PIECE_TABLE_H
#define EL_PIECE_TABLE_H

#include "error.h"
#include "mem.h"

enum { EL_MAX_PIECES = (1 << 24) - 2 };

typedef struct el_piece_table {
    uint32_t *slots; /* 0: empty */
    size_t mask;     /* number of slots - 1, a power of two */
    size_t longest;  /* bytes of the longest string in it */
} el_piece_table;

/* Room for n strings, at most EL_MAX_PIECES. Errors: ENOMEM. */
edgellm_status el_piece_table_new(el_piece_table *table, size_t n);
void el_piece_table_free(el_piece_table *table);

/* Adds strings 0 to n-1 but the empty ones, those longer than max_length and those with marks[i] & mask (marks may be
 * NULL). Of equal strings the first stays. Errors: EFORMAT when thousands collide: the file is hostile; `what` names
 * its strings. */
edgellm_status el_piece_table_fill(el_piece_table *table, const el_str *strings, size_t n, size_t max_length,
                                   const uint8_t *marks, uint8_t mask, const char *what);
void el_piece_table_remove(el_piece_table *table, const el_str *strings, uint32_t index);

/* The index, or -1. */
int32_t el_piece_table_find(const el_piece_table *table, const el_str *strings, const char *data, size_t n);

#endif
