/* ggml_guard.h - calls into ggml that may find one of its own rules broken and come back.
 * ggml ends the process after a failed assertion; its callback can only watch, unless it leaves by longjmp. That is
 * sound where the call holds no lock and owns no memory but its own stack, as ggml's quantizers do and
 * the building of a graph in memory of ours, and nowhere else. */
#ifndef EL_GGML_GUARD_H
#define EL_GGML_GUARD_H

#include <stdbool.h>

/* Runs call(data); false: ggml would have ended the process, and what call was writing is half done. Any thread. */
bool el_ggml_guarded(void (*call)(void *data), void *data);

/* For ggml_set_abort_callback: back to the guard of this thread, or one line on standard error before the end. */
void el_ggml_on_abort(const char *message);

#endif
