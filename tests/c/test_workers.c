/* test_workers.c - the worker pool under everything that may happen at once: several callers, changing numbers of
 * threads, budgets, cancelling, chunks that sleep halfway (as when the system takes a worker off its core) and are done
 * again, buffers that are used for something else, runs that are freed at once, forks.
 *
 * For ThreadSanitizer, chunks that may be done twice write and read with relaxed atomic operations, which order
 * nothing; the reuse of a buffer (fill) and each worker's own memory are plain. So a buffer that is reused before
 * everybody has left it is reported, and two workers with one number too. The file under test is part of this
 * one, so that workers can also be held up between two steps of their protocol. `test_workers SECONDS` hammers for
 * longer. */
#include <stdbool.h>

static void stumble(void);
#define EL_WORKERS_STUMBLE() stumble()
#include "workers.c"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static _Atomic int failures;
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            atomic_fetch_add(&failures, 1);                                                                            \
        }                                                                                                              \
    } while (0)

static void sleep_us(long us)
{
    const struct timespec t = {us / 1000000, us % 1000000 * 1000};

    nanosleep(&t, NULL);
}

static uint32_t next_random(uint32_t *state) { return (*state = *state * 1664525u + 1013904223u) >> 8; }

static _Atomic int32_t stumble_one_in; /* 0: never */

static void stumble(void)
{
    static _Thread_local uint32_t random;
    const int32_t one_in = atomic_load_explicit(&stumble_one_in, memory_order_relaxed);

    if (random == 0)
        random = (uint32_t)(uintptr_t)&random >> 4;
    if (one_in > 0 && next_random(&random) % (uint32_t)one_in == 0)
        sleep_us(next_random(&random) % 400);
}

/* ---- a chain of regions over three buffers --------------------------------------------------------------------------
 */

enum { BUFFERS = 3, STAGES = 12, CHUNKS = 60, WIDTH = 4, MAX_THREADS = 6, POISON = 0xDEAD };

typedef struct chain chain;

typedef struct stage {
    chain *owner;
    int32_t number;
    _Atomic int32_t n_executed[CHUNKS];
} stage;

/* Stage k fills buffer k % 3 with poison (exclusive: a plain write over what stage k - 3 wrote and k - 2 read), then
 * computes it from the buffer before. */
struct chain {
    uint32_t *buffers[BUFFERS];
    uint32_t seed;
    int32_t sleep_one_in;
    stage stages[STAGES];
    el_region regions[2 * STAGES];
    el_run run;
    struct {
        _Alignas(64) uint32_t random, own[WIDTH];
    } hands[MAX_THREADS];
};

static uint32_t mix(uint32_t seed, int32_t number, int32_t at, uint32_t a, uint32_t b)
{
    return (seed + (uint32_t)number * 77u + (uint32_t)at + a * 3u + (b ^ a >> 7)) * 2654435761u;
}

static void fill_chunk(const void *job, int32_t chunk, int32_t self)
{
    stage *s = (stage *)(uintptr_t)job;

    (void)chunk;
    (void)self;
    for (int32_t i = 0; i < CHUNKS * WIDTH; i++)
        s->owner->buffers[s->number % BUFFERS][i] = POISON;
}

static void stage_chunk(const void *job, int32_t chunk, int32_t self)
{
    stage *s = (stage *)(uintptr_t)job;
    chain *c = s->owner;
    uint32_t *to = c->buffers[s->number % BUFFERS] + (ptrdiff_t)chunk * WIDTH;
    const uint32_t *from = c->buffers[(s->number + BUFFERS - 1) % BUFFERS];
    int32_t sleep_at = -1;

    CHECK(self >= 0 && self < MAX_THREADS);
    if (next_random(&c->hands[self].random) % (uint32_t)c->sleep_one_in == 0)
        sleep_at = (int32_t)(next_random(&c->hands[self].random) % WIDTH);
    for (int32_t i = 0; i < WIDTH; i++) {
        const int32_t at = chunk * WIDTH + i;
        uint32_t a = 0, b = 0;
        if (s->number > 0) {
            a = __atomic_load_n(&from[at], __ATOMIC_RELAXED);
            b = __atomic_load_n(&from[at * 7 % (CHUNKS * WIDTH)], __ATOMIC_RELAXED);
        }
        c->hands[self].own[i] = mix(c->seed, s->number, at, a, b);
    }
    for (int32_t i = 0; i < WIDTH; i++) {
        if (i == sleep_at)
            sleep_us(300);
        __atomic_store_n(&to[i], c->hands[self].own[i], __ATOMIC_RELAXED);
    }
    atomic_fetch_add_explicit(&s->n_executed[chunk], 1, memory_order_relaxed);
}

