/* ggml_guard.c - a way back out of ggml's assertions, for quantizing and for building graphs. */
#include "ggml_guard.h"

#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>

#include "ggml.h"

static _Thread_local jmp_buf *way_back;

/* Without a guard nothing can stop ggml. That is a fault in edgellm, which checks before it calls, so this one line is
 * worth breaking the rule that the library never prints. */
void el_ggml_on_abort(const char *message)
{
    if (way_back)
        longjmp(*way_back, 1);
    fprintf(stderr, "edgellm: fault inside ggml, please report it: %s\n", message);
}

bool el_ggml_guarded(void (*call)(void *data), void *data)
{
    jmp_buf here;

    (void)ggml_set_abort_callback(el_ggml_on_abort); /* the same each time: ggml_cpu.c may not have run yet */
    if (setjmp(here) != 0) {
        way_back = NULL;
        return false;
    }
    way_back = &here;
    call(data);
    way_back = NULL;
    return true;
}
