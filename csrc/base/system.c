/* system.c - affinity, topology, cgroup quota and memory.
 * One thread per physical core: two hyperthreads share one core's arithmetic units and caches, and a second one gains
 * little on work that streams weights from memory while it doubles what every barrier waits for. Where all CPUs of a
 * small virtual machine are siblings of one core, that still means one thread; -t says otherwise.
 * Sources: Linux Documentation/admin-guide/cputopology.rst, cgroup-v2.rst, cgroup-v1/memory.rst, scheduler/sched-bwc.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "system.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#include <windows.h>
#endif

static void settle(el_system *s)
{
    s->n_logical = EL_MAX(s->n_logical, 1);
    s->n_allowed = EL_MAX(s->n_allowed, 1);
    s->n_cores = EL_MAX(s->n_cores, 1);
    s->n_performance = EL_MAX(s->n_performance, 1);
    s->n_threads = s->n_performance;
    if (s->quota > 0 && s->quota < s->n_threads)
        s->n_threads = EL_MAX((int)s->quota, 1);
}

#if defined(__linux__)

enum { TEXT = 4096, MAX_CPUS = 1024, CPUS_IN_MASK = 8192 };

/* The start of the small file root + folder + name, NUL-terminated. False when it cannot be read. */
static bool read_text(char *out, size_t cap, const char *root, const char *folder, const char *name)
{
    char full[TEXT];
    FILE *f;
    size_t n;

    if (snprintf(full, sizeof full, "%s%s%s", root, folder, name) >= (int)sizeof full)
        return false;
    f = fopen(full, "r");
    if (!f)
        return false;
    n = fread(out, 1, cap - 1, f);
    out[n] = 0;
    fclose(f);
    return n > 0;
}

static bool read_number(uint64_t *out, const char *root, const char *folder, const char *name)
{
    char text[64], *end;

    if (!read_text(text, sizeof text, root, folder, name) || text[0] < '0' || text[0] > '9')
        return false; /* "max" and "-1" mean no limit */
    *out = strtoull(text, &end, 10);
    return end != text;
}

/* The value of "key" in lines of "key value" or "key: value". */
static bool find_number(uint64_t *out, const char *text, const char *key)
{
    const size_t n = strlen(key);

    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, key, n) == 0 && (line[n] == ' ' || line[n] == ':')) {
            *out = strtoull(line + n + 1, NULL, 10);
            return true;
        }
    return false;
}

/* ---- CPUs ------------------------------------------------------------------------------- */

/* "0-3,8" into one bool per CPU; returns how many. */
static int parse_list(bool *set, const char *text)
{
    int count = 0;

    memset(set, 0, MAX_CPUS * sizeof *set);
    while (*text >= '0' && *text <= '9') {
        char *end;
        const long first = strtol(text, &end, 10);
        const long last = *end == '-' ? strtol(end + 1, &end, 10) : first;

        for (long i = first; i <= last && i < MAX_CPUS; i++)
            if (!set[i]) {
                set[i] = true;
                count++;
            }
        text = *end == ',' ? end + 1 : end;
    }
    return count;
}

static int read_affinity(bool *allowed)
{
    cpu_set_t *mask = CPU_ALLOC(CPUS_IN_MASK);
    const size_t size = CPU_ALLOC_SIZE(CPUS_IN_MASK);
    int count = 0;

    memset(allowed, 0, MAX_CPUS * sizeof *allowed);
    if (mask && sched_getaffinity(0, size, mask) == 0)
        for (int i = 0; i < MAX_CPUS; i++)
            if (CPU_ISSET_S((size_t)i, size, mask)) {
                allowed[i] = true;
                count++;
            }
    CPU_FREE(mask);
    return count;
}

/* The same small file of each allowed CPU; false where one has none, as for most machines. */
static bool read_of_each(uint32_t *out, const bool *allowed, const char *root, const char *name)
{
    char path[128];
    uint64_t value;

    for (int i = 0; i < MAX_CPUS; i++) {
        out[i] = 0;
        if (!allowed[i])
            continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", i, name);
        if (!read_number(&value, root, "", path))
            return false;
        out[i] = (uint32_t)EL_MIN(value, (uint64_t)1 << 30);
    }
    return true;
}

/* Which CPUs are of a fast kind, as far as the machine says; else all. Intel hybrids list their performance cores, ARM
 * kernels give each CPU a capacity (1024 for the fastest), and elsewhere (older ARM kernels, Zen with compact cores)
 * the highest clock tells. Half the best capacity tells big cores from little ones: A76 and A55 differ by 2.3, two
 * kinds of big by 1.2. Clocks differ less, by 1.3 to 1.6, and by up to 1.1 among cores of one kind. */
