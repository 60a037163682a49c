/* kernels.c - the only place that picks kernels. Slow to fast: a later instruction set overwrites what it speeds up. */
#include <stdatomic.h>

#include "blocks.h"
#include "cpu.h"
#include "mem.h"

static void use_ref(el_kernels *t)
{
    el_act_use_ref(t);
    el_matmul_use_ref(t);
    el_rows_use_ref(t);
    el_attention_use_ref(t);
    el_maps_use_ref(t);
}

#if defined(__x86_64__)
static void use_avx2(el_kernels *t)
{
    el_act_use_avx2(t);
    el_matmul_use_avx2(t);
    el_superblock_use_avx2(t);
    el_floats_use_avx2(t);
    el_rows_use_avx2(t);
    el_attention_use_avx2(t);
    el_maps_use_avx2(t);
}

static void use_avxvnni_evex(el_kernels *t)
{
    el_matmul_use_avxvnni_evex(t);
    el_superblock_use_avxvnni_evex(t);
}

#if !defined(EL_NO_AVXVNNI)
static void use_avxvnni(el_kernels *t)
{
    el_matmul_use_avxvnni(t);
    el_superblock_use_avxvnni(t);
}
#endif

static void use_avx512(el_kernels *t)
{
    el_act_use_avx512(t);
    el_matmul_use_avx512(t);
    el_superblock_use_avx512(t);
    el_floats_use_avx512(t);
    el_rows_use_avx512(t);
    el_attention_use_avx512(t);
    el_maps_use_avx512(t);
}
#endif

#if defined(__aarch64__) || defined(EL_NEON32)
static void use_neon(el_kernels *t)
{
    el_act_use_neon(t);
    el_matmul_use_neon(t);
    el_superblock_use_neon(t);
    el_floats_use_neon(t);
    el_attention_use_neon(t);
#if defined(__aarch64__) /* what changes rows in place cannot be done again when it met subnormals (aarch32_neon.h) */
    el_rows_use_neon(t);
    el_maps_use_neon(t);
#endif
}
#endif

#if defined(__aarch64__)
static void use_dotprod(el_kernels *t)
{
    el_matmul_use_dotprod(t);
    el_superblock_use_dotprod(t);
}

static void use_i8mm(el_kernels *t)
{
    el_matmul_use_i8mm(t);
    el_superblock_use_i8mm(t);
}
#endif

/* "avxvnni" has two encodings; this one's instructions are part of AVX-512. */
#define EVEX_NAME "avxvnni_evex"

static const struct {
    const char *name;
    uint32_t needs;
    void (*use)(el_kernels *t);
} isas[] = {
    {"ref", 0, use_ref},
#if defined(__x86_64__)
    {"avx2", EL_CPU_AVX2 | EL_CPU_FMA | EL_CPU_F16C, use_avx2},
    {EVEX_NAME, EL_CPU_AVX512 | EL_CPU_AVX512VNNI | EL_CPU_AVX2 | EL_CPU_FMA | EL_CPU_F16C, use_avxvnni_evex},
#if !defined(EL_NO_AVXVNNI)
    {"avxvnni", EL_CPU_AVXVNNI | EL_CPU_AVX2 | EL_CPU_FMA | EL_CPU_F16C, use_avxvnni},
#endif
    {"avx512", EL_CPU_AVX512 | EL_CPU_AVX512VNNI | EL_CPU_AVX2 | EL_CPU_FMA | EL_CPU_F16C, use_avx512},
#elif defined(__aarch64__)
    {"neon", EL_CPU_NEON, use_neon},
    {"dotprod", EL_CPU_DOTPROD | EL_CPU_NEON, use_dotprod},
    {"i8mm", EL_CPU_I8MM | EL_CPU_DOTPROD | EL_CPU_NEON, use_i8mm},
#elif defined(EL_NEON32) /* 32-bit ARM from ARMv7 on */
    {"neon", EL_CPU_NEON, use_neon},
#endif
};

enum { EMPTY, FILLING, READY };

/* Fills the i-th table once. Threads that meet while it is filled wait for the few hundred stores. */
static const el_kernels *table(size_t i)
{
    static el_kernels tables[EL_COUNT(isas)];
    static atomic_int states[EL_COUNT(isas)];
    int state = EMPTY;

    if (atomic_load(&states[i]) == READY)
        return &tables[i];
    if (atomic_compare_exchange_strong(&states[i], &state, FILLING)) {
        for (size_t j = 0; j <= i; j++)
            if ((isas[j].needs & ~isas[i].needs) == 0)
                isas[j].use(&tables[i]);
        tables[i].isa = isas[i].name;
        atomic_store(&states[i], READY);
    }
    while (atomic_load(&states[i]) != READY)
        ;
    return &tables[i];
}

const el_kernels *el_kernels_get(void)
{
    const uint32_t cpu = el_cpu_used();
    size_t best = 0;

    for (size_t i = 0; i < EL_COUNT(isas); i++)
        if ((isas[i].needs & ~cpu) == 0)
            best = i;
    return table(best);
}

const el_kernels *el_kernels_named(const char *isa)
{
    for (size_t i = 0; i < EL_COUNT(isas); i++)
        if (strcmp(isas[i].name, isa) == 0 && (isas[i].needs & ~el_cpu_found()) == 0)
            return table(i);
    return strcmp(isa, "avxvnni") == 0 ? el_kernels_named(EVEX_NAME) : NULL;
}

const char *el_kernels_isa(size_t i) { return i < EL_COUNT(isas) ? isas[i].name : NULL; }
