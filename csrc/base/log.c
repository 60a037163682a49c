/* log.c - a ring of the last messages, taken by the host when it wants them. */
#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "utf8.h"

enum { RING = 64, LINE = 512 };

static struct {
    int level;
    char text[LINE];
} ring[RING];
static unsigned head, tail; /* tail: oldest; both only under the lock */
static atomic_flag lock = ATOMIC_FLAG_INIT;
static _Atomic int threshold;

static void acquire(void)
{
    while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire))
        ;
}

static void release(void) { atomic_flag_clear_explicit(&lock, memory_order_release); }

int el_log_level(void) { return atomic_load_explicit(&threshold, memory_order_relaxed); }

void el_log(int level, const char *fmt, ...)
{
    char raw[LINE];
    va_list args;

    if (level > el_log_level())
        return;
    va_start(args, fmt);
    vsnprintf(raw, sizeof raw, fmt, args);
    va_end(args);
    acquire();
    ring[head % RING].level = level;
    el_utf8_escape(ring[head % RING].text, LINE, raw, strlen(raw));
    head++;
    if (head - tail > RING)
        tail = head - RING;
    release();
}

void edgellm_log_set_level(int level) { atomic_store(&threshold, level); }

int edgellm_log_take(char *buf, size_t cap, int *level)
{
    int found = 0;

    acquire();
    if (tail != head && buf && cap > 0) {
        snprintf(buf, cap, "%s", ring[tail % RING].text);
        if (level)
            *level = ring[tail % RING].level;
        tail++;
        found = 1;
    }
    release();
    return found;
}