static void read_fast(bool *fast, const bool *allowed, const char *root)
{
    char text[TEXT];
    uint32_t value[MAX_CPUS], best = 0;
    bool any = false;
    double share = 0;

    if (read_text(text, sizeof text, root, "", "/sys/devices/cpu_core/cpus") && parse_list(fast, text) > 0) {
        for (int i = 0; i < MAX_CPUS; i++)
            any = any || (allowed[i] && fast[i]);
        if (any)
            return;
    } else if (read_of_each(value, allowed, root, "cpu_capacity")) {
        share = 0.5;
    } else if (read_of_each(value, allowed, root, "cpufreq/cpuinfo_max_freq")) {
        share = 0.8;
    }
    for (int i = 0; i < MAX_CPUS && share > 0; i++)
        best = EL_MAX(best, value[i]);
    for (int i = 0; i < MAX_CPUS; i++)
        fast[i] = share == 0 || value[i] >= share * best; /* all when only slow ones are allowed */
}

static void read_cpus(el_system *s, const char *root)
{
    bool online[MAX_CPUS], allowed[MAX_CPUS], siblings[MAX_CPUS], fast[MAX_CPUS];
    char path[128], text[TEXT];

    if (read_text(text, sizeof text, root, "", "/sys/devices/system/cpu/online"))
        s->n_logical = parse_list(online, text);
    else
        s->n_logical = (int)sysconf(_SC_NPROCESSORS_ONLN);
    s->n_allowed = read_affinity(allowed);
    if (root[0] && read_text(text, sizeof text, root, "", "/affinity")) /* a test's stand-in for the system call */
        s->n_allowed = parse_list(allowed, text);
    read_fast(fast, allowed, root);
    for (int i = 0; i < MAX_CPUS; i++) {
        bool first = allowed[i];

        if (!allowed[i])
            continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", i);
        if (read_text(text, sizeof text, root, "", path) && parse_list(siblings, text) > 0)
            for (int j = 0; j < i; j++)
                if (siblings[j] && allowed[j])
                    first = false; /* its core has been counted */
        if (!first)
            continue;
        s->n_cores++;
        if (fast[i])
            s->n_performance++;
    }
}

/* ---- cgroups ---------------------------------------------------------------------------- */

/* The process's path below controller ("" for v2) from /proc/self/cgroup: "4:cpu,cpuacct:/a/b" or "0::/a/b". */
static bool cgroup_path(char *out, size_t cap, const char *root, const char *controller)
{
    char text[TEXT];
    const char *line = text;

    if (!read_text(text, sizeof text, root, "", "/proc/self/cgroup"))
        return false;
    while (line && *line) {
        const char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        const char *end = strchr(line, '\n');

        if (path && (!end || path < end)) {
            const size_t n_names = (size_t)(path - names - 1), want = strlen(controller);
            bool match = n_names == want && want == 0;

            for (const char *p = names + 1; want > 0 && p < path; p += strcspn(p, ",:") + 1)
                if (strcspn(p, ",:") == want && strncmp(p, controller, want) == 0)
                    match = true;
            if (match) {
                snprintf(out, cap, "%.*s", (int)(end ? end - path - 1 : (long)strlen(path + 1)), path + 1);
                return true;
            }
        }
        line = end ? end + 1 : NULL;
    }
    return false;
}

typedef struct cgroup { /* what one level says */
    double quota;
    uint64_t limit, used;
} cgroup;

/* Memory a cgroup could still take: page cache that is not in use can go, so it does not count as used. */
static void read_memory_group(cgroup *g, const char *root, const char *dir, const char *limit, const char *usage,
                              const char *inactive)
{
    char text[TEXT];
    uint64_t cache = 0;

    if (!read_number(&g->limit, root, dir, limit))
        return;
    if (!read_number(&g->used, root, dir, usage))
        g->used = 0;
    if (read_text(text, sizeof text, root, dir, "/memory.stat") && find_number(&cache, text, inactive))
        g->used -= EL_MIN(cache, g->used);
}

static void read_group_v2(cgroup *g, const char *root, const char *dir)
{
    char text[64];
    unsigned long long max, period;

    if (read_text(text, sizeof text, root, dir, "/cpu.max") && sscanf(text, "%llu %llu", &max, &period) == 2 &&
        period > 0)
        g->quota = (double)max / (double)period; /* "max 100000" does not scan */
    read_memory_group(g, root, dir, "/memory.max", "/memory.current", "inactive_file");
}

static void read_group_cpu_v1(cgroup *g, const char *root, const char *dir)
{
    uint64_t max, period;

    if (!read_number(&max, root, dir, "/cpu.cfs_quota_us"))
        return;
    if (read_number(&period, root, dir, "/cpu.cfs_period_us") && period > 0)
        g->quota = (double)max / (double)period;
}

static void read_group_memory_v1(cgroup *g, const char *root, const char *dir)
{
    read_memory_group(g, root, dir, "/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file");
}

static void apply(el_system *s, const cgroup *g)
{
    if (g->quota > 0 && (s->quota == 0 || g->quota < s->quota))
        s->quota = g->quota;
    /* Without a limit, v1 reports a number near 2^63. */
    if (g->limit == 0 || (s->memory_total > 0 && g->limit >= s->memory_total))
        return;
    if (s->memory_limit == 0 || g->limit < s->memory_limit)
        s->memory_limit = g->limit;
    s->memory_available = EL_MIN(s->memory_available, g->limit - EL_MIN(g->used, g->limit));
}

