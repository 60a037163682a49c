/* matmul_i8mm.c - matmul_neon.h for this instruction set. */
#include "products_i8mm.h"

#define EL_USE el_matmul_use_i8mm
#include "matmul_neon.h"
