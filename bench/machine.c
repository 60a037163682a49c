/* machine.c - what this machine can do at this moment: bytes read from a mapped file, 8-bit and float multiply-adds,
 * and the processor time that plain spinning threads get beside others. bench/machine.py compiles it with
 * -march=native and talks to it: one command a line, one JSON object back.
 *   read FILE THREADS SECONDS    bytes a second through a mapping of the file, each thread its own part, again and again
 *   int8 THREADS SECONDS         8-bit multiply-adds a second with the best dot instruction of this machine
 *   f32 THREADS SECONDS          float multiply-adds (FMA) a second
 *   spin THREADS SECONDS         rounds of an arithmetic loop a second, all threads together
 * With the one argument "busy" it runs the arithmetic loop for ever: a busy neighbour.
 * The peaks are what registers alone give: no memory is read, so no kernel can pass them. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <signal.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { MAX_THREADS = 256, CHUNK = 1 << 20 };

typedef struct job job;
typedef double work_fn(const job *j);   /* one slice of well under a millisecond; returns the units done */

struct job {
    work_fn *work;
    double seconds;
    const unsigned char *data;          /* read: this thread's part */
    size_t n_bytes;
    size_t *at;
    double units;                       /* out */
    double elapsed;                     /* out */
    pthread_barrier_t *start;
};

static volatile uint64_t sink;          /* results end here, so that no loop can be left out */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- reading -------------------------------------------------------------------------- */

typedef uint64_t u64x4 __attribute__((vector_size(32), aligned(1), may_alias));

static double do_read(const job *j)
{
    u64x4 a = {0}, b = {0}, c = {0}, d = {0};
    if (*j->at >= j->n_bytes)
        *j->at = 0;
    const unsigned char *p = j->data + *j->at;
    const size_t left = j->n_bytes - *j->at, n = (left < CHUNK ? left : CHUNK) & ~(size_t)127;
    for (size_t i = 0; i < n; i += 128) {
        a ^= *(const u64x4 *)(p + i);
        b ^= *(const u64x4 *)(p + i + 32);
        c ^= *(const u64x4 *)(p + i + 64);
        d ^= *(const u64x4 *)(p + i + 96);
    }
    a ^= b ^ c ^ d;
    sink += a[0] ^ a[1] ^ a[2] ^ a[3];
    *j->at += n ? n : left;
    return (double)n;
}

/* ---- multiply-adds -------------------------------------------------------------------- */

/* Ten chains hide the latency of every unit known (4 to 5 cycles, two a cycle). The empty asm makes the compiler
 * believe that the factors change, so that it neither folds nor hoists the products. */
enum { CHAINS = 10, TURNS = 4000 };

#if defined(__AVX512F__)
typedef __m512 fvec;
#define F_SET(x) _mm512_set1_ps(x)
#define F_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define F_HIDE(x) __asm__ volatile("" : "+v"(x))
static const char f_name[] = "AVX-512 FMA";
enum { F_LANES = 16 };
#elif defined(__FMA__)
typedef __m256 fvec;
#define F_SET(x) _mm256_set1_ps(x)
#define F_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define F_HIDE(x) __asm__ volatile("" : "+x"(x))
static const char f_name[] = "AVX2 FMA";
enum { F_LANES = 8 };
#elif defined(__aarch64__)
typedef float32x4_t fvec;
#define F_SET(x) vdupq_n_f32(x)
#define F_FMA(a, b, c) vfmaq_f32(c, a, b)
#define F_HIDE(x) __asm__ volatile("" : "+w"(x))
static const char f_name[] = "NEON FMA";
enum { F_LANES = 4 };
#else
typedef float fvec;
#define F_SET(x) (x)
#define F_FMA(a, b, c) ((a) * (b) + (c))
#define F_HIDE(x) __asm__ volatile("" : "+g"(x))
static const char f_name[] = "scalar multiply and add";
enum { F_LANES = 1 };
#endif

static double do_f32(const job *j)
{
    fvec sum[CHAINS], x = F_SET(0.999f), y = F_SET(0.001f);
    (void)j;
    for (int i = 0; i < CHAINS; i++)
        sum[i] = F_SET((float)i);
    for (int t = 0; t < TURNS; t++) {
        F_HIDE(x);
#pragma GCC unroll 10
        for (int i = 0; i < CHAINS; i++)
            sum[i] = F_FMA(sum[i], x, y);
    }
    float first = 0;
    for (int i = 0; i < CHAINS; i++) {
        memcpy(&first, &sum[i], sizeof first);
        sink += (uint64_t)first;
    }
    return (double)CHAINS * TURNS * F_LANES;
}

