/* matmul_dotprod.c - matmul_neon.h for this instruction set. */
#include "products_dotprod.h"

#define EL_USE el_matmul_use_dotprod
#include "matmul_neon.h"
