/* aarch32_neon.h - what lets the files for NEON serve 32-bit ARM as well: intrinsics that only 64-bit ARM has, and
 * subnormals.
 *
 * The 32-bit vector unit takes subnormal operands for zeros and makes zeros of subnormal results; the scalar unit does
 * as IEEE 754 says. But it notes when that happens, in the cumulative bits IDC and UFC of the status register (ARM
 * Architecture Reference Manual, ARMv7-A edition, A2.7.2 and B6.1.39). So: el_watch_subnormals, vector code that stores
 * its results, and if el_met_subnormals then says so, the same again by `ref`. Usual models never do. */
#ifndef EL_AARCH32_NEON_H
#define EL_AARCH32_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

/* Before a loop over registers: one that stays a loop keeps them in memory (clang 21 on 32-bit ARM). */
#if defined(__clang__)
#define EL_UNROLLED _Pragma("clang loop unroll(full)")
#define EL_TWICE _Pragma("clang loop unroll_count(2)")
#else
#define EL_UNROLLED _Pragma("GCC unroll 16")
#define EL_TWICE _Pragma("GCC unroll 2")
#endif

/* The compiler may not look through the vector or the address: what it would make of it is longer. */
#define KEEP_VECTOR(V) __asm__("" : "+w"(V))
#define KEEP_ADDRESS(P) __asm__("" : "+r"(P))

#if defined(__aarch64__)

enum { EL_AARCH32 = 0 };

INLINE void el_watch_subnormals(void) {}
INLINE bool el_met_subnormals(void) { return false; }

#else

enum { EL_AARCH32 = 1 };

INLINE void el_watch_subnormals(void)
{
    uint32_t status;

    __asm__ volatile("vmrs %0, fpscr\n\tbic %0, %0, #0x88\n\tvmsr fpscr, %0" : "=&r"(status) : : "memory");
}

INLINE bool el_met_subnormals(void)
{
    uint32_t status;

    __asm__ volatile("vmrs %0, fpscr" : "=r"(status) : : "memory");
    return (status & 0x88) != 0;
}

/* Neighbours added: those of a, then those of b. */
INLINE float32x4_t vpaddq_f32(float32x4_t a, float32x4_t b)
{
    return vcombine_f32(vpadd_f32(vget_low_f32(a), vget_high_f32(a)), vpadd_f32(vget_low_f32(b), vget_high_f32(b)));
}

INLINE int32x4_t vpaddq_s32(int32x4_t a, int32x4_t b)
{
    return vcombine_s32(vpadd_s32(vget_low_s32(a), vget_high_s32(a)), vpadd_s32(vget_low_s32(b), vget_high_s32(b)));
}

INLINE int16x8_t vpaddq_s16(int16x8_t a, int16x8_t b)
{
    return vcombine_s16(vpadd_s16(vget_low_s16(a), vget_high_s16(a)), vpadd_s16(vget_low_s16(b), vget_high_s16(b)));
}

INLINE float vmaxvq_f32(float32x4_t v)
{
    const float32x2_t two = vmax_f32(vget_low_f32(v), vget_high_f32(v));

    return vget_lane_f32(vpmax_f32(two, two), 0);
}

INLINE uint32_t vmaxvq_u32(uint32x4_t v)
{
    const uint32x2_t two = vmax_u32(vget_low_u32(v), vget_high_u32(v));

    return vget_lane_u32(vpmax_u32(two, two), 0);
}

INLINE int16_t vaddlvq_s8(int8x16_t v)
{
    const int32x4_t four = vpaddlq_s16(vpaddlq_s8(v));
    const int32x2_t two = vadd_s32(vget_low_s32(four), vget_high_s32(four));

    return (int16_t)vget_lane_s32(vpadd_s32(two, two), 0);
}

INLINE int16x8_t vmlal_high_s8(int16x8_t sum, int8x16_t a, int8x16_t b)
{
    return vmlal_s8(sum, vget_high_s8(a), vget_high_s8(b));
}

INLINE int32x4_t vmovl_high_s16(int16x8_t v) { return vmovl_s16(vget_high_s16(v)); }

#define vmlal_laneq_s16(SUM, A, V, LANE)                                                                               \
    vmlal_lane_s16(SUM, A, (LANE) < 4 ? vget_low_s16(V) : vget_high_s16(V), (LANE) % 4)

INLINE uint8x16_t vceqzq_u8(uint8x16_t v) { return vceqq_u8(v, vdupq_n_u8(0)); }

INLINE uint8x16_t vqtbl1q_u8(uint8x16_t table, uint8x16_t places)
{
    const uint8x8x2_t t = {{vget_low_u8(table), vget_high_u8(table)}};

    return vcombine_u8(vtbl2_u8(t, vget_low_u8(places)), vtbl2_u8(t, vget_high_u8(places)));
}

INLINE int8x16_t vqtbl1q_s8(int8x16_t table, uint8x16_t places)
{
    return vreinterpretq_s8_u8(vqtbl1q_u8(vreinterpretq_u8_s8(table), places));
}

INLINE uint32x4_t vtrn1q_u32(uint32x4_t a, uint32x4_t b) { return vtrnq_u32(a, b).val[0]; }
INLINE uint32x4_t vtrn2q_u32(uint32x4_t a, uint32x4_t b) { return vtrnq_u32(a, b).val[1]; }

INLINE uint64x2_t vzip1q_u64(uint64x2_t a, uint64x2_t b) { return vcombine_u64(vget_low_u64(a), vget_low_u64(b)); }
INLINE uint64x2_t vzip2q_u64(uint64x2_t a, uint64x2_t b) { return vcombine_u64(vget_high_u64(a), vget_high_u64(b)); }

/* To nearest, ties to even, for |x| < 2^22: as el_round_even. */
INLINE float32x4_t vrndnq_f32(float32x4_t x)
{
    const float32x4_t magic = vdupq_n_f32(0x1.8p23f);

    return vsubq_f32(vaddq_f32(x, magic), magic);
}

INLINE int32x4_t vcvtnq_s32_f32(float32x4_t x)
{
    const float32x4_t magic = vdupq_n_f32(0x1.8p23f);

    return vsubq_s32(vreinterpretq_s32_f32(vaddq_f32(x, magic)), vreinterpretq_s32_f32(magic));
}

/* The vector unit does not divide. */
INLINE float32x4_t vdivq_f32(float32x4_t a, float32x4_t b)
{
    float x[4], y[4];

    vst1q_f32(x, a);
    vst1q_f32(y, b);
    for (int i = 0; i < 4; i++)
        x[i] /= y[i];
    return vld1q_f32(x);
}

#endif

#endif
