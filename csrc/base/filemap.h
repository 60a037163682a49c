/* filemap.h - a regular file mapped read-only and shared, with what is needed to notice that it changed.
 * Pages stay the kernel's: shared between processes, evictable, never copied. */
#ifndef EL_FILEMAP_H
#define EL_FILEMAP_H

#include "error.h"
#include "mem.h"

typedef struct el_filemap {
    const uint8_t *data; /* NULL when the file is empty */
    size_t n_bytes;      /* mapped */
    uint64_t file_bytes; /* the file's size when it was opened; more than n_bytes only under a limit */
    char *name;          /* the last part of the path, for messages */
    int64_t modified;    /* when it was opened; nanoseconds where the system has them */
    uint64_t inode;
    bool is_open;
    intptr_t handle; /* kept for el_filemap_check */
#ifdef _WIN32
    void *view; /* the mapping object */
#endif
} el_filemap;

/* Maps the first `limit` bytes of the file (SIZE_MAX: all). Never waits: pipes, devices and folders are refused by
 * name. On failure *map is empty and needs no close. Errors: EIO, ENOMEM, EUNSUPPORTED (larger than the address space).
 */
edgellm_status el_filemap_open(el_filemap *map, const char *path_utf8, size_t limit);
void el_filemap_close(el_filemap *map); /* an empty one is fine */

/* OK while the file is what was opened, else EIO. A file replaced by rename stays whole under our mapping, so it
 * counts as unchanged; one cut or rewritten in place does not. */
edgellm_status el_filemap_check(const el_filemap *map);

/* The part of a path after the last separator. */
const char *el_file_name(const char *path);

#endif
