/* workers.h - the process's threads, and how they run a list of regions together.
 * A region is work cut into chunks. Each worker takes the chunks of its share in order, then those of others; one
 * that finds none left waits a moment and then does an unfinished chunk again, so a worker that the system has taken
 * off its core delays nobody. This asks of a region:
 *   - it reads one set of buffers and writes another, so that doing a chunk twice, even at once, gives the same bytes;
 *   - no buffer that it reads or writes is used for anything else until every worker has left it (`wait_for`).
 * Idle workers spin for some tens of microseconds, then sleep in the kernel. Signals go to the program's own threads. A
 * forked child starts workers of its own; a call that another thread had under way is lost there.
 *
 * Two threads that write the same bytes to the same place are a data race by the letter of C11, and ThreadSanitizer
 * sees who writes, not what. So a build for it does not redo chunks (el_workers_redo), and with that everything else is
 * judged: claims, the order of regions, the reuse of buffers, calls that begin and end. The redoing itself is judged
 * where the data are written with atomic operations and reused with plain ones (tests/c/test_workers.c, with chunks
 * that sleep halfway), and by what the bits are (tests/parity/test_bits.py, with more threads than cores).
 * Idea of redoing unfinished work: "helping" in wait-free algorithms (Herlihy 1991); speculative backup tasks in
 * MapReduce. */
#ifndef EL_WORKERS_H
#define EL_WORKERS_H

#include <stdatomic.h>

#include "error.h"
#include "mem.h"

enum { EL_MAX_WORKERS = 256 };

typedef void el_chunk_fn(const void *job, int32_t chunk, int32_t worker);
/* Asks the memory for a part of what a chunk will read; part counts up from 0. False: there is nothing more. */
typedef bool el_ahead_fn(const void *job, int32_t chunk, int32_t part);

typedef struct el_region {
    el_chunk_fn *run;
    el_ahead_fn *ahead; /* NULL: nothing. Called by workers that wait for the region before this one */
    const void *job;
    int32_t n_chunks;
    int32_t wait_for; /* index of a region of the same run that all must have left before this one starts; -1: none */
    bool exclusive;   /* its chunks must never be done twice */
} el_region;

enum { EL_MAX_SHARES = 8, EL_SHARE_FLAGS = 56 };

/* The chunks of a region are dealt out as one run of neighbours per worker (of some workers, when there are more than
 * EL_MAX_SHARES): reading weights in the file's order keeps the memory busy, and a worker's counts stay in its own
 * cache until it has nothing left of its own and takes from others. */
typedef struct el_share {
    _Alignas(64) _Atomic int32_t next; /* chunks of the share that are taken */
    _Atomic int32_t n_done;
    _Atomic unsigned char done[EL_SHARE_FLAGS]; /* by chunk; unless the share is longer: then in the run's flags */
} el_share;

typedef struct el_region_state {
    el_share *shares; /* n_shares of the run */
    _Atomic unsigned char *flags;
} el_region_state;

/* A list of regions in order, with room for its progress. Kept and run again; see el_run_reset. */
typedef struct el_run {
    const el_region *regions;
    int32_t n_regions;
    int32_t n_shares;
    el_region_state *states;
    el_share *shares;
    void *share_memory;
    _Atomic unsigned char *flags;
    size_t n_flags;
    int32_t n_done; /* regions that are finished */
    const _Atomic bool *cancel;
    double deadline_ms; /* of el_now_ms; 0: none */
    _Atomic bool stop;
    uint64_t last_ticket; /* of the last region it has run: when all have left that, the buffers are free */
} el_run;

edgellm_status el_run_init(el_run *run, const el_region *regions, int32_t n_regions, int32_t n_threads);
void el_run_clear(el_run *run); /* waits until no worker is inside */
/* Before its first region runs again. Waits until no worker is inside. */
void el_run_reset(el_run *run);

/* Goes on with the run's regions, with n_threads workers, the caller being one, and returns when all are done. Looks
 * between regions whether *cancel has become true (ECANCELLED) or budget_ms (0: no limit) have passed (AGAIN: call
 * again). Calls from several threads queue. Threads are started as needed, ENOMEM when that fails. */
edgellm_status el_workers_run(el_run *run, int32_t n_threads, int32_t budget_ms, const _Atomic bool *cancel);

/* Whether unfinished chunks are done again; where not, workers wait for each other. On, but in ThreadSanitizer builds.
 */
void el_workers_redo(bool on);

/* Returns once no worker is inside any region that has been run before the call. */
void el_workers_quiesce(void);

#endif
