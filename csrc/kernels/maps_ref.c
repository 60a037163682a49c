/* maps_ref.c - functions of single elements, from the template. */
#include "maps.h"

void el_maps_use_ref(el_kernels *t) { t->map = map; }
