/* superblock_neon.c - superblock_neon.h for this instruction set. */
#include "products_neon.h"

#define EL_USE el_superblock_use_neon
#include "superblock_neon.h"
