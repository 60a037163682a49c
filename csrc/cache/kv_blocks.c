/* kv_blocks.c - allocation of KV blocks by reference count, lowest first. */
#include "kv_blocks.h"

#include <string.h>

edgellm_status el_blocks_init(el_blocks *b, int32_t n_blocks)
{
    memset(b, 0, sizeof *b);
    b->refs = el_alloc((size_t)n_blocks, sizeof *b->refs);
    if (!b->refs)
        return el_no_memory((size_t)n_blocks * sizeof *b->refs);
    b->n_blocks = b->n_free = n_blocks;
    return EDGELLM_OK;
}

void el_blocks_clear(el_blocks *b)
{
    el_free(b->refs);
    memset(b, 0, sizeof *b);
}

static int32_t take_lowest(el_blocks *b)
{
    while (b->refs[b->lowest_free] != 0)
        b->lowest_free++;
    b->refs[b->lowest_free] = 1;
    b->n_free--;
    return b->lowest_free++;
}

static void release(el_blocks *b, int32_t id)
{
    if (--b->refs[id] > 0)
        return;
    b->n_free++;
    if (id < b->lowest_free)
        b->lowest_free = id;
}

static int32_t blocks_for(int32_t n_tokens)
{
    return (int32_t)(((int64_t)n_tokens + EL_BLOCK_TOKENS - 1) / EL_BLOCK_TOKENS);
}

static edgellm_status make_room(el_block_table *table, int32_t wanted)
{
    const int32_t cap = EL_MAX(wanted, table->cap * 2);
    int32_t *ids;

    if (wanted <= table->cap)
        return EDGELLM_OK;
    ids = el_realloc(table->ids, (size_t)cap, sizeof *ids);
    if (!ids)
        return el_no_memory((size_t)cap * sizeof *ids);
    table->ids = ids;
    table->cap = cap;
    return EDGELLM_OK;
}

edgellm_status el_blocks_grow(el_blocks *b, el_block_table *table, int32_t n_tokens)
{
    const int32_t wanted = blocks_for(n_tokens);
    edgellm_status status = EDGELLM_OK;

    if (wanted <= table->n)
        return EDGELLM_OK;
    if (wanted - table->n > b->n_free)
        return el_fail(EDGELLM_EFULL,
                       "the KV cache is full: %d more blocks of %d tokens are needed and %d of %d are free",
                       wanted - table->n, (int)EL_BLOCK_TOKENS, b->n_free, b->n_blocks);
    EL_TRY(make_room(table, wanted));
    while (table->n < wanted)
        table->ids[table->n++] = take_lowest(b);
done:
    return status;
}

void el_blocks_slide(el_blocks *b, el_block_table *table, int32_t position)
{
    for (; table->first < table->n && table->first < position / EL_BLOCK_TOKENS; table->first++) {
        release(b, table->ids[table->first]);
        table->ids[table->first] = 0;
    }
}

edgellm_status el_blocks_share(el_blocks *b, el_block_table *to, const el_block_table *from)
{
    edgellm_status status = EDGELLM_OK;

    EL_TRY(make_room(to, from->n));
    if (from->n > 0)
        memcpy(to->ids, from->ids, (size_t)from->n * sizeof *to->ids);
    to->n = from->n;
    to->first = from->first;
    for (int32_t i = to->first; i < to->n; i++)
        b->refs[to->ids[i]]++;
done:
    return status;
}

void el_blocks_shrink(el_blocks *b, el_block_table *table, int32_t n_tokens)
{
    while (table->n > blocks_for(n_tokens) && table->n > table->first)
        release(b, table->ids[--table->n]);
    table->n = EL_MIN(table->n, blocks_for(n_tokens));
    table->first = EL_MIN(table->first, table->n);
}

void el_block_table_clear(el_blocks *b, el_block_table *table)
{
    el_blocks_shrink(b, table, 0);
    el_free(table->ids);
    memset(table, 0, sizeof *table);
}

int32_t el_blocks_used_slots(const el_blocks *b)
{
    int32_t last = b->n_blocks;

    while (last > 0 && b->refs[last - 1] == 0)
        last--;
    return last * EL_BLOCK_TOKENS;
}

bool el_blocks_check(const el_blocks *b, const el_block_table *tables, size_t n_tables)
{
    int64_t references = 0, held = 0;
    int32_t n_free = 0;

    for (int32_t i = 0; i < b->n_blocks; i++) {
        references += b->refs[i];
        n_free += b->refs[i] == 0;
        if (b->refs[i] == 0 && i < b->lowest_free)
            return false;
    }
    for (size_t t = 0; t < n_tables; t++) {
        held += tables[t].n - tables[t].first;
        for (int32_t i = tables[t].first; i < tables[t].n; i++)
            if (tables[t].ids[i] < 0 || tables[t].ids[i] >= b->n_blocks || b->refs[tables[t].ids[i]] == 0)
                return false;
    }
    return references == held && n_free == b->n_free;
}
