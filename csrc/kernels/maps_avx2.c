/* maps_avx2.c - functions of single elements, from the template. */
#include "maps.h"

void el_maps_use_avx2(el_kernels *t) { t->map = map; }
