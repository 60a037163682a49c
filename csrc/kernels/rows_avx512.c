/* rows_avx512.c - being written. */
#include "blocks.h"

void el_rows_use_avx512(el_kernels *t) { (void)t; }
