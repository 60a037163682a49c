/* workers.c - one pool per process. See workers.h for the rules.
 *
 * Tickets: every region that is run has a number, counted on for the life of the process. `current` is the one being
 * worked on. A worker writes the number into its `inside` before it touches a region and then looks whether it is still
 * current; whoever wants to reuse a buffer waits until no `inside` is at or below the last number that used it. */
#define _POSIX_C_SOURCE 200809L
#include "workers.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#define RELAX() _mm_pause()
#elif defined(__aarch64__) || defined(__arm__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

#define OUTSIDE UINT64_MAX

enum {
    SPIN_IDLE = 2000,  /* looks at the clockless counter before sleeping: about 40 us */
    SPIN_CHUNK = 400,  /* before redoing somebody's chunk: about 8 us, as long as a chunk should take */
    SPIN_LEAVE = 20000 /* before giving up the core while waiting for a worker to leave */
};

typedef struct worker {
    _Alignas(64) _Atomic uint64_t inside;
    pthread_t thread;
} worker;

static struct {
    pthread_mutex_t turn; /* one run at a time */
    pthread_mutex_t lock; /* of the fields below, for sleeping */
    pthread_cond_t wake;
    int32_t n_started; /* workers 1 .. n_started exist; worker 0 is the caller */
    _Atomic int32_t n_sleeping;

    /* the run under way */
    _Alignas(64) _Atomic uint64_t call; /* counts el_workers_run calls; odd while one is open to workers */
    _Atomic(el_run *) run;
    _Atomic int32_t n_threads;
    _Atomic int32_t first;
    _Atomic uint64_t base; /* ticket of region `first` of the run */
    _Atomic uint64_t end;  /* ticket after the last region to run */
    _Alignas(64) _Atomic uint64_t current;
} pool = {.turn = PTHREAD_MUTEX_INITIALIZER,
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .current = 1};

static worker workers[EL_MAX_WORKERS] = {[0] = {.inside = OUTSIDE}};

static void yield_core(void)
{
    const struct timespec pause = {0, 20000};

    nanosleep(&pause, NULL);
}

/* Waits until nobody is at or below that ticket. `self` is not asked. */
static void wait_until_left(uint64_t ticket, int32_t self)
{
    for (int32_t w = 0; w <= pool.n_started; w++) {
        int32_t spins = 0;
        if (w == self)
            continue;
        while (atomic_load(&workers[w].inside) <= ticket) {
            RELAX();
            if (++spins > SPIN_LEAVE)
                yield_core();
        }
    }
}

/* ---- who does which chunk ------------------------------------------------------------------ */

/* The first chunk of a share; the share after the last begins at the end. */
static int32_t share_begin(const el_run *run, const el_region *r, int32_t share)
{
    return (int32_t)((int64_t)r->n_chunks * share / run->n_shares);
}

static _Atomic unsigned char *flags_of(const el_run *run, const el_region *r, const el_region_state *s, int32_t share)
{
    return s->flags ? s->flags + share_begin(run, r, share) : s->shares[share].done;
}

static bool share_finished(const el_run *run, const el_region *r, const el_region_state *s, int32_t share)
{
    return atomic_load_explicit(&s->shares[share].n_done, memory_order_acquire) >=
           share_begin(run, r, share + 1) - share_begin(run, r, share);
}

static bool finished(const el_run *run, const el_region *r, const el_region_state *s)
{
    for (int32_t i = 0; i < run->n_shares; i++)
        if (!share_finished(run, r, s, i))
            return false;
    return true;
}

/* The at-th chunk of a share. */
static void do_chunk(const el_run *run, const el_region *r, const el_region_state *s, int32_t share, int32_t at,
                     int32_t self)
{
    r->run(r->job, share_begin(run, r, share) + at, self);
    if (atomic_exchange_explicit(&flags_of(run, r, s, share)[at], 1, memory_order_acq_rel) == 0)
        atomic_fetch_add_explicit(&s->shares[share].n_done, 1, memory_order_acq_rel);
}

static void take_all(const el_run *run, const el_region *r, const el_region_state *s, int32_t self)
{
    for (int32_t i = 0; i < run->n_shares; i++) {
        const int32_t share = (self + i) % run->n_shares;
        const int32_t n = share_begin(run, r, share + 1) - share_begin(run, r, share);
        int32_t at;

        if (i > 0 && atomic_load_explicit(&s->shares[share].next, memory_order_relaxed) >= n)
            continue;
        while ((at = atomic_fetch_add_explicit(&s->shares[share].next, 1, memory_order_relaxed)) < n)
            do_chunk(run, r, s, share, at, self);
    }
}

