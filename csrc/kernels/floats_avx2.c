#include "blocks.h"
void el_floats_use_avx2(el_kernels *t) { (void)t; }
