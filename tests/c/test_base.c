/* test_base.c - csrc/base: CPU features, the machine's limits from made-up kernel files, struct sizes, JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "edgellm.h"

#include "cpu.h"
#include "dynload.h"
#include "error.h"
#include "mem.h"
#include "system.h"

static int failures;
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

/* ---- a small tree of files that stands for /proc and /sys ------------------------------ */

static char root[] = "/tmp/edgellm_test_XXXXXX";

static void put(const char *path, const char *text)
{
    char full[512];
    FILE *f;

    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = 0;
        mkdir(full, 0700);
        *slash = '/';
    }
    f = fopen(full, "w");
    CHECK(f);
    if (f) {
        fputs(text, f);
        fclose(f);
    }
}

static void clear_tree(void)
{
    char command[64];

    snprintf(command, sizeof command, "rm -rf %s", root);
    CHECK(system(command) == 0 && mkdir(root, 0700) == 0);
}

/* n CPUs with `per_core` hyperthreads each, numbered as Linux does on x86: core i holds CPUs i and i + cores. */
static void put_cpus(int n, int per_core)
{
    char path[128], text[64];
    const int cores = n / per_core;

    snprintf(text, sizeof text, "0-%d\n", n - 1);
    put("/sys/devices/system/cpu/online", text);
    put("/affinity", text);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", i);
        if (per_core == 1)
            snprintf(text, sizeof text, "%d\n", i);
        else
            snprintf(text, sizeof text, "%d,%d\n", i % cores, i % cores + cores);
        put(path, text);
    }
    put("/proc/meminfo", "MemTotal:       8000000 kB\nMemFree:  100 kB\nMemAvailable:   6000000 kB\n");
}

static el_system read_tree(void)
{
    el_system s;
    el_system_read(&s, root);
    return s;
}

static void test_cores(void)
{
    el_system s;

    clear_tree();
    put_cpus(8, 2);
    s = read_tree();
    CHECK(s.n_logical == 8 && s.n_allowed == 8 && s.n_cores == 4 && s.n_performance == 4 && s.n_threads == 4);
    CHECK(s.quota == 0 && s.memory_total == 8000000ull * 1024 && s.memory_available == 6000000ull * 1024);

    put("/affinity", "1,5,6\n"); /* 1 and 5 are one core */
    s = read_tree();
    CHECK(s.n_allowed == 3 && s.n_cores == 2 && s.n_threads == 2);

    clear_tree(); /* no topology files at all: every CPU counts */
    put("/affinity", "0-2\n");
    s = read_tree();
    CHECK(s.n_cores == 3 && s.n_threads == 3);
}

static void test_big_little(void)
{
    const char *capacity[] = {"400\n", "400\n", "400\n", "400\n", "900\n", "900\n", "900\n", "1024\n"};
    char path[128];
    el_system s;

    clear_tree();
    put_cpus(8, 1);
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpu_capacity", i);
        put(path, capacity[i]);
    }
    s = read_tree();
    CHECK(s.n_cores == 8 && s.n_performance == 4 && s.n_threads == 4);
    put("/affinity", "0-3\n"); /* only little ones: they are the best there is */
    s = read_tree();
    CHECK(s.n_performance == 4);

    clear_tree(); /* an Intel hybrid: 4 performance CPUs on 2 cores are listed, the others have no such list */
    put_cpus(8, 1);
    put("/sys/devices/cpu_core/cpus", "0-3\n");
    s = read_tree();
    CHECK(s.n_cores == 8 && s.n_performance == 4);
    put("/affinity", "4-7\n"); /* only efficient ones */
    s = read_tree();
    CHECK(s.n_cores == 4 && s.n_performance == 4);

    clear_tree(); /* neither list nor capacity: the highest clock tells, and 7 % is not another kind */
    put_cpus(8, 1);
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq", i);
        put(path, i == 0 ? "5100000\n" : i < 4 ? "4750000\n" : "3300000\n");
    }
    s = read_tree();
    CHECK(s.n_cores == 8 && s.n_performance == 4 && s.n_threads == 4);
    put("/sys/fs/cgroup/cpu.max", "250000 100000\n");
    put("/proc/self/cgroup", "0::/\n");
    s = read_tree();
    CHECK(s.n_performance == 4 && s.n_threads == 2); /* fewest of affinity, kind and quota */
    put("/affinity", "3,4\n");
    s = read_tree();
    CHECK(s.n_cores == 2 && s.n_performance == 1 && s.n_threads == 1);
}

