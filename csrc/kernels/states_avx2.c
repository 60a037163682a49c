/* states_avx2.c - one token of linear attention, from the template. */
#include "states.h"

void el_states_use_avx2(el_kernels *t) { t->state_step = state_step; }
