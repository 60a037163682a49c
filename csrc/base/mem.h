/* mem.h - allocation and arithmetic that cannot surprise.
 * Allocation: el_alloc gives zeroed memory for n objects or NULL (also when the product wraps); the caller turns
 * NULL into el_no_memory. el_test_fail_after lets a test make the n-th allocation fail (idea: SQLite's malloc tests).
 * Arithmetic: every sum or product of numbers from a file goes through el_add / el_mul. */
#ifndef EL_MEM_H
#define EL_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *el_alloc(size_t n, size_t size);
void *el_realloc(void *old, size_t n,
                 size_t size); /* keeps the bytes, new ones are not cleared; old survives a failure */
void el_free(void *p);
char *el_strndup(const char *s, size_t n);

void el_test_fail_after(int64_t n); /* the n-th el_alloc/el_realloc from now fails, and all after it; -1: never */

static inline bool el_mul(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool el_add(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_add_overflow(a, b, out); }

#define EL_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define EL_MIN(a, b) ((a) < (b) ? (a) : (b))
#define EL_MAX(a, b) ((a) > (b) ? (a) : (b))

typedef struct el_str { /* bytes with a length, usually inside a mapped file; not NUL-terminated */
    const char *data;
    size_t n;
} el_str;

static inline bool el_str_eq(el_str s, const char *text)
{
    size_t i = 0;
    for (; i < s.n && text[i] && s.data[i] == text[i]; i++)
        ;
    return i == s.n && text[i] == 0;
}

#endif
