/* superblock_avxvnni.c - being written. */
#include "blocks.h"

void el_superblock_use_avxvnni(el_kernels *t) { (void)t; }
