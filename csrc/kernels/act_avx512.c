/* act_avx512.c - being written. */
#include "blocks.h"

void el_act_use_avx512(el_kernels *t) { (void)t; }