static chain *new_chain(uint32_t seed)
{
    chain *c = aligned_alloc(_Alignof(chain), sizeof *c);

    CHECK(c);
    memset(c, 0, sizeof *c);
    c->seed = seed;
    c->sleep_one_in = 300;
    for (int32_t b = 0; b < BUFFERS; b++)
        c->buffers[b] = calloc(CHUNKS * WIDTH, sizeof(uint32_t));
    for (int32_t w = 0; w < MAX_THREADS; w++)
        c->hands[w].random = seed + (uint32_t)w;
    for (int32_t k = 0; k < STAGES; k++) {
        c->stages[k].owner = c;
        c->stages[k].number = k;
        c->regions[2 * k] = (el_region){
            .run = fill_chunk, .job = &c->stages[k], .n_chunks = 1, .exclusive = true, .wait_for = 2 * (k - 2) + 1};
        if (k < 2)
            c->regions[2 * k].wait_for = -1;
        c->regions[2 * k + 1] =
            (el_region){.run = stage_chunk, .job = &c->stages[k], .n_chunks = CHUNKS, .wait_for = -1};
    }
    CHECK(el_run_init(&c->run, c->regions, 2 * STAGES, 1 + (int32_t)(seed % 4)) == EDGELLM_OK);
    return c;
}

static void free_chain(chain *c)
{
    el_run_clear(&c->run);
    for (int32_t b = 0; b < BUFFERS; b++)
        free(c->buffers[b]);
    free(c);
}

static void begin(chain *c)
{
    el_run_reset(&c->run);
    for (int32_t k = 0; k < STAGES; k++)
        for (int32_t i = 0; i < CHUNKS; i++)
            atomic_store_explicit(&c->stages[k].n_executed[i], 0, memory_order_relaxed);
}

/* What a run that has ended must have left. Stragglers may still write the same bytes, hence the atomic loads. */
static void check_result(chain *c)
{
    uint32_t row[2][CHUNKS * WIDTH] = {{0}};
    bool equal = true;

    for (int32_t k = 0; k < STAGES; k++) {
        for (int32_t at = 0; at < CHUNKS * WIDTH; at++)
            row[k % 2][at] =
                mix(c->seed, k, at, k ? row[(k + 1) % 2][at] : 0, k ? row[(k + 1) % 2][at * 7 % (CHUNKS * WIDTH)] : 0);
        for (int32_t i = 0; i < CHUNKS; i++)
            CHECK(atomic_load(&c->stages[k].n_executed[i]) >= 1);
    }
    for (int32_t at = 0; at < CHUNKS * WIDTH; at++)
        equal = equal &&
                __atomic_load_n(&c->buffers[(STAGES - 1) % BUFFERS][at], __ATOMIC_RELAXED) == row[(STAGES - 1) % 2][at];
    CHECK(equal);
}

/* ---- the hammer -----------------------------------------------------------------------------------------------------
 */

static _Atomic bool enough;
static _Atomic int32_t n_runs, n_again, n_cancelled;

typedef struct hammer {
    uint32_t seed;
    _Atomic bool cancel;
} hammer;

