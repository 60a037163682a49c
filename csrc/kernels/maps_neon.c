/* maps_neon.c - functions of single elements, from the template. */
#include "maps.h"

void el_maps_use_neon(el_kernels *t) { t->map = map; }
