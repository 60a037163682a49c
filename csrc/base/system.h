/* system.h - how much of this machine the process may use: cores, quota, memory.
 * The kernel's answers lie in files; el_system_read takes a prefix for them so that tests can bring their own. */
#ifndef EL_SYSTEM_H
#define EL_SYSTEM_H

#include <stdint.h>

typedef struct el_system {
    int n_logical;             /* CPUs online */
    int n_allowed;             /* in this process's affinity mask */
    int n_cores;               /* physical cores among the allowed */
    int n_performance;         /* of these, the fast kind */
    double quota;              /* CPUs' worth of time the cgroup may use; 0: no limit */
    int n_threads;             /* the default: n_performance, at most the quota rounded down, at least 1 */
    uint64_t memory_total;     /* bytes; 0 when unknown */
    uint64_t memory_available; /* without swapping, and within the cgroup's limit */
    uint64_t memory_limit;     /* of the cgroup; 0: none */
} el_system;

/* root: "" for the real machine. Reads a few dozen small files (about 1 ms on 2 CPUs). */
void el_system_read(el_system *system, const char *root);

int el_default_threads(void); /* n_threads of the first call, kept */

#endif
