/* workers.c - one pool per process. See workers.h for the rules.
 *
 * Tickets: every region that is run has a number, counted on for the life of the process. `current` is the one being
 * worked on. A worker writes the number into its `inside` before it touches a region and then looks whether it is still
 * current; whoever wants to reuse a buffer waits until no `inside` is at or below the last number that used it. */
#define _POSIX_C_SOURCE 200809L
#include "workers.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "clock.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#define RELAX() _mm_pause()
#elif defined(__aarch64__) || defined(__arm__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

#define OUTSIDE UINT64_MAX

/* Where a worker that loses its core is most in the way: tests/c/test_workers.c makes it sleep there now and then. */
#ifndef EL_WORKERS_STUMBLE
#define EL_WORKERS_STUMBLE() ((void)0)
#endif

enum {
    SPIN_IDLE = 2000,  /* looks at the clockless counter before sleeping: about 40 us */
    SPIN_CHUNK = 400,  /* before redoing somebody's chunk: about 8 us, as long as a chunk should take */
    SPIN_LEAVE = 20000 /* before giving up the core while waiting for a worker to leave */
};

typedef struct worker {
    _Alignas(64) _Atomic uint64_t inside;
    _Atomic bool asleep;
    pthread_mutex_t lock; /* held between looking for a call and sleeping */
    pthread_cond_t wake;
} worker;

static struct {
    pthread_mutex_t lock; /* of the two numbers below; workers never take it */
    pthread_cond_t served;
    uint64_t n_asked, n_served; /* one run at a time, in the order of asking: a mutex alone lets the thread that has
                                   just given it back take it again before one that waits has woken up */
    _Atomic int32_t n_started;  /* workers 1 .. n_started exist; worker 0 is the caller */

    /* the run under way */
    _Alignas(64) _Atomic uint64_t call; /* counted up as one opens to workers and as it closes: odd while open */
    _Atomic(el_run *) run;
    _Atomic int32_t n_threads;
    _Atomic int32_t first;
    _Atomic uint64_t base; /* ticket of region `first` of the run */
    _Atomic uint64_t end;  /* ticket after the last region to run */
    _Alignas(64) _Atomic uint64_t current;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .served = PTHREAD_COND_INITIALIZER, .current = 1};

static worker workers[EL_MAX_WORKERS] = {[0] = {.inside = OUTSIDE}};

#ifdef __SANITIZE_THREAD__
static _Atomic bool may_redo = false;
#else
static _Atomic bool may_redo = true;
#endif

void el_workers_redo(bool on) { atomic_store(&may_redo, on); }

static void yield_core(void)
{
    const struct timespec pause = {0, 20000};

    nanosleep(&pause, NULL);
}

/* Waits until nobody is at or below that ticket. `self` is not asked. */
static void wait_until_left(uint64_t ticket, int32_t self)
{
    for (int32_t w = 0; w <= atomic_load(&pool.n_started); w++) {
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
    EL_WORKERS_STUMBLE();
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
 * then do their unfinished chunks again. Once through is enough: a chunk's flag was set, or its bytes are written. */
static void help(const el_run *run, const el_region *r, const el_region_state *s, const el_region *next, int32_t self)
{
    const bool wait = r->exclusive || !atomic_load_explicit(&may_redo, memory_order_relaxed);
    int32_t part = 0;
    bool more = next && next->ahead;

    for (int32_t spins = 0; !finished(run, r, s); spins++) {
        if (more)
            more = next->ahead(next->job, share_begin(run, next, self % run->n_shares), part++);
        else
            RELAX();
        if (spins < SPIN_CHUNK)
            continue;
        if (!wait) {
            redo(run, r, s, self);
            break;
        }
        if (spins > SPIN_LEAVE)
            yield_core();
    }
}

static bool should_stop(const el_run *run)
{
    return (run->cancel && atomic_load_explicit(run->cancel, memory_order_relaxed)) ||
           (run->deadline_ms != 0 && el_now_ms() >= run->deadline_ms);
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
        EL_WORKERS_STUMBLE();
        atomic_store(&workers[self].inside, ticket);
        EL_WORKERS_STUMBLE();
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

static bool is_open(uint64_t call, uint64_t seen) { return call != seen && call % 2 == 1; }

/* Waits for a call other than `seen` to open; spins first if the last one had use for this worker. */
static uint64_t wait_for_call(worker *me, uint64_t seen, bool spin)
{
    uint64_t call = atomic_load(&pool.call);

    for (int32_t spins = 0; spin && spins < SPIN_IDLE && !is_open(call, seen); spins++) {
        RELAX();
        call = atomic_load(&pool.call);
    }
    if (is_open(call, seen))
        return call;
    pthread_mutex_lock(&me->lock);
    atomic_store(&me->asleep, true);
    EL_WORKERS_STUMBLE();
    while (!is_open(call = atomic_load(&pool.call), seen))
        pthread_cond_wait(&me->wake, &me->lock);
    atomic_store(&me->asleep, false);
    pthread_mutex_unlock(&me->lock);
    return call;
}

/* The caller must not wait for a worker that has lost its core while it holds its lock. Without the lock the signal may
 * come just before the worker sleeps: then this call goes without it, and the next one wakes it. */
static void wake(int32_t n_threads)
{
    for (int32_t w = 1; w < n_threads; w++) {
        if (atomic_load(&workers[w].asleep)) {
            const bool locked = pthread_mutex_trylock(&workers[w].lock) == 0;
            pthread_cond_signal(&workers[w].wake);
            if (locked)
                pthread_mutex_unlock(&workers[w].lock);
        }
    }
}

static void *worker_main(void *argument)
{
    const int32_t self = (int32_t)(intptr_t)argument;
    uint64_t seen = 0;
    bool wanted = true;

    for (;;) {
        seen = wait_for_call(&workers[self], seen, wanted);
        EL_WORKERS_STUMBLE();
        /* Hold everything still while looking: no buffer goes away while `inside` is 0. */
        atomic_store(&workers[self].inside, 0);
        wanted = self < atomic_load(&pool.n_threads);
        if (wanted && atomic_load(&pool.call) == seen) {
            el_run *run = atomic_load(&pool.run);
            const int32_t first = atomic_load(&pool.first);
            EL_WORKERS_STUMBLE();
            work(run, first, atomic_load(&pool.base), atomic_load(&pool.end), self);
        }
        atomic_store(&workers[self].inside, OUTSIDE);
    }
    return NULL;
}

/* ---- starting threads --------------------------------------------------------------------- */

#ifndef _WIN32

/* In a forked child only the thread that forked exists. */
static void after_fork_in_child(void)
{
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.served, NULL);
    pool.n_asked = pool.n_served = 0;
    atomic_store(&pool.n_started, 0);
    atomic_store(&pool.call, (atomic_load(&pool.call) + 1) & ~(uint64_t)1);
    atomic_store(&workers[0].inside, OUTSIDE);
}

static void watch_forks(void) { (void)pthread_atfork(NULL, NULL, after_fork_in_child); }

/* The program's signals are for its own threads; faults stay with the thread that made them. */
static bool create(const pthread_attr_t *attr, int32_t id)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGPROF};
    pthread_t thread;
    sigset_t all, old;
    bool made;

    sigfillset(&all);
    for (size_t i = 0; i < EL_COUNT(faults); i++)
        sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    made = pthread_create(&thread, attr, worker_main, (void *)(intptr_t)id) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return made;
}

