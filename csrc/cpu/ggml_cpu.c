/* ggml_cpu.c - picks and opens ggml's CPU backend, and ties its messages to ours. */
#include "ggml_cpu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "cpu.h"
#include "dynload.h"
#include "ggml_guard.h"
#include "log.h"
#include "mem.h"

/* ggml's lines end in a newline; a continuation (CONT) is a piece of a line and goes to debug. */
static void on_log(enum ggml_log_level level, const char *text, void *data)
{
    const int to = level == GGML_LOG_LEVEL_ERROR  ? EL_LOG_ERROR
                   : level == GGML_LOG_LEVEL_WARN ? EL_LOG_WARN
                   : level == GGML_LOG_LEVEL_INFO ? EL_LOG_INFO
                                                  : EL_LOG_DEBUG;
    size_t n = strlen(text);

    (void)data;
    while (n > 0 && text[n - 1] == '\n')
        n--;
    if (n > 0)
        el_log(to, "ggml: %.*s", (int)n, text);
}

static edgellm_status check(const el_ggml_cpu *cpu, const char *where)
{
    if (cpu->struct_size != sizeof(el_ggml_cpu) || cpu->tensor_size != sizeof(struct ggml_tensor) ||
        strcmp(cpu->ggml_version, EL_GGML_VERSION) != 0)
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "%s belongs to another build of edgellm (ggml %s, this one has %s): install edgellm again",
                       where, cpu->struct_size >= 16 ? cpu->ggml_version : "?", EL_GGML_VERSION);
    return EDGELLM_OK;
}

#ifdef EL_GGML_MODULES

/* Slow to fast: a later match wins. The needs are the flags of the same name in CMakeLists.txt. */
static const struct {
    uint32_t needs;
    const char *isa;
} modules[] = {
    {0, "x64"},
    {EL_CPU_SSE42 | EL_CPU_AVX | EL_CPU_AVX2 | EL_CPU_FMA | EL_CPU_F16C | EL_CPU_BMI2, "avx2"},
};

static edgellm_status open_backend(const el_ggml_cpu **out)
{
    edgellm_status status = EDGELLM_OK;
    char path[4096];
    const char *isa = NULL;
    el_dl_function *function = NULL;
    size_t n;

    for (size_t i = 0; i < EL_COUNT(modules); i++)
        if ((modules[i].needs & ~el_cpu_used()) == 0)
            isa = modules[i].isa;
    EL_TRY(el_dl_folder(path, sizeof path - 64)); /* 64: room for the file's name */
    n = strlen(path);
    snprintf(path + n, sizeof path - n, "/edgellm_ggml_%s%s", isa, EL_MODULE_SUFFIX);
    EL_TRY(el_dl_load(path, "edgellm_ggml_cpu", &function));
    *out = ((const el_ggml_cpu *(*)(void))function)();
    EL_TRY(check(*out, path));
done:
    return status;
}

#else

static edgellm_status open_backend(const el_ggml_cpu **out)
{
    *out = edgellm_ggml_cpu();
    return check(*out, "ggml");
}

#endif

edgellm_status el_ggml_cpu_get(const el_ggml_cpu **out)
{
    static _Atomic(const el_ggml_cpu *) ready;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* ggml's settings are plain variables */
    const el_ggml_cpu *cpu = atomic_load_explicit(&ready, memory_order_acquire);
    edgellm_status status = EDGELLM_OK;

    *out = cpu;
    if (cpu)
        return EDGELLM_OK;
    pthread_mutex_lock(&lock);
    cpu = atomic_load_explicit(&ready, memory_order_acquire);
    if (!cpu) {
        EL_TRY(open_backend(&cpu));
        ggml_log_set(on_log, NULL);
        (void)ggml_set_abort_callback(el_ggml_on_abort);
        cpu->set_log(on_log, NULL);
        cpu->set_abort(el_ggml_on_abort);
        cpu->init();
        atomic_store_explicit(&ready, cpu, memory_order_release);
        el_log(EL_LOG_INFO, "ggml %s, instruction set %s", cpu->ggml_version, cpu->isa);
    }
    *out = cpu;
done:
    pthread_mutex_unlock(&lock);
    return status;
}
