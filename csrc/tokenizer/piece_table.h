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

typedef enum el_piece_added {
    EL_PIECE_NEW,
    EL_PIECE_TWICE,  /* an equal string is there already and stays */
    EL_PIECE_CROWDED /* strings made to collide: the file is hostile */
} el_piece_added;
/* Fetches the slot that `string` will need: call it some strings ahead of el_piece_table_add. */
void el_piece_table_hint(const el_piece_table *table, el_str string);
enum { EL_PIECES_AHEAD = 12 };

el_piece_added el_piece_table_add(el_piece_table *table, const el_str *strings, uint32_t index);
void el_piece_table_remove(el_piece_table *table, const el_str *strings, uint32_t index);

/* The index, or -1. */
int32_t el_piece_table_find(const el_piece_table *table, const el_str *strings, const char *data, size_t n);

#endif
