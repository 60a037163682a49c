/* cpu.h - what this CPU can do, asked once, and what it is allowed to do.
 * One word is the feature's name here, a kernel file's suffix, and a name in EDGELLM_CPU_DISABLE
 * (comma-separated: "avx2,avx512"). Disabling a feature disables what builds on it.
 * Compiled with baseline flags: nothing here may need what it asks for. */
#ifndef EL_CPU_H
#define EL_CPU_H

#include <stddef.h>
#include <stdint.h>

enum {
    /* x86; each only when the operating system saves its registers */
    EL_CPU_SSE3 = 1 << 0,
    EL_CPU_SSSE3 = 1 << 1,
    EL_CPU_SSE42 = 1 << 2, /* with SSE4.1 and POPCNT */
    EL_CPU_AVX = 1 << 3,
    EL_CPU_F16C = 1 << 4,
    EL_CPU_FMA = 1 << 5,
    EL_CPU_BMI2 = 1 << 6,
    EL_CPU_AVX2 = 1 << 7,
    EL_CPU_AVXVNNI = 1 << 8,
    EL_CPU_AVX512 = 1 << 9, /* F, CD, BW, DQ and VL together */
    EL_CPU_AVX512VNNI = 1 << 10,
    EL_CPU_AVX512VBMI = 1 << 11,
    EL_CPU_AVX512BF16 = 1 << 12,
    /* ARM */
    EL_CPU_NEON = 1 << 16, /* on 32 bits with VFPv4 */
    EL_CPU_FP16 = 1 << 17, /* arithmetic on half floats */
    EL_CPU_DOTPROD = 1 << 18,
    EL_CPU_I8MM = 1 << 19,
    EL_CPU_BF16 = 1 << 20,
    EL_CPU_SVE = 1 << 21,
    EL_CPU_SVE2 = 1 << 22
};

uint32_t el_cpu_found(void); /* what is there */
uint32_t el_cpu_used(void);  /* minus EDGELLM_CPU_DISABLE, read on the first call */

/* found minus the features named in list, and minus those that need one of these. Unknown names are logged. */
uint32_t el_cpu_disable(uint32_t found, const char *list);

/* The i-th feature's name, lower case, and its bit; NULL after the last. */
const char *el_cpu_feature(size_t i, uint32_t *bit);

/* "AMD Ryzen 7 5800X", "Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76)"; "" when nobody knows. */
void el_cpu_brand(char *out, size_t cap);

#endif