static void run_to_end(hammer *h, chain *c, uint32_t *random)
{
    edgellm_status status;

    begin(c);
    do {
        const int32_t n_threads = 1 + (int32_t)(next_random(random) % MAX_THREADS);
        status = el_workers_run(&c->run, n_threads, next_random(random) % 2 ? 1 : 0, &h->cancel);
        if (status == EDGELLM_AGAIN)
            atomic_fetch_add(&n_again, 1);
        if (status == EDGELLM_ECANCELLED) {
            atomic_fetch_add(&n_cancelled, 1);
            atomic_store(&h->cancel, false);
            if (next_random(random) % 2) {
                el_workers_quiesce();
                begin(c); /* from the start, as after an abandoned step; else it goes on where it was */
            }
        }
    } while (status == EDGELLM_AGAIN || status == EDGELLM_ECANCELLED);
    CHECK(status == EDGELLM_OK);
    check_result(c);
    atomic_fetch_add(&n_runs, 1);
}

static void *hammer_main(void *argument)
{
    hammer *h = argument;
    uint32_t random = h->seed;
    chain *pair[2] = {NULL, NULL};

    while (!atomic_load(&enough)) {
        const uint32_t which = next_random(&random) % 2;
        if (!pair[which])
            pair[which] = new_chain(next_random(&random));
        run_to_end(h, pair[which], &random);
        if (next_random(&random) % 5 == 0) { /* freed at once: nobody may still be inside */
            free_chain(pair[which]);
            pair[which] = NULL;
        }
        if (next_random(&random) % 8 == 0)
            sleep_us(next_random(&random) % 500); /* long enough for the workers to fall asleep */
    }
    for (int32_t i = 0; i < 2; i++)
        if (pair[i])
            free_chain(pair[i]);
    return NULL;
}

static void test_hammer(double seconds, int32_t one_in)
{
    enum { CALLERS = 3 };
    pthread_t threads[CALLERS];
    static hammer hammers[CALLERS];
    const double end = el_now_ms() + seconds * 1e3;
    uint32_t random = 7;

    atomic_store(&enough, false);
    atomic_store(&stumble_one_in, one_in);
    for (int32_t i = 0; i < CALLERS; i++) {
        hammers[i].seed = 100 + (uint32_t)i;
        CHECK(pthread_create(&threads[i], NULL, hammer_main, &hammers[i]) == 0);
    }
    while (el_now_ms() < end) {
        sleep_us(500 + next_random(&random) % 3000);
        atomic_store(&hammers[next_random(&random) % CALLERS].cancel, true);
    }
    atomic_store(&enough, true);
    for (int32_t i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&stumble_one_in, 0);
    printf("  %d runs, %d pauses, %d cancelled\n", n_runs, n_again, n_cancelled);
    CHECK(n_runs > 0 && n_again > 0 && n_cancelled > 0);
}

/* ---- single promises ------------------------------------------------------------------------------------------------
 */

enum { SLEEPERS = 12 };

typedef struct sleepy {
    _Atomic int32_t n_executed[SLEEPERS];
    _Atomic uint32_t seen; /* bits of the workers that came */
    _Atomic bool stuck;    /* the first that is not the caller does not come back until this is false */
    _Atomic int32_t held;  /* and this is its chunk + 1 */
    long us;
} sleepy;

static void sleepy_chunk(const void *job, int32_t chunk, int32_t self)
{
    sleepy *s = (sleepy *)(uintptr_t)job;

    int32_t none = 0;

    atomic_fetch_or(&s->seen, 1u << self);
    atomic_fetch_add(&s->n_executed[chunk], 1);
    if (self != 0 && atomic_load(&s->stuck) && atomic_compare_exchange_strong(&s->held, &none, chunk + 1))
        while (atomic_load(&s->stuck))
            sleep_us(100);
    sleep_us(s->us);
}

static edgellm_status run_once(el_run *run, int32_t n_threads)
{
    el_run_reset(run);
    return el_workers_run(run, n_threads, 0, NULL);
}

