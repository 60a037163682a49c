/* dynload.h - open a shared library by path, and find the folder this one lies in. */
#ifndef EL_DYNLOAD_H
#define EL_DYNLOAD_H

#include <stddef.h>

#include "error.h"

/* The folder of the file that holds this code, without a slash at the end. */
edgellm_status el_dl_folder(char *out, size_t cap);

/* Opens path_utf8 and finds a function in it. The library stays open for the life of the process.
 * Errors: EIO, with the system's own reason. */
typedef void el_dl_function(void); /* to be cast to its real type */
edgellm_status el_dl_load(const char *path_utf8, const char *symbol, el_dl_function **out);

#endif
