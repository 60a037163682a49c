/* error.h - status plus one line of text, per thread.
 * The function that finds the fault calls el_fail; those above pass the status on with EL_TRY.
 * Idea: libgit2, docs/error-handling.md. */
#ifndef EL_ERROR_H
#define EL_ERROR_H

#include "edgellm.h"

#if defined(__GNUC__)
#define EL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define EL_PRINTF(fmt, args)
#endif

/* Stores the text (cut at 1000 bytes; control characters and invalid UTF-8 are escaped) and returns status. */
edgellm_status el_fail(edgellm_status status, const char *fmt, ...) EL_PRINTF(2, 3);
edgellm_status el_no_memory(size_t n_bytes);
void el_error_clear(void);
const char *el_error_text(void);

/* In a function with `edgellm_status status` and a label `done`. */
#define EL_TRY(call)                                                                                                   \
    do {                                                                                                               \
        status = (call);                                                                                               \
        if (status != EDGELLM_OK)                                                                                      \
            goto done;                                                                                                 \
    } while (0)

#endif