/* Does every chunk again that is not done. */
static void redo(const el_run *run, const el_region *r, const el_region_state *s, int32_t self)
{
    for (int32_t i = 0; i < run->n_shares; i++) {
        const int32_t share = (self + i) % run->n_shares;
        const int32_t n = share_begin(run, r, share + 1) - share_begin(run, r, share);

        for (int32_t at = 0; at < n && !share_finished(run, r, s, share); at++)
            if (!atomic_load_explicit(&flags_of(run, r, s, share)[at], memory_order_acquire))
                do_chunk(run, r, s, share, at, self);
    }
}

/* Nothing is left to take: give the others a moment, and use it to ask the memory for the next region's first bytes;
 * then do their unfinished chunks again. */
static void help(const el_run *run, const el_region *r, const el_region_state *s, const el_region *next, int32_t self)
{
    int32_t part = 0;
    bool more = next && next->ahead;

    for (int32_t spins = 0; !finished(run, r, s); spins++) {
        if (more)
            more = next->ahead(next->job, share_begin(run, next, self % run->n_shares), part++);
        else
            RELAX();
        if (spins < SPIN_CHUNK)
            continue;
        if (!r->exclusive)
            redo(run, r, s, self);
        else if (spins > SPIN_LEAVE)
            yield_core();
    }
}

static double now_ms(void)
{
    struct timespec t;

    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static bool should_stop(const el_run *run)
{
    return (run->cancel && atomic_load_explicit(run->cancel, memory_order_relaxed)) ||
           (run->deadline_ms != 0 && now_ms() >= run->deadline_ms);
}

/* Regions of `run` from index `first` on have the tickets base .. end - 1. */
static void work(el_run *run, int32_t first, uint64_t base, uint64_t end, int32_t self)
{
    for (;;) {
        uint64_t ticket = atomic_load(&pool.current);
        const el_region *r;
        const el_region_state *s;
        int32_t at;

        if (ticket < base || ticket >= end || atomic_load_explicit(&run->stop, memory_order_relaxed))
            break;
        atomic_store(&workers[self].inside, ticket);
        if (atomic_load(&pool.current) != ticket)
            continue;
        at = (int32_t)(ticket - base) + first;
        r = &run->regions[at];
        s = &run->states[at];
        if (r->wait_for >= first)
            wait_until_left(base + (uint64_t)(r->wait_for - first), self);
        take_all(run, r, s, self);
        help(run, r, s, at + 1 < run->n_regions ? r + 1 : NULL, self);
        if (self == 0 && should_stop(run))
            atomic_store(&run->stop, true);
        atomic_compare_exchange_strong(&pool.current, &ticket, ticket + 1);
    }
    atomic_store(&workers[self].inside, OUTSIDE);
}

/* Waits for the call number to change and be odd. */
static uint64_t wait_for_call(uint64_t seen)
{
    uint64_t call;

    for (int32_t spins = 0; spins < SPIN_IDLE; spins++) {
        call = atomic_load(&pool.call);
        if (call != seen && call % 2 == 1)
            return call;
        RELAX();
    }
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.n_sleeping, 1);
    while ((call = atomic_load(&pool.call)) == seen || call % 2 == 0)
        pthread_cond_wait(&pool.wake, &pool.lock);
    atomic_fetch_sub(&pool.n_sleeping, 1);
    pthread_mutex_unlock(&pool.lock);
    return call;
}

static void *worker_main(void *argument)
{
    const int32_t self = (int32_t)(intptr_t)argument;
    uint64_t seen = 0;

    for (;;) {
        seen = wait_for_call(seen);
        /* Hold everything still while looking: no buffer goes away while `inside` is 0. */
        atomic_store(&workers[self].inside, 0);
        if (atomic_load(&pool.call) == seen && self < atomic_load(&pool.n_threads))
            work(atomic_load(&pool.run), atomic_load(&pool.first), atomic_load(&pool.base), atomic_load(&pool.end),
                 self);
        atomic_store(&workers[self].inside, OUTSIDE);
    }
    return NULL;
}

static edgellm_status start_workers(int32_t n_threads)
{
    while (pool.n_started < n_threads - 1) {
        const int32_t id = pool.n_started + 1;
        pthread_attr_t attr;
        int failed;

        atomic_store(&workers[id].inside, OUTSIDE);
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attr, 1 << 20);
        failed = pthread_create(&workers[id].thread, &attr, worker_main, (void *)(intptr_t)id);
        pthread_attr_destroy(&attr);
        if (failed)
            return el_fail(EDGELLM_ENOMEM, "could not start thread %d of %d", id + 1, n_threads);
        pool.n_started = id;
    }
    return EDGELLM_OK;
}

