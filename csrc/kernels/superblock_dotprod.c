/* superblock_dotprod.c - superblock_neon.h for this instruction set. */
#include "products_dotprod.h"

#define EL_USE el_superblock_use_dotprod
#include "superblock_neon.h"
