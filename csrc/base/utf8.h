/* utf8.h - UTF-8 as the Unicode standard defines it (table 3-7): no surrogates, no overlong forms. */
#ifndef EL_UTF8_H
#define EL_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Decodes one code point at s (n > 0 bytes). Returns its length 1 to 4 and sets *cp; 0 when the bytes are
 * not UTF-8; -k when they are the beginning of a code point that needs k more bytes. */
int el_utf8_next(const char *s, size_t n, uint32_t *cp);
int el_utf8_put(char out[4], uint32_t cp); /* returns 1 to 4 */

/* Copies text for a message: control characters and invalid bytes become \xNN; cut at cap - 1. */
void el_utf8_escape(char *out, size_t cap, const char *s, size_t n);

#endif
