#include "blocks.h"
void el_attention_use_avx2(el_kernels *t) { (void)t; }