#if defined(__AVX512VNNI__) && defined(__AVX512F__)
typedef __m512i ivec;
#define I_SET(x) _mm512_set1_epi8(x)
#define I_DOT(s, a, b) _mm512_dpbusd_epi32(s, a, b)
#define I_HIDE(x) __asm__ volatile("" : "+v"(x))
static const char i_name[] = "AVX-512 VNNI vpdpbusd";
enum { I_MACS = 64 };
#elif defined(__AVXVNNI__)
typedef __m256i ivec;
#define I_SET(x) _mm256_set1_epi8(x)
#define I_DOT(s, a, b) _mm256_dpbusd_avx_epi32(s, a, b)
#define I_HIDE(x) __asm__ volatile("" : "+x"(x))
static const char i_name[] = "AVX-VNNI vpdpbusd";
enum { I_MACS = 32 };
#elif defined(__AVX2__)
/* Without VNNI an exact sum needs three instructions: pairs to 16 bits, pairs of those to 32, add. */
typedef __m256i ivec;
#define I_SET(x) _mm256_set1_epi8(x)
#define I_DOT(s, a, b) _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
#define I_HIDE(x) __asm__ volatile("" : "+x"(x))
static const char i_name[] = "AVX2 vpmaddubsw + vpmaddwd + vpaddd";
enum { I_MACS = 32 };
#elif defined(__ARM_FEATURE_MATMUL_INT8)
typedef int32x4_t ivec;
#define I_SET(x) vreinterpretq_s32_s8(vdupq_n_s8(x))
#define I_DOT(s, a, b) vmmlaq_s32(s, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b))
#define I_HIDE(x) __asm__ volatile("" : "+w"(x))
static const char i_name[] = "NEON smmla";
enum { I_MACS = 32 };
#elif defined(__ARM_FEATURE_DOTPROD)
typedef int32x4_t ivec;
#define I_SET(x) vreinterpretq_s32_s8(vdupq_n_s8(x))
#define I_DOT(s, a, b) vdotq_s32(s, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b))
#define I_HIDE(x) __asm__ volatile("" : "+w"(x))
static const char i_name[] = "NEON sdot";
enum { I_MACS = 16 };
#elif defined(__aarch64__)
typedef int32x4_t ivec;
#define I_SET(x) vreinterpretq_s32_s8(vdupq_n_s8(x))
#define I_DOT(s, a, b)                                                                                       \
    vpadalq_s16(vpadalq_s16(s, vmull_s8(vget_low_s8(vreinterpretq_s8_s32(a)), vget_low_s8(vreinterpretq_s8_s32(b)))), \
                vmull_high_s8(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)))
#define I_HIDE(x) __asm__ volatile("" : "+w"(x))
static const char i_name[] = "NEON smull + sadalp";
enum { I_MACS = 16 };
#else
typedef int32_t ivec;
#define I_SET(x) (x)
#define I_DOT(s, a, b) ((s) + (a) * (b))
#define I_HIDE(x) __asm__ volatile("" : "+g"(x))
static const char i_name[] = "scalar multiply and add";
enum { I_MACS = 1 };
#endif

static double do_int8(const job *j)
{
    ivec sum[CHAINS], x = I_SET(3), y = I_SET(-5);
    (void)j;
    for (int i = 0; i < CHAINS; i++)
        sum[i] = I_SET(0);
    for (int t = 0; t < TURNS; t++) {
#pragma GCC unroll 10
        for (int i = 0; i < CHAINS; i++) {
            I_HIDE(x);
            sum[i] = I_DOT(sum[i], x, y);
        }
    }
    int32_t first = 0;
    for (int i = 0; i < CHAINS; i++) {
        memcpy(&first, &sum[i], sizeof first);
        sink += (uint64_t)(uint32_t)first;
    }
    return (double)CHAINS * TURNS * I_MACS;
}

/* ---- spinning ------------------------------------------------------------------------- */

