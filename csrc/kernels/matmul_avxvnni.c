/* matmul_avxvnni.c - being written. */
#include "blocks.h"

void el_matmul_use_avxvnni(el_kernels *t) { (void)t; }