static void test_all_come(void)
{
    sleepy s = {.us = 500};
    const el_region region = {.run = sleepy_chunk, .job = &s, .n_chunks = SLEEPERS, .wait_for = -1};
    el_run run;

    CHECK(el_run_init(&run, &region, 1, 2) == EDGELLM_OK);
    for (int32_t round = 0; round < 300 && s.seen != 15; round++) {
        CHECK(run_once(&run, 4) == EDGELLM_OK);
        sleep_us(20000); /* asleep by now, and woken by the next round */
    }
    CHECK(s.seen == 15);
    s.seen = 0;
    CHECK(run_once(&run, 1) == EDGELLM_OK && s.seen == 1);
    el_run_clear(&run);
}

/* A worker that does not come back holds up nobody, but for whoever frees what it is in. */
static void test_stuck_worker(void)
{
    sleepy s = {.us = 200};
    const el_region regions[2] = {{.run = sleepy_chunk, .job = &s, .n_chunks = SLEEPERS, .wait_for = -1},
                                  {.run = sleepy_chunk, .job = &s, .n_chunks = SLEEPERS, .wait_for = -1}};
    el_run run;
    bool happened = false;

    CHECK(el_run_init(&run, regions, 2, 3) == EDGELLM_OK);
    for (int32_t round = 0; round < 200 && !happened; round++) {
        for (int32_t i = 0; i < SLEEPERS; i++)
            atomic_store(&s.n_executed[i], 0);
        atomic_store(&s.held, 0);
        atomic_store(&s.stuck, true);
        CHECK(run_once(&run, 3) == EDGELLM_OK);
        happened = s.held > 0 && atomic_load(&s.n_executed[s.held - 1]) > 2; /* twice is once in each region */
        s.stuck = false;
    }
    CHECK(happened);
    el_run_clear(&run);
}

static _Atomic int32_t n_exclusive;

static void exclusive_chunk(const void *job, int32_t chunk, int32_t self)
{
    (void)job;
    (void)chunk;
    (void)self;
    sleep_us(2000);
    atomic_fetch_add(&n_exclusive, 1);
}

static void test_exclusive(void)
{
    const el_region region = {.run = exclusive_chunk, .n_chunks = 3, .wait_for = -1, .exclusive = true};
    el_run run;

    CHECK(el_run_init(&run, &region, 1, 2) == EDGELLM_OK);
    for (int32_t round = 0; round < 5; round++)
        CHECK(run_once(&run, 4) == EDGELLM_OK);
    CHECK(n_exclusive == 15);
    el_run_clear(&run);
}

/* More threads than there may be: as many as there may be. */
static void test_too_many(void)
{
    sleepy s = {.us = 10};
    const el_region region = {.run = sleepy_chunk, .job = &s, .n_chunks = SLEEPERS, .wait_for = -1};
    el_run run;

    CHECK(el_run_init(&run, &region, 1, 2) == EDGELLM_OK);
    CHECK(run_once(&run, 32) == EDGELLM_OK); /* 32 bits in `seen` */
    el_run_clear(&run);
}

static double cpu_ms(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-3;
}

/* After all those threads: one thread's calls wake none of the others, and without calls nobody works. */
static void test_idle_is_free(void)
{
    sleepy s = {.us = 100};
    const el_region region = {.run = sleepy_chunk, .job = &s, .n_chunks = 2, .wait_for = -1};
    double before;
    el_run run;

    CHECK(el_run_init(&run, &region, 1, 2) == EDGELLM_OK);
    CHECK(run_once(&run, 1) == EDGELLM_OK);
    sleep_us(20000);
    before = cpu_ms();
    for (int32_t i = 0; i < 200; i++)
        CHECK(run_once(&run, 1) == EDGELLM_OK);
    printf("  200 calls of one thread: %.1f ms of CPU time\n", cpu_ms() - before);
    CHECK(cpu_ms() - before < 60); /* 31 others, woken each time, would spin for 200 * 31 * 40 us */
    before = cpu_ms();
    sleep_us(100000);
    CHECK(cpu_ms() - before < 20);
    el_run_clear(&run);
}

