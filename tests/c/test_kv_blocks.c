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

/* A window moves on; what another table still holds is not free. */
static void test_slide_and_share(void)
{
    el_blocks b;
    el_block_table one = {0}, two = {0};

    EXPECT(el_blocks_init(&b, 6) == EDGELLM_OK);
    EXPECT(el_blocks_grow(&b, &one, 100) == EDGELLM_OK);
    el_blocks_slide(&b, &one, 63);
    EXPECT(one.first == 1 && one.n == 4 && b.n_free == 3 && el_block_slot(&one, 64) == 64);
    EXPECT(el_blocks_share(&b, &two, &one) == EDGELLM_OK && two.first == 1 && two.n == 4 && b.n_free == 3);
    el_blocks_slide(&b, &one, 96);
    EXPECT(one.first == 3 && b.n_free == 3 && el_blocks_grow(&b, &one, 129) == EDGELLM_OK && one.ids[4] == 0);
    el_block_table_clear(&b, &one);
    EXPECT(b.n_free == 3);
    el_block_table_clear(&b, &two);
    EXPECT(b.n_free == 6 && el_blocks_check(&b, &one, 1));
    EXPECT(el_blocks_grow(&b, &one, 100) == EDGELLM_OK);
    el_blocks_slide(&b, &one, 1000); /* all of it */
    EXPECT(b.n_free == 6 && one.first == 4);
    el_blocks_shrink(&b, &one, 0);
    EXPECT(one.n == 0 && one.first == 0 && el_blocks_check(&b, &one, 1));
    el_block_table_clear(&b, &one);
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
        if (random >> 30 == 0)
            el_blocks_slide(&b, t, n_tokens / 2);
        else if (random >> 30 == 1 && t->n == 0)
            el_blocks_share(&b, t, &tables[random % TABLES]);
        else if (n_tokens > t->n * EL_BLOCK_TOKENS)
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
    test_slide_and_share();
    test_random_walk();
    return failures != 0;
}
