/* blocks.h - how weights and quantized activations lie in memory.
 * Source of the weight layouts: the block structs and dequantize_row functions of ggml 0.20.2, as the format's
 * documentation. Weights are read from the file's bytes at any alignment, so blocks are offsets here, not structs. */
#ifndef EL_BLOCKS_H
#define EL_BLOCKS_H

#include <string.h>

#include "kernels.h"

enum { /* GGUF's numbers */
       EL_TYPE_F32 = 0,
       EL_TYPE_F16 = 1,
       EL_TYPE_Q4_0 = 2, /* f16 d; 16 bytes: element i in the low nibble of byte i, element 16 + i in the high one */
       EL_TYPE_Q4_1 = 3, /* f16 d, f16 m; nibbles as above */
       EL_TYPE_Q5_0 = 6, /* f16 d; u32: bit i is the fifth of element i; nibbles as above */
       EL_TYPE_Q5_1 = 7, /* f16 d, f16 m; u32; nibbles */
       EL_TYPE_Q8_0 = 8, /* f16 d; 32 int8 */
       EL_TYPE_Q2_K = 10,
       EL_TYPE_Q3_K = 11,
       EL_TYPE_Q4_K = 12,
       EL_TYPE_Q5_K = 13,
       EL_TYPE_Q6_K = 14,
       EL_TYPE_IQ4_NL = 20, /* as Q4_0, nibbles through el_iq4_values */
       EL_TYPE_IQ4_XS = 23,
       EL_TYPE_BF16 = 30,
       EL_TYPE_MXFP4 = 39 /* u8 exponent; nibbles through el_mxfp4_values */
};

extern const int8_t el_iq4_values[16];
extern const int8_t el_mxfp4_values[16]; /* twice the value */

/* Where the parts of a super-block lie. */
enum {
    /* Q2_K: 16 bytes (scale | min << 4) per 16 elements; 64 bytes of 2 bits: element 128 h + 32 s + i in bits 2 s of
     * byte 32 h + i; f16 d; f16 dmin */
    EL_Q2_K_QS = 16,
    EL_Q2_K_D = 80,
    EL_Q2_K_BYTES = 84,
    /* Q3_K: 32 bytes: bit 4 h + s of byte i says "do not subtract 4" for element 128 h + 32 s + i; 64 bytes of 2 bits
     * as Q2_K; 16 scales of 6 bits minus 32: low 4 in the nibbles of 8 bytes, high 2 in 4 bytes; f16 d */
    EL_Q3_K_QS = 32,
    EL_Q3_K_SCALES = 96,
    EL_Q3_K_D = 108,
    EL_Q3_K_BYTES = 110,
    /* Q4_K: f16 d, f16 dmin; 12 bytes: 8 scales and 8 mins of 6 bits; 128 bytes: element 64 c + i in the low nibble of
     * byte 32 c + i, element 64 c + 32 + i in the high one */
    EL_Q4_K_SCALES = 4,
    EL_Q4_K_QS = 16,
    EL_Q4_K_BYTES = 144,
    /* Q5_K: as Q4_K with 32 bytes before the nibbles: bit g of byte i is the fifth of element 32 g + i */
    EL_Q5_K_QH = 16,
    EL_Q5_K_QS = 48,
    EL_Q5_K_BYTES = 176,
    /* Q6_K: minus 32; 128 bytes of low 4 bits: per half h, element 128 h + 32 s + i (s = 0..3) in byte 64 h + 32 (s %
     * 2)
     * + i, low nibble for s < 2; 64 bytes of high 2 bits: bits 2 s of byte 32 h + i; 16 int8 scales; f16 d */
    EL_Q6_K_QH = 128,
    EL_Q6_K_SCALES = 192,
    EL_Q6_K_D = 208,
    EL_Q6_K_BYTES = 210,
    /* IQ4_XS: f16 d; u16 and 4 bytes: 8 scales of 6 bits minus 32; 128 bytes of nibbles, per 32 elements as Q4_0,
     * through el_iq4_values */
    EL_IQ4_XS_HIGH = 2,
    EL_IQ4_XS_LOW = 4,
    EL_IQ4_XS_QS = 8,
    EL_IQ4_XS_BYTES = 136
};