edgellm_status el_workers_run(el_run *run, int32_t n_threads, int32_t budget_ms, const _Atomic bool *cancel)
{
    const int32_t first = run->n_done;
    edgellm_status status = EDGELLM_OK;
    uint64_t base, end;

    if (first >= run->n_regions)
        return EDGELLM_OK;
    pthread_mutex_lock(&pool.turn);
    EL_TRY(start_workers(EL_MIN(n_threads, (int32_t)EL_MAX_WORKERS)));
    wait_until_left(0, 0); /* one that is about to join the call before this has read half of the fields below */
    base = atomic_load(&pool.current) + 1;
    end = base + (uint64_t)(run->n_regions - first);
    run->cancel = cancel;
    run->deadline_ms = budget_ms > 0 ? now_ms() + budget_ms : 0;
    run->last_ticket = end - 1;
    atomic_store(&run->stop, false);
    atomic_store(&pool.run, run);
    atomic_store(&pool.n_threads, n_threads);
    atomic_store(&pool.first, first);
    atomic_store(&pool.base, base);
    atomic_store(&pool.end, end);
    atomic_store(&pool.current, base);
    atomic_fetch_add(&pool.call, 1);
    if (n_threads > 1 && atomic_load(&pool.n_sleeping) > 0) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.lock);
    }
    work(run, first, base, end, 0);
    atomic_fetch_add(&pool.call, 1);
    if (atomic_load(&pool.current) < end) { /* stopped: the others may still be finishing a region */
        wait_until_left(run->last_ticket, 0);
        run->n_done = first + (int32_t)(atomic_load(&pool.current) - base);
        atomic_store(&pool.current, end);
        status = cancel && atomic_load(cancel) ? el_fail(EDGELLM_ECANCELLED, "cancelled") : EDGELLM_AGAIN;
    } else {
        run->n_done = run->n_regions;
    }
done:
    pthread_mutex_unlock(&pool.turn);
    return status;
}

void el_workers_quiesce(void) { wait_until_left(atomic_load(&pool.current), -1); }

/* ---- runs ---------------------------------------------------------------------------------- */

static size_t flags_wanted(const el_run *run, const el_region *r)
{
    return (r->n_chunks + run->n_shares - 1) / run->n_shares > EL_SHARE_FLAGS ? (size_t)r->n_chunks : 0;
}

static void free_memory(el_run *run)
{
    el_free(run->states);
    el_free(run->share_memory);
    el_free((void *)run->flags);
    memset(run, 0, sizeof *run);
}

edgellm_status el_run_init(el_run *run, const el_region *regions, int32_t n_regions, int32_t n_threads)
{
    size_t used = 0;

    memset(run, 0, sizeof *run);
    run->regions = regions;
    run->n_regions = n_regions;
    run->n_shares = EL_MAX(1, EL_MIN(n_threads, (int32_t)EL_MAX_SHARES));
    for (int32_t i = 0; i < n_regions; i++)
        run->n_flags += flags_wanted(run, &regions[i]);
    run->states = el_alloc((size_t)n_regions, sizeof *run->states);
    run->share_memory = el_alloc((size_t)n_regions * (size_t)run->n_shares + 1, sizeof *run->shares);
    run->flags = run->n_flags ? el_alloc(run->n_flags, 1) : NULL;
    if (!run->states || !run->share_memory || (run->n_flags && !run->flags)) {
        free_memory(run);
        return el_no_memory((size_t)n_regions * (size_t)run->n_shares * sizeof *run->shares + run->n_flags);
    }
    run->shares = (el_share *)(((uintptr_t)run->share_memory + 63) / 64 * 64);
    for (int32_t i = 0; i < n_regions; i++) {
        const size_t wanted = flags_wanted(run, &regions[i]);
        run->states[i].shares = run->shares + (size_t)i * (size_t)run->n_shares;
        run->states[i].flags = wanted ? run->flags + used : NULL;
        used += wanted;
    }
    return EDGELLM_OK;
}

void el_run_reset(el_run *run)
{
    if (run->last_ticket)
        wait_until_left(run->last_ticket, -1);
    memset((void *)run->shares, 0, (size_t)run->n_regions * (size_t)run->n_shares * sizeof *run->shares);
    if (run->flags)
        memset((void *)run->flags, 0, run->n_flags);
    run->n_done = 0;
}

void el_run_clear(el_run *run)
{
    if (run->states && run->last_ticket)
        wait_until_left(run->last_ticket, -1);
    free_memory(run);
}