/* A limit binds everything below it, so every level up to the mount counts. Inside a container the path may not exist
 * under the mount, which then shows the container's own group at its top: going up ends there too. */
static void walk_up(el_system *s, const char *root, const char *mount, const char *below,
                    void (*read_group)(cgroup *, const char *, const char *))
{
    char dir[TEXT];
    const size_t top = strlen(mount);

    if (snprintf(dir, sizeof dir, "%s%s", mount, below) >= (int)sizeof dir)
        return;
    for (;;) {
        cgroup g = {0, 0, 0};
        char *slash;

        read_group(&g, root, dir);
        apply(s, &g);
        slash = strrchr(dir, '/');
        if (strlen(dir) <= top || !slash)
            return;
        *(slash < dir + top ? dir + top : slash) = 0;
    }
}

static void read_cgroups(el_system *s, const char *root)
{
    static const char *const cpu_mounts[] = {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"};
    char below[1024];

    if (cgroup_path(below, sizeof below, root, ""))
        walk_up(s, root, "/sys/fs/cgroup", below, read_group_v2);
    if (cgroup_path(below, sizeof below, root, "cpu"))
        for (size_t i = 0; i < EL_COUNT(cpu_mounts); i++)
            walk_up(s, root, cpu_mounts[i], below, read_group_cpu_v1);
    if (cgroup_path(below, sizeof below, root, "memory"))
        walk_up(s, root, "/sys/fs/cgroup/memory", below, read_group_memory_v1);
}

void el_system_read(el_system *s, const char *root)
{
    char text[TEXT];
    uint64_t kib;

    memset(s, 0, sizeof *s);
    read_cpus(s, root);
    if (read_text(text, sizeof text, root, "", "/proc/meminfo")) {
        if (find_number(&kib, text, "MemTotal"))
            s->memory_total = kib * 1024;
        if (find_number(&kib, text, "MemAvailable") || find_number(&kib, text, "MemFree"))
            s->memory_available = kib * 1024;
    }
    read_cgroups(s, root);
    settle(s);
}

#elif defined(__APPLE__)

static uint64_t ask(const char *name)
{
    uint64_t value = 0;
    size_t n = sizeof value; /* little-endian: a 4-byte answer fills the lower half */
    return sysctlbyname(name, &value, &n, NULL, 0) == 0 ? value : 0;
}

void el_system_read(el_system *s, const char *root)
{
    (void)root;
    memset(s, 0, sizeof *s);
    s->n_logical = s->n_allowed = (int)ask("hw.logicalcpu");
    s->n_cores = (int)ask("hw.physicalcpu");
    s->n_performance = (int)ask("hw.perflevel0.physicalcpu");
    if (s->n_performance == 0)
        s->n_performance = s->n_cores;
    s->memory_total = ask("hw.memsize");
    s->memory_available =
        s->memory_total / 2; /* macOS has no figure that means this; half is what it gives willingly */
    settle(s);
}

#elif defined(_WIN32)

void el_system_read(el_system *s, const char *root)
{
    SYSTEM_INFO info;
    MEMORYSTATUSEX memory;
    DWORD_PTR mask = 0, machine = 0;
    static SYSTEM_LOGICAL_PROCESSOR_INFORMATION cores[1024];
    DWORD n = sizeof cores;

    (void)root;
    memset(s, 0, sizeof *s);
    GetSystemInfo(&info);
    s->n_logical = s->n_allowed = (int)info.dwNumberOfProcessors;
    if (GetProcessAffinityMask(GetCurrentProcess(), &mask, &machine) && mask)
        s->n_allowed = __builtin_popcountll(mask);
    else
        mask = (DWORD_PTR)-1;
    if (GetLogicalProcessorInformation(cores, &n))
        for (DWORD i = 0; i < n / sizeof cores[0]; i++)
            if (cores[i].Relationship == RelationProcessorCore && (cores[i].ProcessorMask & mask))
                s->n_cores++;
    s->n_performance = s->n_cores ? s->n_cores : s->n_allowed;
    memory.dwLength = sizeof memory;
    if (GlobalMemoryStatusEx(&memory)) {
        s->memory_total = memory.ullTotalPhys;
        s->memory_available = memory.ullAvailPhys;
    }
    settle(s);
}

#else

void el_system_read(el_system *s, const char *root)
{
    (void)root;
    memset(s, 0, sizeof *s);
    settle(s);
}

#endif

int el_default_threads(void)
{
    static _Atomic int kept; /* the same answer from every thread, so no lock */
    int n = atomic_load_explicit(&kept, memory_order_relaxed);

    if (n == 0) {
        el_system s;
        el_system_read(&s, "");
        n = s.n_threads;
        atomic_store_explicit(&kept, n, memory_order_relaxed);
    }
    return n;
}