/* ---- turns ----------------------------------------------------------------------------------------------------------
 */

static void *caller_main(void *count)
{
    sleepy s = {.us = 300};
    const el_region region = {.run = sleepy_chunk, .job = &s, .n_chunks = 4, .wait_for = -1};
    el_run run;

    CHECK(el_run_init(&run, &region, 1, 2) == EDGELLM_OK);
    while (!atomic_load(&enough)) {
        CHECK(run_once(&run, 2) == EDGELLM_OK);
        atomic_fetch_add((_Atomic int32_t *)count, 1);
    }
    el_run_clear(&run);
    return NULL;
}

/* Until each of three threads has made n more calls. */
static void wait_for_calls(_Atomic int32_t *counts, const int32_t *began, int32_t n, double end)
{
    for (int32_t i = 0; i < 3; i++)
        while (atomic_load(&counts[i]) - began[i] < n && el_now_ms() < end)
            sleep_us(1000);
}

static void test_turns(void)
{
    const double end = el_now_ms() + 30e3; /* starved, a thread would not get there */
    static const int32_t zero[3];
    static _Atomic int32_t counts[3];
    int32_t began[3], calls[3];
    pthread_t threads[3];

    atomic_store(&enough, false);
    for (int32_t i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, caller_main, &counts[i]) == 0);
    wait_for_calls(counts, zero, 1, end); /* a busy machine may start a thread late */
    for (int32_t i = 0; i < 3; i++)
        began[i] = atomic_load(&counts[i]);
    wait_for_calls(counts, began, 60, end);
    atomic_store(&enough, true);
    for (int32_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (int32_t i = 0; i < 3; i++)
        calls[i] = counts[i] - began[i];
    printf("  calls of three threads: %d %d %d\n", calls[0], calls[1], calls[2]);
    for (int32_t i = 0; i < 3; i++)
        CHECK(calls[i] >= 60 && calls[i] * 8 > calls[(i + 1) % 3]);
}

/* ---- fork -----------------------------------------------------------------------------------------------------------
 */

#ifndef __SANITIZE_THREAD__ /* which starts no threads in a child of several */

static void run_in_child(void)
{
    hammer h = {0};
    uint32_t random = 3;
    chain *c = new_chain(11);
    pid_t child;
    int wait_status = -1;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        alarm(120);
        atomic_store(&failures, 0);
        for (int32_t i = 0; i < 5; i++)
            run_to_end(&h, c, &random);
        test_all_come();
        _exit(failures != 0);
    }
    waitpid(child, &wait_status, 0);
    CHECK(WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0);
    run_to_end(&h, c, &random);
    free_chain(c);
}

/* In a process at rest, and while another thread is in the middle of a call. */
static void test_fork(void)
{
    static _Atomic int32_t count;
    pthread_t thread;

    run_in_child();
    atomic_store(&enough, false);
    CHECK(pthread_create(&thread, NULL, caller_main, &count) == 0);
    for (int32_t i = 0; i < 10; i++) {
        sleep_us(1000 + 177 * i);
        run_in_child();
    }
    atomic_store(&enough, true);
    pthread_join(thread, NULL);
}

#else
static void test_fork(void) { printf("  left out: ThreadSanitizer starts no threads in a forked child\n"); }
#endif

int main(int argc, char **argv)
{
    const double seconds = argc > 1 ? atof(argv[1]) : 2;

    el_workers_redo(true);
    printf("hammer, chunks done again\n");
    test_hammer(seconds, 40);
    el_workers_redo(false);
    printf("hammer, workers wait\n");
    test_hammer(seconds / 2, 5);
    el_workers_redo(true);
    test_all_come();
    test_stuck_worker();
    test_exclusive();
    test_turns();
    test_too_many();
    test_idle_is_free();
    test_fork();
    printf("%s\n", failures ? "FAILED" : "ok");
    return failures != 0;
}
