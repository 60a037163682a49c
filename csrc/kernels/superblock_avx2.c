#include "blocks.h"
void el_superblock_use_avx2(el_kernels *t) { (void)t; }
