/* matmul_neon.c - matmul_neon.h for this instruction set. */
#include "products_neon.h"

#define EL_USE el_matmul_use_neon
#include "matmul_neon.h"