static double do_spin(const job *j)
{
    uint64_t x = sink | 1;
    (void)j;
    for (int i = 0; i < 20000; i++)     /* about 50 us; a chain, so that its speed is that of the core alone */
        x = x * 6364136223846793005u + 1442695040888963407u;
    sink = x;
    return 1;
}

/* ---- commands ------------------------------------------------------------------------- */

static void *thread_main(void *arg)
{
    job *j = arg;
    pthread_barrier_wait(j->start);
    const double began = now();
    do {
        j->units += j->work(j);
        j->elapsed = now() - began;
    } while (j->elapsed < j->seconds);
    return NULL;
}

/* Runs the work on n threads and prints units a second, the sum over the threads. */
static void run(work_fn *work, int n_threads, double seconds, const unsigned char *data, size_t n_bytes, const char *with)
{
    static job jobs[MAX_THREADS];
    static size_t at[MAX_THREADS];
    pthread_t threads[MAX_THREADS];
    pthread_barrier_t start;
    double rate = 0;

    if (n_threads < 1 || n_threads > MAX_THREADS || !(seconds > 0)) {
        printf("{\"error\": \"threads must be 1 to %d and seconds more than 0\"}\n", MAX_THREADS);
        return;
    }
    pthread_barrier_init(&start, NULL, (unsigned)n_threads);
    for (int i = 0; i < n_threads; i++) {
        const size_t part = n_bytes / (size_t)n_threads & ~(size_t)63;
        at[i] = 0;
        jobs[i] = (job){.work = work, .seconds = seconds, .data = data ? data + part * (size_t)i : NULL,
                        .n_bytes = part, .at = &at[i], .start = &start};
        if (pthread_create(&threads[i], NULL, thread_main, &jobs[i])) {
            printf("{\"error\": \"thread %d could not be started\"}\n", i);
            exit(1);                    /* the others wait at the barrier for ever */
        }
    }
    for (int i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
        rate += jobs[i].units / jobs[i].elapsed;
    }
    pthread_barrier_destroy(&start);
    printf("{\"per_second\": %.6e, \"with\": \"%s\"}\n", rate, with);
}

/* The file stays mapped between commands; the pages are touched once, outside the time. */
static const unsigned char *map(const char *path, size_t *n_bytes)
{
    static char mapped_path[4096];
    static const unsigned char *mapped;
    static size_t mapped_bytes;
    struct stat st;

    if (mapped && !strcmp(path, mapped_path)) {
        *n_bytes = mapped_bytes;
        return mapped;
    }
    if (mapped)
        munmap((void *)(uintptr_t)mapped, mapped_bytes);
    mapped = NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || st.st_size < 4096) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return NULL;
    mapped = p;
    mapped_bytes = *n_bytes = (size_t)st.st_size;
    snprintf(mapped_path, sizeof mapped_path, "%s", path);
    return mapped;
}

static void command(const char *line)
{
    static char path[4096];
    int n_threads = 0, used = 0;
    double seconds = 0;
    size_t n_bytes = 0;

    if (sscanf(line, "read %d %lf %n", &n_threads, &seconds, &used) == 2 && used) {
        snprintf(path, sizeof path, "%.*s", (int)strcspn(line + used, "\n"), line + used);
        const unsigned char *data = map(path, &n_bytes);
        if (data)
            run(do_read, n_threads, seconds, data, n_bytes, "mapping");
        else
            printf("{\"error\": \"the file cannot be mapped or is under 4 KB\"}\n");
    } else if (sscanf(line, "int8 %d %lf", &n_threads, &seconds) == 2) {
        run(do_int8, n_threads, seconds, NULL, 0, i_name);
    } else if (sscanf(line, "f32 %d %lf", &n_threads, &seconds) == 2) {
        run(do_f32, n_threads, seconds, NULL, 0, f_name);
    } else if (sscanf(line, "spin %d %lf", &n_threads, &seconds) == 2) {
        run(do_spin, n_threads, seconds, NULL, 0, "spin");
    } else {
        printf("{\"error\": \"unknown command\"}\n");
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static char line[8192];

    prctl(PR_SET_PDEATHSIG, SIGKILL);   /* whatever happens to the caller, no neighbour stays busy */
    if (argc == 2 && !strcmp(argv[1], "busy"))
        for (;;)
            do_spin(NULL);
    while (fgets(line, sizeof line, stdin))
        command(line);
    return 0;
}
