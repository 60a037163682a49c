/* cpu.c - CPUID with the XGETBV check on x86; HWCAP, sysctl or IsProcessorFeaturePresent on ARM.
 * Sources: Intel SDM vol. 1, 13.2 and 14.3 (the operating system's part in XCR0); Linux uapi asm/hwcap.h. */
#include "cpu.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "mem.h"

#if defined(__x86_64__) || defined(__i386__)
#define EL_X86 1
#include <cpuid.h>
#elif defined(__aarch64__)
#define EL_ARM64 1
#elif defined(__arm__)
#define EL_ARM32 1
#endif

#if defined(__linux__) && (defined(EL_ARM64) || defined(EL_ARM32))
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#include <windows.h>
#endif

static const struct {
    const char *name;
    uint32_t bit;
    uint32_t needs; /* without these it is off as well */
} features[] = {
    {"sse3", EL_CPU_SSE3, 0},
    {"ssse3", EL_CPU_SSSE3, EL_CPU_SSE3},
    {"sse42", EL_CPU_SSE42, EL_CPU_SSSE3},
    {"avx", EL_CPU_AVX, EL_CPU_SSE42},
    {"f16c", EL_CPU_F16C, EL_CPU_AVX},
    {"fma", EL_CPU_FMA, EL_CPU_AVX},
    {"bmi2", EL_CPU_BMI2, 0},
    {"avx2", EL_CPU_AVX2, EL_CPU_AVX},
    {"avxvnni", EL_CPU_AVXVNNI, EL_CPU_AVX2},
    {"avx512", EL_CPU_AVX512, EL_CPU_AVX2 | EL_CPU_FMA | EL_CPU_F16C},
    {"avx512vnni", EL_CPU_AVX512VNNI, EL_CPU_AVX512},
    {"avx512vbmi", EL_CPU_AVX512VBMI, EL_CPU_AVX512},
    {"avx512bf16", EL_CPU_AVX512BF16, EL_CPU_AVX512},
    {"neon", EL_CPU_NEON, 0},
    {"fp16", EL_CPU_FP16, EL_CPU_NEON},
    {"dotprod", EL_CPU_DOTPROD, EL_CPU_NEON},
    {"i8mm", EL_CPU_I8MM, EL_CPU_DOTPROD},
    {"bf16", EL_CPU_BF16, EL_CPU_NEON},
    {"sve", EL_CPU_SVE, EL_CPU_NEON},
    {"sve2", EL_CPU_SVE2, EL_CPU_SVE},
};

const char *el_cpu_feature(size_t i, uint32_t *bit)
{
    if (i >= EL_COUNT(features))
        return NULL;
    *bit = features[i].bit;
    return features[i].name;
}

/* ---- detection ------------------------------------------------------------------------ */

#if defined(EL_X86)

static uint64_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0)); /* the intrinsic would need -mxsave */
    return (uint64_t)hi << 32 | lo;
}

static uint32_t detect(void)
{
    enum { SAVES_AVX = 0x6, SAVES_AVX512 = 0xe6 };
    uint32_t a, b, c, d, found = 0;
    uint64_t saved = 0;

    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    if (c & (1u << 27)) /* OSXSAVE: xgetbv exists */
        saved = xcr0();
    if (c & (1u << 0))
        found |= EL_CPU_SSE3;
    if (c & (1u << 9))
        found |= EL_CPU_SSSE3;
    if ((c & (1u << 19)) && (c & (1u << 20)) && (c & (1u << 23)))
        found |= EL_CPU_SSE42;
    if ((saved & SAVES_AVX) == SAVES_AVX) {
        if (c & (1u << 28))
            found |= EL_CPU_AVX;
        if (c & (1u << 29))
            found |= EL_CPU_F16C;
        if (c & (1u << 12))
            found |= EL_CPU_FMA;
    }
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return found;
    if (b & (1u << 8))
        found |= EL_CPU_BMI2;
    if ((found & EL_CPU_AVX) && (b & (1u << 5)))
        found |= EL_CPU_AVX2;
    if ((saved & SAVES_AVX512) == SAVES_AVX512) {
        const uint32_t all = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31; /* F DQ CD BW VL */
        if ((b & all) == all)
            found |= EL_CPU_AVX512;
        if (c & (1u << 11))
            found |= EL_CPU_AVX512VNNI;
        if (c & (1u << 1))
            found |= EL_CPU_AVX512VBMI;
    }
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) { /* leaf 7.0 says in a how far 7.x goes */
        if (a & (1u << 4))
            found |= EL_CPU_AVXVNNI;
        if ((found & EL_CPU_AVX512) && (a & (1u << 5)))
            found |= EL_CPU_AVX512BF16;
    }
    return found;
}