static inline uint16_t el_load16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

static inline uint32_t el_load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* ---- one block, unpacked by plain C --------------------------------------------------- */

typedef struct el_unpacked {
    int16_t q[256];    /* signed where the format subtracts, else 0 and up */
    int16_t scale[16]; /* per 16 elements; 1 for blocks of 32 */
    int16_t min[16];   /* super-blocks with minima */
    float d;           /* value = d * scale * q + m          (blocks of 32) */
    float m;           /*       = d * scale * q - m * min    (super-blocks) */
} el_unpacked;

typedef struct el_block_type {
    uint16_t elements; /* 1: float types, which do not unpack */
    uint16_t bytes;
    uint8_t act;
    uint8_t has_min;
    void (*unpack)(el_unpacked *u, const uint8_t *block);
} el_block_type;

const el_block_type *el_block_type_of(int type); /* NULL: no kernel */

/* ---- activation rows: q[k], then per block what the kernels need ---------------------- */

static inline size_t el_act_round(size_t n) { return (n + 63) & ~(size_t)63; }

/* EL_ACT_Q8_32: int8 q[k] | float d[k / 32] | float s[k / 32] | int32 sum8[k / 32]
 * s = d * (float)sum, sum8 = 8 * sum (the offsets of Q4_0, Q5_0 and MXFP4 are 8, 16 and 12) */
static inline size_t el_act32_d(int64_t k) { return el_act_round((size_t)k); }
static inline size_t el_act32_s(int64_t k) { return el_act32_d(k) + (size_t)k / 32 * 4; }
static inline size_t el_act32_sum8(int64_t k) { return el_act32_s(k) + (size_t)k / 32 * 4; }

/* EL_ACT_Q8_256: int8 q[k] | int16 sum16[k / 16] | int16 sum32[k / 32] | float d[k / 256] */
static inline size_t el_act256_sum16(int64_t k) { return (size_t)k; }
static inline size_t el_act256_sum32(int64_t k) { return el_act256_sum16(k) + (size_t)k / 16 * 2; }
static inline size_t el_act256_d(int64_t k) { return el_act256_sum32(k) + (size_t)k / 32 * 2; }

/* ---- tables of one instruction set: each fills what it speeds up ----------------------- */

void el_act_use_ref(el_kernels *t);
void el_matmul_use_ref(el_kernels *t);
void el_rows_use_ref(el_kernels *t);
void el_attention_use_ref(el_kernels *t);
void el_maps_use_ref(el_kernels *t);
void el_maps_use_avx2(el_kernels *t);
void el_maps_use_avx512(el_kernels *t);
void el_maps_use_neon(el_kernels *t);
void el_act_use_avx2(el_kernels *t);
void el_matmul_use_avx2(el_kernels *t);
void el_superblock_use_avx2(el_kernels *t);
void el_floats_use_avx2(el_kernels *t);
void el_rows_use_avx2(el_kernels *t);
void el_attention_use_avx2(el_kernels *t);
void el_matmul_use_avxvnni(el_kernels *t);
void el_superblock_use_avxvnni(el_kernels *t);
void el_matmul_use_avxvnni_evex(el_kernels *t);
void el_superblock_use_avxvnni_evex(el_kernels *t);
void el_act_use_avx512(el_kernels *t);
void el_matmul_use_avx512(el_kernels *t);
void el_superblock_use_avx512(el_kernels *t);
void el_floats_use_avx512(el_kernels *t);
void el_rows_use_avx512(el_kernels *t);
void el_attention_use_avx512(el_kernels *t);
void el_act_use_neon(el_kernels *t);
void el_matmul_use_neon(el_kernels *t);
void el_superblock_use_neon(el_kernels *t);
void el_floats_use_neon(el_kernels *t);
void el_rows_use_neon(el_kernels *t);
void el_attention_use_neon(el_kernels *t);
void el_matmul_use_dotprod(el_kernels *t);
void el_superblock_use_dotprod(el_kernels *t);
void el_matmul_use_i8mm(el_kernels *t);
void el_superblock_use_i8mm(el_kernels *t);

#endif
