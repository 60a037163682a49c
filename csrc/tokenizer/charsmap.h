/* charsmap.h - the normalizer that SentencePiece compiles into a model: a table from byte sequences to what replaces
 * them (NFKC and more). A double-array trie of 32-bit units, then the replacements, each ended by a zero byte.
 * Source: Normalizer of SentencePiece (normalizer.cc) and the unit layout of Darts-clone (Yata 2008). */
#ifndef EL_CHARSMAP_H
#define EL_CHARSMAP_H

#include "error.h"
#include "mem.h"

typedef struct el_charsmap { /* points into the file */
    const uint8_t *units;    /* n_units little-endian u32 */
    size_t n_units;
    const char *replacements;
    size_t n_replacements;
} el_charsmap;

/* n 0: nothing is replaced. Errors: EFORMAT. */
edgellm_status el_charsmap_open(el_charsmap *map, const uint8_t *data, size_t n);

/* Bytes of text that the longest entry covers, 0: none; *out gets what takes their place. A damaged table reads as one
 * with fewer entries, and so does one whose replacements are absurdly long. */
size_t el_charsmap_match(const el_charsmap *map, const char *text, size_t n, el_str *out);

#endif