static void test_quota(void)
{
    el_system s;

    clear_tree();
    put_cpus(8, 1);
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/cpu.max", "350000 100000\n"); /* the parent's limit binds */
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/a/b/memory.max", "1073741824\n");
    put("/sys/fs/cgroup/a/b/memory.current", "536870912\n");
    put("/sys/fs/cgroup/a/b/memory.stat", "anon 1\ninactive_file 268435456\n");
    s = read_tree();
    CHECK(s.quota == 3.5 && s.n_threads == 3);
    CHECK(s.memory_limit == 1073741824ull && s.memory_available == 1073741824ull - 268435456ull);

    put("/sys/fs/cgroup/a/b/cpu.max", "50000 100000\n"); /* half a CPU is still one thread */
    s = read_tree();
    CHECK(s.quota == 0.5 && s.n_threads == 1);

    clear_tree(); /* version 1, and a path that does not exist inside the container */
    put_cpus(8, 1);
    put("/proc/self/cgroup", "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* means none */
    s = read_tree();
    CHECK(s.quota == 2 && s.n_threads == 2 && s.memory_limit == 0);

    put("/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "150000\n"); /* a level in between binds */
    put("/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us", "100000\n");
    s = read_tree();
    CHECK(s.quota == 1.5 && s.n_threads == 1);
    put("/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "-1\n");

    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000000\n");
    s = read_tree();
    CHECK(s.quota == 0 && s.memory_limit == 1000000000ull && s.memory_available == 1000000000ull);
}

static void test_this_machine(void)
{
    el_system s;

    el_system_read(&s, "");
    CHECK(s.n_threads >= 1 && s.n_threads <= s.n_cores && s.n_cores <= s.n_allowed && s.n_allowed <= s.n_logical);
    CHECK(s.memory_total >= s.memory_available && s.memory_available > 0);
    CHECK(el_default_threads() == s.n_threads);
}

/* ---- CPU features --------------------------------------------------------------------- */

static void test_cpu(void)
{
    const uint32_t all = ~(1u << 31);
    uint32_t left, bit;

    CHECK((el_cpu_used() & ~el_cpu_found()) == 0);
    CHECK(el_cpu_disable(el_cpu_found(), NULL) == el_cpu_found() &&
          el_cpu_disable(el_cpu_found(), "") == el_cpu_found());
    left = el_cpu_disable(all, "avx2, dotprod,,nonsense");
    CHECK(!(left & (EL_CPU_AVX2 | EL_CPU_AVX512 | EL_CPU_AVX512VNNI | EL_CPU_AVXVNNI | EL_CPU_DOTPROD | EL_CPU_I8MM)));
    CHECK((left & EL_CPU_AVX) && (left & EL_CPU_FMA) && (left & EL_CPU_NEON) && (left & EL_CPU_SSE42));
    left = el_cpu_disable(all, "avx");
    CHECK(!(left & (EL_CPU_AVX | EL_CPU_FMA | EL_CPU_F16C | EL_CPU_AVX2 | EL_CPU_AVX512)) && (left & EL_CPU_BMI2));
    CHECK(el_cpu_disable(all, "avx5") == el_cpu_disable(all, "")); /* no abbreviations */
    for (size_t i = 0; el_cpu_feature(i, &bit); i++)
        CHECK(bit && (bit & (bit - 1)) == 0);
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init(); /* the compiler's own detection as a second opinion; zig's knows nothing, not even SSE2 */
    if (__builtin_cpu_supports("sse2")) {
        CHECK(!(el_cpu_found() & EL_CPU_AVX2) == !__builtin_cpu_supports("avx2"));
        CHECK(!(el_cpu_found() & EL_CPU_FMA) == !__builtin_cpu_supports("fma"));
        CHECK(!(el_cpu_found() & EL_CPU_SSE42) == !__builtin_cpu_supports("sse4.2"));
        CHECK(!(el_cpu_found() & EL_CPU_AVX512) == !__builtin_cpu_supports("avx512bw"));
    }
#endif
}

/* ---- the boundary --------------------------------------------------------------------- */

static void test_json(void)
{
    char full[8192], cut[10] = "123456789";
    const size_t n = edgellm_system_json(full, sizeof full);

    CHECK(n > 100 && n < sizeof full && n == strlen(full) && full[0] == '{' && full[n - 1] == '}');
    CHECK(edgellm_system_json(NULL, 0) == n || n > 0); /* available memory may have changed its number of digits */
    edgellm_system_json(cut, sizeof cut);
    CHECK(strlen(cut) == sizeof cut - 1 && memcmp(cut, full, sizeof cut - 1) == 0);
}

static void test_sizes(void)
{
    CHECK(strcmp(edgellm_version(), EDGELLM_VERSION) == 0);
    CHECK(edgellm_struct_size("edgellm_item") == sizeof(edgellm_item));
    CHECK(edgellm_struct_size("edgellm_sampling") == sizeof(edgellm_sampling));
    CHECK(edgellm_struct_size("edgellm_sampled") == sizeof(edgellm_sampled));
    CHECK(edgellm_struct_size("nonsense") == 0 && edgellm_struct_size(NULL) == 0);
}

static void test_dynload(void)
{
    char folder[4096], tiny[4];
    el_dl_function *f = (el_dl_function *)test_sizes;

    CHECK(el_dl_folder(folder, sizeof folder) == EDGELLM_OK && folder[0] == '/');
    CHECK(el_dl_folder(tiny, sizeof tiny) == EDGELLM_EIO);
    CHECK(el_dl_load("/nowhere/lib.so", "x", &f) == EDGELLM_EIO && f == NULL);
    CHECK(strstr(el_error_text(), "/nowhere/lib.so") != NULL);
}

int main(void)
{
    if (!mkdtemp(root))
        return 1;
    test_cores();
    test_big_little();
    test_quota();
    test_this_machine();
    test_cpu();
    test_json();
    test_sizes();
    test_dynload();
    clear_tree();
    rmdir(root);
    return failures != 0;
}