#elif defined(EL_ARM64) && defined(__linux__)

static uint32_t detect(void)
{
    const unsigned long hw = getauxval(16), hw2 = getauxval(26); /* AT_HWCAP, AT_HWCAP2; 0 when the kernel is silent */
    uint32_t found = EL_CPU_NEON;                                /* part of armv8-a */

    if ((hw & (1ul << 9)) && (hw & (1ul << 10))) /* FPHP, ASIMDHP */
        found |= EL_CPU_FP16;
    if (hw & (1ul << 20))
        found |= EL_CPU_DOTPROD;
    if (hw & (1ul << 22))
        found |= EL_CPU_SVE;
    if (hw2 & (1ul << 1))
        found |= EL_CPU_SVE2;
    if (hw2 & (1ul << 13))
        found |= EL_CPU_I8MM;
    if (hw2 & (1ul << 14))
        found |= EL_CPU_BF16;
    return found;
}

#elif defined(EL_ARM32) && defined(__linux__)

static uint32_t detect(void)
{
    const unsigned long hw = getauxval(16);
    uint32_t found = 0;

    if ((hw & (1ul << 12)) && (hw & (1ul << 16))) /* NEON, VFPv4 */
        found |= EL_CPU_NEON;
    if (hw & (1ul << 24))
        found |= EL_CPU_DOTPROD;
    if (hw & (1ul << 27))
        found |= EL_CPU_I8MM;
    return found;
}

#elif defined(EL_ARM64) && defined(__APPLE__)

static int has(const char *name)
{
    int value = 0;
    size_t n = sizeof value;
    return sysctlbyname(name, &value, &n, NULL, 0) == 0 && value;
}

static uint32_t detect(void)
{
    uint32_t found = EL_CPU_NEON;

    if (has("hw.optional.arm.FEAT_FP16"))
        found |= EL_CPU_FP16;
    if (has("hw.optional.arm.FEAT_DotProd"))
        found |= EL_CPU_DOTPROD;
    if (has("hw.optional.arm.FEAT_I8MM"))
        found |= EL_CPU_I8MM;
    if (has("hw.optional.arm.FEAT_BF16"))
        found |= EL_CPU_BF16;
    return found;
}

#elif defined(EL_ARM64) && defined(_WIN32)

static uint32_t detect(void)
{
    return EL_CPU_NEON |
           (IsProcessorFeaturePresent(43) ? EL_CPU_DOTPROD : 0u); /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */
}

#else

static uint32_t detect(void)
{
#if defined(EL_ARM64)
    return EL_CPU_NEON;
#else
    return 0;
#endif
}

#endif

/* ---- what may be used ------------------------------------------------------------------- */

static uint32_t close_over_needs(uint32_t set)
{
    /* The table lists what a feature needs before the feature itself, so that one pass is enough. */
    for (size_t i = 0; i < EL_COUNT(features); i++)
        if ((features[i].needs & ~set) != 0)
            set &= ~features[i].bit;
    return set;
}

uint32_t el_cpu_disable(uint32_t found, const char *list)
{
    while (list && *list) {
        size_t n = strcspn(list, ", "), i = 0;
        const el_str name = {list, n};

        while (i < EL_COUNT(features) && !el_str_eq(name, features[i].name))
            i++;
        if (i < EL_COUNT(features))
            found &= ~features[i].bit;
        else if (n > 0)
            el_log(EL_LOG_WARN, "EDGELLM_CPU_DISABLE: no CPU feature is called '%.*s'", (int)n, list);
        list += n + (list[n] != 0);
    }
    return close_over_needs(found);
}