#else

static void watch_forks(void) {}

static bool create(const pthread_attr_t *attr, int32_t id)
{
    pthread_t thread;

    return pthread_create(&thread, attr, worker_main, (void *)(intptr_t)id) == 0;
}

#endif

static bool start_worker(int32_t id)
{
    worker *w = &workers[id];
    pthread_attr_t attr;
    bool made;

    atomic_store(&w->inside, OUTSIDE);
    atomic_store(&w->asleep, false);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 1 << 20);
    made = create(&attr, id);
    pthread_attr_destroy(&attr);
    return made;
}

static edgellm_status start_workers(int32_t n_threads)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, watch_forks);
    for (int32_t id = atomic_load(&pool.n_started) + 1; id < n_threads; id++) {
        if (!start_worker(id))
            return el_fail(EDGELLM_ENOMEM, "could not start thread %d of %d", id + 1, n_threads);
        atomic_store(&pool.n_started, id);
    }
    return EDGELLM_OK;
}

/* ---- calls -------------------------------------------------------------------------------- */

static void take_turn(void)
{
    pthread_mutex_lock(&pool.lock);
    for (const uint64_t mine = pool.n_asked++; pool.n_served != mine;)
        pthread_cond_wait(&pool.served, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

static void give_turn(void)
{
    pthread_mutex_lock(&pool.lock);
    if (++pool.n_served != pool.n_asked)
        pthread_cond_broadcast(&pool.served);
    pthread_mutex_unlock(&pool.lock);
}

edgellm_status el_workers_run(el_run *run, int32_t n_threads, int32_t budget_ms, const _Atomic bool *cancel)
{
    const int32_t first = run->n_done;
    edgellm_status status = EDGELLM_OK;
    uint64_t base, end;

    if (first >= run->n_regions)
        return EDGELLM_OK;
    n_threads = EL_MIN(n_threads, (int32_t)EL_MAX_WORKERS);
    take_turn();
    EL_TRY(start_workers(n_threads));
    wait_until_left(0, 0); /* one that is about to join the call before this has read half of the fields below */
    EL_WORKERS_STUMBLE();
    base = atomic_load(&pool.current) + 1;
    end = base + (uint64_t)(run->n_regions - first);
    run->cancel = cancel;
    run->deadline_ms = budget_ms > 0 ? el_now_ms() + budget_ms : 0;
    run->last_ticket = end - 1;
    atomic_store(&run->stop, false);
    atomic_store(&pool.run, run);
    atomic_store(&pool.n_threads, n_threads);
    atomic_store(&pool.first, first);
    atomic_store(&pool.base, base);
    atomic_store(&pool.end, end);
    atomic_store(&pool.current, base);
    atomic_fetch_add(&pool.call, 1);
    wake(n_threads);
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
    give_turn();
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
