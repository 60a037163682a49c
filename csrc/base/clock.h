/* clock.h - a clock that only goes forward, whatever happens to the time of day. */
#ifndef EL_CLOCK_H
#define EL_CLOCK_H

#include <time.h>

static inline double el_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

#endif
