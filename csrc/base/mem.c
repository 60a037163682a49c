/* mem.c - allocation with a switch for tests that make it fail. */
#include "mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static _Atomic int64_t fail_after = -1;

void el_test_fail_after(int64_t n) { atomic_store(&fail_after, n); }

static bool refuse(void)
{
    int64_t left = atomic_load_explicit(&fail_after, memory_order_relaxed);

    if (left < 0)
        return false;
    if (left <= 1)
        return true;
    atomic_fetch_sub(&fail_after, 1);
    return false;
}

void *el_alloc(size_t n, size_t size)
{
    if (refuse())
        return NULL;
    return calloc(n ? n : 1, size ? size : 1);
}

void *el_realloc(void *old, size_t n, size_t size)
{
    uint64_t total;

    if (refuse() || !el_mul(n, size, &total) || total > SIZE_MAX)
        return NULL;
    return realloc(old, total ? (size_t)total : 1);
}

void el_free(void *p) { free(p); }

char *el_strndup(const char *s, size_t n)
{
    char *copy = n < SIZE_MAX ? el_alloc(n + 1, 1) : NULL;

    if (copy)
        memcpy(copy, s, n);
    return copy;
}
