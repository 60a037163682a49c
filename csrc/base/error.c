/* error.c - the text of each thread's last failure. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "utf8.h"

#define EL_ERROR_CAP 1024

static _Thread_local char text[EL_ERROR_CAP];

edgellm_status el_fail(edgellm_status status, const char *fmt, ...)
{
    char raw[EL_ERROR_CAP];
    va_list args;

    va_start(args, fmt);
    vsnprintf(raw, sizeof raw, fmt, args);
    va_end(args);
    el_utf8_escape(text, sizeof text, raw, strlen(raw));
    return status;
}

edgellm_status el_no_memory(size_t n_bytes)
{
    return el_fail(EDGELLM_ENOMEM, "out of memory: %zu bytes were refused", n_bytes);
}

void el_error_clear(void) { text[0] = 0; }

const char *el_error_text(void) { return text; }
