/* states_ref.c - one token of linear attention, from the template. */
#include "states.h"

void el_states_use_ref(el_kernels *t) { t->state_step = state_step; }
