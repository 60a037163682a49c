/* philox.h - random numbers as a pure function of (seed, number of the draw): no state that a neighbour could move.
 * Source: Philox4x32-10 in Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011. */
#ifndef EL_PHILOX_H
#define EL_PHILOX_H

#include <stdint.h>

void el_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

/* Uniform in [0, 1), 53 random bits. */
double el_philox_uniform(uint64_t seed, uint64_t draw);

#endif