/* Both answers are the same however often they are worked out, so no lock: bit 31 says that one is there. */
enum { FOUND, USED, ANSWERS };
static _Atomic uint32_t answers[ANSWERS];

static uint32_t ask_once(int which)
{
    uint32_t value = atomic_load_explicit(&answers[which], memory_order_relaxed);

    if (value == 0) {
        value = close_over_needs(detect());
        if (which == USED)
            value = el_cpu_disable(value, getenv("EDGELLM_CPU_DISABLE"));
        value |= 1u << 31;
        atomic_store_explicit(&answers[which], value, memory_order_relaxed);
    }
    return value & ~(1u << 31);
}

uint32_t el_cpu_found(void) { return ask_once(FOUND); }
uint32_t el_cpu_used(void) { return ask_once(USED); }

/* ---- its name ----------------------------------------------------------------------------- */

static void trim(char *s)
{
    size_t from = strspn(s, " \t"), n = strlen(s);

    while (n > from && strchr(" \t\r\n", s[n - 1]))
        n--;
    memmove(s, s + from, n - from);
    s[n - from] = 0;
}

#if defined(EL_X86)

void el_cpu_brand(char *out, size_t cap)
{
    uint32_t words[12] = {0};
    char text[sizeof words + 1];

    if (cap == 0)
        return;
    out[0] = 0;
    for (uint32_t i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]))
            return;
    memcpy(text, words, sizeof words);
    text[sizeof words] = 0;
    trim(text);
    snprintf(out, cap, "%s", text);
}

#elif defined(__APPLE__)

void el_cpu_brand(char *out, size_t cap)
{
    size_t n = cap;
    if (cap > 0 && sysctlbyname("machdep.cpu.brand_string", out, &n, NULL, 0) != 0)
        out[0] = 0;
}

#else

/* The first line of /proc/cpuinfo that starts with key: its value. */
static int cpuinfo(const char *key, char *out, size_t cap)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    int found = 0;

    while (f && !found && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (colon && strncmp(line, key, strlen(key)) == 0) {
            trim(colon + 1);
            snprintf(out, cap, "%s", colon + 1);
            found = 1;
        }
    }
    if (f)
        fclose(f);
    return found;
}

/* Part numbers of the MIDR register's Arm Ltd. implementer, from the cores' reference manuals. */
static const char *core_name(unsigned part)
{
    static const struct {
        unsigned part;
        const char *name;
    } cores[] = {{0xb76, "ARM1176"},     {0xc07, "Cortex-A7"},   {0xc08, "Cortex-A8"},  {0xc09, "Cortex-A9"},
                 {0xc0f, "Cortex-A15"},  {0xd03, "Cortex-A53"},  {0xd05, "Cortex-A55"}, {0xd07, "Cortex-A57"},
                 {0xd08, "Cortex-A72"},  {0xd09, "Cortex-A73"},  {0xd0a, "Cortex-A75"}, {0xd0b, "Cortex-A76"},
                 {0xd0c, "Neoverse-N1"}, {0xd40, "Neoverse-V1"}, {0xd41, "Cortex-A78"}, {0xd49, "Neoverse-N2"},
                 {0xd4f, "Neoverse-V2"}};
    for (size_t i = 0; i < EL_COUNT(cores); i++)
        if (cores[i].part == part)
            return cores[i].name;
    return NULL;
}

void el_cpu_brand(char *out, size_t cap)
{
    char board[128] = "", text[64] = "";
    const char *core = NULL;
    FILE *f = fopen("/proc/device-tree/model", "r");

    if (f) {
        board[fread(board, 1, sizeof board - 1, f)] = 0;
        fclose(f);
    }
    if (cpuinfo("CPU implementer", text, sizeof text) && strtoul(text, NULL, 0) == 0x41 &&
        cpuinfo("CPU part", text, sizeof text))
        core = core_name((unsigned)strtoul(text, NULL, 0));
    if (!core && (cpuinfo("model name", text, sizeof text) || cpuinfo("Hardware", text, sizeof text)))
        core = text;
    if (board[0] && core)
        snprintf(out, cap, "%s (%s)", board, core);
    else
        snprintf(out, cap, "%s", board[0] ? board : core ? core : "");
}

#endif
