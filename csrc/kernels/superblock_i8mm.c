/* superblock_i8mm.c - superblock_neon.h for this instruction set. */
#include "products_i8mm.h"

#define EL_USE el_superblock_use_i8mm
#include "superblock_neon.h"
