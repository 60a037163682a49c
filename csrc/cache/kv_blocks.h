/* kv_blocks.h - which blocks of the KV pool belong to whom. Counts and numbers only: the memory itself is the engine's.
 * A block holds EL_BLOCK_TOKENS consecutive positions of one sequence and has a reference count, so that sequences can
 * share a prefix. Free blocks are handed out lowest first, which keeps the part of the pool that attention looks at
 * small. Idea: PagedAttention, Kwon et al. 2023, section 4. */
#ifndef EL_KV_BLOCKS_H
#define EL_KV_BLOCKS_H

#include "error.h"
#include "mem.h"

enum { EL_BLOCK_TOKENS = 32 };

typedef struct el_blocks {
    int32_t n_blocks;
    int32_t n_free;
    int32_t lowest_free; /* no block below it is free */
    uint16_t *refs;
} el_blocks;

typedef struct el_block_table { /* one sequence's blocks in position order */
    int32_t *ids;
    int32_t n;
    int32_t cap;
    int32_t first; /* those before it were given back; their ids are 0 */
} el_block_table;

edgellm_status el_blocks_init(el_blocks *b, int32_t n_blocks);
void el_blocks_clear(el_blocks *b);

/* Makes the table hold n_tokens positions. On failure (EFULL, ENOMEM) it is as before. */
edgellm_status el_blocks_grow(el_blocks *b, el_block_table *table, int32_t n_tokens);
/* Gives back what lies wholly before that position. */
void el_blocks_slide(el_blocks *b, el_block_table *table, int32_t position);
/* Makes `to`, which is empty, hold the same blocks as `from` now. On failure (ENOMEM) it stays empty. */
edgellm_status el_blocks_share(el_blocks *b, el_block_table *to, const el_block_table *from);
/* Gives back what n_tokens positions do not need. */
void el_blocks_shrink(el_blocks *b, el_block_table *table, int32_t n_tokens);
void el_block_table_clear(el_blocks *b, el_block_table *table);

/* Slots from 0 that hold every block in use: 0 when none is. */
int32_t el_blocks_used_slots(const el_blocks *b);

/* The pool slot of a position that the table holds. */
static inline int32_t el_block_slot(const el_block_table *table, int32_t position)
{
    return table->ids[position / EL_BLOCK_TOKENS] * EL_BLOCK_TOKENS + position % EL_BLOCK_TOKENS;
}

/* For tests: the counts agree with each other and with these tables. */
bool el_blocks_check(const el_blocks *b, const el_block_table *tables, size_t n_tables);

#endif
