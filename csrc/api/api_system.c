/* api_system.c - version, struct sizes, and a JSON description of the machine. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "edgellm.h"

#include "cpu.h"
#include "cpu_plan.h"
#include "error.h"
#include "ggml_cpu.h"
#include "kernels.h"
#include "mem.h"
#include "system.h"
#include "utf8.h"

const char *edgellm_version(void) { return EDGELLM_VERSION; }

size_t edgellm_struct_size(const char *name)
{
#define STRUCT(type)                                                                                                   \
    {                                                                                                                  \
#type, sizeof(type)                                                                                            \
    }
    static const struct {
        const char *name;
        size_t size;
    } structs[] = {STRUCT(edgellm_model_info),  STRUCT(edgellm_engine_options), STRUCT(edgellm_engine_info),
                   STRUCT(edgellm_activations), STRUCT(edgellm_logit_bias),     STRUCT(edgellm_text),
                   STRUCT(edgellm_sampling),    STRUCT(edgellm_sampled),        STRUCT(edgellm_item)};
#undef STRUCT
    for (size_t i = 0; name && i < EL_COUNT(structs); i++)
        if (strcmp(structs[i].name, name) == 0)
            return structs[i].size;
    return 0;
}

/* ---- JSON into a buffer that may be too small: counts on, like snprintf --------------------- */

typedef struct writer {
    char *buf;
    size_t cap, n;
} writer;

static void put(writer *w, const char *fmt, ...) EL_PRINTF(2, 3);
static void put(writer *w, const char *fmt, ...)
{
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(w->n < w->cap ? w->buf + w->n : NULL, w->n < w->cap ? w->cap - w->n : 0, fmt, args);
    va_end(args);
    if (n > 0)
        w->n += (size_t)n;
}

/* Strings here come from the system: whatever is not UTF-8 becomes U+FFFD. */
static void put_string(writer *w, const char *text)
{
    size_t left = strlen(text);

    put(w, "\"");
    while (left > 0) {
        uint32_t cp = 0;
        const int n = el_utf8_next(text, left, &cp);

        if (n <= 0)
            put(w, "\\ufffd");
        else if (cp < 0x20 || cp == '"' || cp == '\\' || cp == 0x7f)
            put(w, "\\u%04x", (unsigned)cp);
        else
            put(w, "%.*s", n, text);
        text += n > 0 ? n : 1;
        left -= (size_t)(n > 0 ? n : 1);
    }
    put(w, "\"");
}

static void put_features(writer *w, uint32_t set)
{
    const char *name, *comma = "";
    uint32_t bit;

    put(w, "[");
    for (size_t i = 0; (name = el_cpu_feature(i, &bit)) != NULL; i++)
        if (set & bit) {
            put(w, "%s\"%s\"", comma, name);
            comma = ", ";
        }
    put(w, "]");
}

static void put_ggml(writer *w)
{
    const el_ggml_cpu *cpu;

    if (el_ggml_cpu_get(&cpu) == EDGELLM_OK) {
        put(w, "{\"version\": ");
        put_string(w, cpu->ggml_version);
        put(w, ", \"isa\": \"%s\"}", cpu->isa);
    } else {
        put(w, "{\"error\": ");
        put_string(w, el_error_text());
        put(w, "}");
        el_error_clear(); /* reported here; the call itself has not failed */
    }
}

size_t edgellm_system_json(char *buf, size_t cap)
{
    writer w = {buf, buf ? cap : 0, 0};
    el_system s;
    char brand[256];

    el_error_clear();
    el_system_read(&s, "");
    el_cpu_brand(brand, sizeof brand);
    put(&w, "{\"version\": \"%s\", \"cpu\": ", EDGELLM_VERSION);
    put_string(&w, brand);
    put(&w, ", \"features_found\": ");
    put_features(&w, el_cpu_found());
    put(&w, ", \"features_used\": ");
    put_features(&w, el_cpu_used());
    put(&w, ", \"backend\": \"%s\", \"kernels\": \"%s\", \"ggml\": ", el_cpu_own_backend() ? "edgellm" : "ggml",
        el_kernels_get()->isa);
    put_ggml(&w);
    put(&w, ", \"cpus_online\": %d, \"cpus_allowed\": %d, \"cores\": %d, \"performance_cores\": %d", s.n_logical,
        s.n_allowed, s.n_cores, s.n_performance);
    if (s.quota > 0) /* thousandths, so that no locale puts a comma there */
        put(&w, ", \"cgroup_cpus\": %u.%03u", (unsigned)s.quota, (unsigned)((s.quota - (unsigned)s.quota) * 1000));
    else
        put(&w, ", \"cgroup_cpus\": null");
    put(&w, ", \"threads\": %d, \"memory_total\": %llu, \"memory_available\": %llu", s.n_threads,
        (unsigned long long)s.memory_total, (unsigned long long)s.memory_available);
    if (s.memory_limit > 0)
        put(&w, ", \"cgroup_memory\": %llu}", (unsigned long long)s.memory_limit);
    else
        put(&w, ", \"cgroup_memory\": null}");
    return w.n;
}
