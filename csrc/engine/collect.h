/* collect.h - sums of squares of what goes into each product, column by column: the importance matrix of a text.
 * Which rows of weights matter is what a quantizer wants to know: an error in column j costs its square times the mean
 * square of input j. Entries are made when a tensor is first multiplied. */
#ifndef EL_COLLECT_H
#define EL_COLLECT_H

#include <stddef.h>

#include "edgellm.h"
#include "stock.h"

typedef struct el_collector el_collector;

/* For up to n_tensors tensors of weights. */
edgellm_status el_collector_new(el_collector **out, size_t n_tensors);
void el_collector_free(el_collector *c); /* NULL is fine */

/* Who adds to it; lives as long as the collector. */
const el_watch *el_collector_watch(const el_collector *c);
/* Fills *out with entry i; its name is NULL after the last. */
edgellm_status el_collector_get(const el_collector *c, int32_t i, edgellm_activations *out);

#endif
