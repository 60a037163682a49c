/* test_kv_blocks.c - KV blocks: counts stay right through random growth and shrinkage, refusals change nothing. */
#include "kv_blocks.h"

#include <stdio.h>
#include <string.h>

static int failures;

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("%s:%d: expected %s\n", __FILE__, __LINE__, #condition);                                            \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

static void test_lowest_first_and_slots(void)
{
    el_blocks b;
    el_block_table one = {0}, two = {0};

    EXPECT(el_blocks_init(&b, 4) == EDGELLM_OK);
    EXPECT(el_blocks_used_slots(&b) == 0);
    EXPECT(el_blocks_grow(&b, &one, 1) == EDGELLM_OK);
    EXPECT(el_blocks_grow(&b, &two, 33) == EDGELLM_OK);
    EXPECT(one.ids[0] == 0 && two.ids[0] == 1 && two.ids[1] == 2);
    EXPECT(el_block_slot(&two, 32) == 64 && el_blocks_used_slots(&b) == 96);
    el_block_table_clear(&b, &one);
    EXPECT(el_blocks_grow(&b, &two, 65) == EDGELLM_OK && two.ids[2] == 0);
    el_blocks_shrink(&b, &two, 64);
    EXPECT(two.n == 2 && b.n_free == 2 && el_blocks_check(&b, &two, 1));
    el_block_table_clear(&b, &two);
    el_blocks_clear(&b);
}

static void test_full_changes_nothing(void)
{
    el_blocks b;
    el_block_table one = {0}, two = {0};

    EXPECT(el_blocks_init(&b, 3) == EDGELLM_OK);
    EXPECT(el_blocks_grow(&b, &one, 64) == EDGELLM_OK);
    EXPECT(el_blocks_grow(&b, &two, 33) == EDGELLM_EFULL && two.n == 0 && b.n_free == 1);
    EXPECT(strstr(el_error_text(), "1 of 3") != NULL);
    el_test_fail_after(1);
    EXPECT(el_blocks_grow(&b, &two, 32) == EDGELLM_ENOMEM && two.n == 0 && b.n_free == 1);
    el_test_fail_after(-1);
    EXPECT(el_blocks_grow(&b, &two, 32) == EDGELLM_OK);
    el_block_table_clear(&b, &one);
    el_block_table_clear(&b, &two);
    EXPECT(b.n_free == 3);
    el_blocks_clear(&b);
}

static void test_random_walk(void)
{
    enum { TABLES = 6 };
    el_blocks b;
    el_block_table tables[TABLES] = {{0}};
    uint32_t random = 1;

    EXPECT(el_blocks_init(&b, 40) == EDGELLM_OK);
    for (int step = 0; step < 20000; step++) {
        random = random * 1664525u + 1013904223u;
        el_block_table *t = &tables[(random >> 8) % TABLES];
        int32_t n_tokens = (int32_t)(random >> 16) % 500;
        if (n_tokens > t->n * EL_BLOCK_TOKENS)
            el_blocks_grow(&b, t, n_tokens);
        else
            el_blocks_shrink(&b, t, n_tokens);
        if (!el_blocks_check(&b, tables, TABLES)) {
            EXPECT(!"consistent after every step");
            break;
        }
    }
    for (int i = 0; i < TABLES; i++)
        el_block_table_clear(&b, &tables[i]);
    EXPECT(b.n_free == b.n_blocks);
    el_blocks_clear(&b);
}

int main(void)
{
    test_lowest_first_and_slots();
    test_full_changes_nothing();
    test_random_walk();
    return failures != 0;
}
