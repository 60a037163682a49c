/* unicode_fold.h - what BERT's cleaning of a text asks about code points beyond ASCII; the tables (unicode_fold.c) are
 * generated. */
#ifndef EL_UNICODE_FOLD_H
#define EL_UNICODE_FOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct el_fold { /* first, first + step, ... last become to, to + step, ...; with step 0 all become to */
    uint32_t first, last, step, to;
} el_fold;

extern const el_fold el_unicode_lower[], el_unicode_base[], el_unicode_controls[];
extern const size_t el_unicode_n_lower, el_unicode_n_base, el_unicode_n_controls;

uint32_t el_lower_of(uint32_t cp);   /* the small letter, or cp; ASCII too */
uint32_t el_unaccented(uint32_t cp); /* the first code point of its canonical decomposition */
bool el_is_control_cp(uint32_t cp);  /* general category Cc, Cf, Co or Cs; ASCII too */

#endif
