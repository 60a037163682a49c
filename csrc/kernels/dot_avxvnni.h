/* dot_avxvnni.h - vpdpbusd and vpdpwssd: four products of bytes, or two of int16, added to an int32 lane. For
 * *_avxvnni.c only, which cmake/kernels.cmake builds twice: in AVX-VNNI's encoding (VEX), and with EL_EVEX in that of
 * AVX512VL + AVX512VNNI, so that a CPU with either runs and tests the same source. */
#ifndef EL_DOT_AVXVNNI_H
#define EL_DOT_AVXVNNI_H

#include "lanes_avx2.h"

#ifdef EL_EVEX
#define dpbusd _mm256_dpbusd_epi32
#define dpwssd _mm256_dpwssd_epi32
#define EL_USE(NAME) NAME##_avxvnni_evex
#else
#define dpbusd _mm256_dpbusd_avx_epi32
#define dpwssd _mm256_dpwssd_avx_epi32
#define EL_USE(NAME) NAME##_avxvnni
#endif

/* The bytes of weights have to be unsigned, those of activations signed. */
enum { UNSIGNED_BYTES = 1 };

#endif
