/* blocks.c - every weight type unpacked by plain C: the definition the fast kernels are compared with, and
 * dequantized rows. Sources: see blocks.h. */
#include "blocks.h"

#include "mem.h"
#include "scalar_math.h"

const int8_t el_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int8_t el_mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static float f16_at(const uint8_t *p) { return el_f16_value(el_load16(p)); }

/* ---- blocks of 32 --------------------------------------------------------------------- */

/* 16 bytes of nibbles and, for the types of 5 bits, their high bits. */
static void nibbles(el_unpacked *u, const uint8_t *qs, uint32_t high, int offset)
{
    for (int i = 0; i < 16; i++) {
        u->q[i] = (int16_t)((qs[i] & 15) + (int)(high >> i & 1) * 16 - offset);
        u->q[i + 16] = (int16_t)((qs[i] >> 4) + (int)(high >> (i + 16) & 1) * 16 - offset);
    }
}

static void one_scale(el_unpacked *u, float d, float m)
{
    u->scale[0] = u->scale[1] = 1;
    u->d = d;
    u->m = m;
}

static void unpack_q4_0(el_unpacked *u, const uint8_t *b)
{
    one_scale(u, f16_at(b), 0);
    nibbles(u, b + 2, 0, 8);
}

static void unpack_q4_1(el_unpacked *u, const uint8_t *b)
{
    one_scale(u, f16_at(b), f16_at(b + 2));
    nibbles(u, b + 4, 0, 0);
}

static void unpack_q5_0(el_unpacked *u, const uint8_t *b)
{
    one_scale(u, f16_at(b), 0);
    nibbles(u, b + 6, el_load32(b + 2), 16);
}

static void unpack_q5_1(el_unpacked *u, const uint8_t *b)
{
    one_scale(u, f16_at(b), f16_at(b + 2));
    nibbles(u, b + 8, el_load32(b + 4), 0);
}

static void unpack_q8_0(el_unpacked *u, const uint8_t *b)
{
    one_scale(u, f16_at(b), 0);
    for (int i = 0; i < 32; i++)
        u->q[i] = (int8_t)b[2 + i];
}

static void look_up(el_unpacked *u, int n, const int8_t values[16])
{
    for (int i = 0; i < n; i++)
        u->q[i] = values[u->q[i]];
}

static void unpack_iq4_nl(el_unpacked *u, const uint8_t *b)
{
    one_scale(u, f16_at(b), 0);
    nibbles(u, b + 2, 0, 0);
    look_up(u, 32, el_iq4_values);
}

static void unpack_mxfp4(el_unpacked *u, const uint8_t *b)
{
    one_scale(u, el_e8m0_half(b[0]), 0);
    nibbles(u, b + 1, 0, 0);
    look_up(u, 32, el_mxfp4_values);
}

/* ---- super-blocks of 256 -------------------------------------------------------------- */

/* Element 128 h + 32 s + i: 2 bits at 2 s of byte 32 h + i. */
static void two_bits(el_unpacked *u, const uint8_t *qs)
{
    for (int e = 0; e < 256; e++)
        u->q[e] = qs[e / 128 * 32 + e % 32] >> e % 128 / 32 * 2 & 3;
}

static void unpack_q2_k(el_unpacked *u, const uint8_t *b)
{
    u->d = f16_at(b + EL_Q2_K_D);
    u->m = f16_at(b + EL_Q2_K_D + 2);
    two_bits(u, b + EL_Q2_K_QS);
    for (int g = 0; g < 16; g++) {
        u->scale[g] = b[g] & 15;
        u->min[g] = b[g] >> 4;
    }
}

static void unpack_q3_k(el_unpacked *u, const uint8_t *b)
{
    const uint8_t *s = b + EL_Q3_K_SCALES;

    u->d = f16_at(b + EL_Q3_K_D);
    u->m = 0;
    two_bits(u, b + EL_Q3_K_QS);
    for (int e = 0; e < 256; e++)
        u->q[e] = (int16_t)(u->q[e] - (b[e % 32] >> e / 32 & 1 ? 0 : 4));
    for (int g = 0; g < 16; g++) {
        const int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4;
        const int high = s[8 + g % 4] >> g / 4 * 2 & 3;
        u->scale[g] = (int16_t)((low | high << 4) - 32);
    }
}

/* 8 scales and 8 minima of 6 bits in 12 bytes: the first four of each lie in the low 6 bits of bytes 0-3 and 4-7;
 * the others have 4 bits in bytes 8-11 and their upper 2 bits on top of bytes 0-7. */
static void scales_and_mins(el_unpacked *u, const uint8_t *s)
{
    for (int g = 0; g < 8; g++) {
        const int scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
        const int min = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
        u->scale[2 * g] = u->scale[2 * g + 1] = (int16_t)scale;
        u->min[2 * g] = u->min[2 * g + 1] = (int16_t)min;
    }
}

static void unpack_q4_k(el_unpacked *u, const uint8_t *b)
{
    const uint8_t *qs = b + EL_Q4_K_QS;

    u->d = f16_at(b);
    u->m = f16_at(b + 2);
    scales_and_mins(u, b + EL_Q4_K_SCALES);
    for (int e = 0; e < 256; e++)
        u->q[e] = qs[e / 64 * 32 + e % 32] >> e % 64 / 32 * 4 & 15;
}

static void unpack_q5_k(el_unpacked *u, const uint8_t *b)
{
    const uint8_t *qs = b + EL_Q5_K_QS, *qh = b + EL_Q5_K_QH;

    u->d = f16_at(b);
    u->m = f16_at(b + 2);
    scales_and_mins(u, b + EL_Q4_K_SCALES);
    for (int e = 0; e < 256; e++)
        u->q[e] = (int16_t)((qs[e / 64 * 32 + e % 32] >> e % 64 / 32 * 4 & 15) | (qh[e % 32] >> e / 32 & 1) << 4);
}

static void unpack_q6_k(el_unpacked *u, const uint8_t *b)
{
    u->d = f16_at(b + EL_Q6_K_D);
    u->m = 0;
    for (int g = 0; g < 16; g++)
        u->scale[g] = (int8_t)b[EL_Q6_K_SCALES + g];
    for (int e = 0; e < 256; e++) {
        const int half = e / 128, s = e % 128 / 32, i = e % 32;
        const int low = b[64 * half + 32 * (s % 2) + i] >> s / 2 * 4 & 15;
        const int high = b[EL_Q6_K_QH + 32 * half + i] >> 2 * s & 3;
        u->q[e] = (int16_t)((low | high << 4) - 32);
    }
}

static void unpack_iq4_xs(el_unpacked *u, const uint8_t *b)
{
    const int high = el_load16(b + EL_IQ4_XS_HIGH);

    u->d = f16_at(b);
    u->m = 0;
    for (int g = 0; g < 8; g++) {
        const int low = b[EL_IQ4_XS_LOW + g / 2] >> g % 2 * 4 & 15;
        u->scale[2 * g] = u->scale[2 * g + 1] = (int16_t)((low | (high >> 2 * g & 3) << 4) - 32);
    }
    for (int e = 0; e < 256; e++)
        u->q[e] = b[EL_IQ4_XS_QS + e / 32 * 16 + e % 16] >> e % 32 / 16 * 4 & 15;
    look_up(u, 256, el_iq4_values);
}

/* ---- the types ------------------------------------------------------------------------ */

static const el_block_type types[EL_KERNELS_N_TYPES] = {
    [EL_TYPE_F32] = {1, 4, EL_ACT_F32, 0, NULL},
    [EL_TYPE_F16] = {1, 2, EL_ACT_F32, 0, NULL},
    [EL_TYPE_BF16] = {1, 2, EL_ACT_F32, 0, NULL},
    [EL_TYPE_Q4_0] = {32, 18, EL_ACT_Q8_32, 0, unpack_q4_0},
    [EL_TYPE_Q4_1] = {32, 20, EL_ACT_Q8_32, 1, unpack_q4_1},
    [EL_TYPE_Q5_0] = {32, 22, EL_ACT_Q8_32, 0, unpack_q5_0},
    [EL_TYPE_Q5_1] = {32, 24, EL_ACT_Q8_32, 1, unpack_q5_1},
    [EL_TYPE_Q8_0] = {32, 34, EL_ACT_Q8_32, 0, unpack_q8_0},
    [EL_TYPE_IQ4_NL] = {32, 18, EL_ACT_Q8_32, 0, unpack_iq4_nl},
    [EL_TYPE_MXFP4] = {32, 17, EL_ACT_Q8_32, 0, unpack_mxfp4},
    [EL_TYPE_Q2_K] = {256, EL_Q2_K_BYTES, EL_ACT_Q8_256, 1, unpack_q2_k},
    [EL_TYPE_Q3_K] = {256, EL_Q3_K_BYTES, EL_ACT_Q8_256, 0, unpack_q3_k},
    [EL_TYPE_Q4_K] = {256, EL_Q4_K_BYTES, EL_ACT_Q8_256, 1, unpack_q4_k},
    [EL_TYPE_Q5_K] = {256, EL_Q5_K_BYTES, EL_ACT_Q8_256, 1, unpack_q5_k},
    [EL_TYPE_Q6_K] = {256, EL_Q6_K_BYTES, EL_ACT_Q8_256, 0, unpack_q6_k},
    [EL_TYPE_IQ4_XS] = {256, EL_IQ4_XS_BYTES, EL_ACT_Q8_256, 0, unpack_iq4_xs},
};

const el_block_type *el_block_type_of(int type)
{
    return type >= 0 && type < EL_KERNELS_N_TYPES && types[type].elements ? &types[type] : NULL;
}

int el_kernels_act_kind(int type)
{
    const el_block_type *t = el_block_type_of(type);

    return t ? t->act : -1;
}

int el_kernels_block(int type, int *elements, int *bytes)
{
    const el_block_type *t = el_block_type_of(type);

    if (!t)
        return 0;
    *elements = t->elements;
    *bytes = t->bytes;
    return 1;
}

size_t el_act_row_bytes(el_act_kind kind, int64_t k)
{
    size_t n = (size_t)k * 4;

    if (kind == EL_ACT_Q8_32)
        n = el_act32_sum8(k) + (size_t)k / 32 * 4;
    else if (kind == EL_ACT_Q8_256)
        n = el_act256_d(k) + (size_t)k / 256 * 4;
    return el_act_round(n) | 64;
}

size_t el_matmul_scratch(int type, int64_t k)
{
    const el_block_type *t = el_block_type_of(type);

    if (!t || t->elements == 1)
        return 0;
    if (t->elements == 32) /* a part of some rows unpacked, with sums (strips_avx512.h: 39 KB, strips_256.h: 23 KB) */
        return 40960;
    return (size_t)k * 32 + 4096; /* a strip of 16 rows unpacked, with its scales */
}

static float float_at(int type, const uint8_t *w, int64_t i)
{
    if (type == EL_TYPE_F32)
        return el_float_of(el_load32(w + 4 * i));
    return type == EL_TYPE_F16 ? el_f16_value(el_load16(w + 2 * i)) : el_bf16_value(el_load16(w + 2 * i));
}

void el_dequantize_row(int type, float *y, const void *w, int64_t k)
{
    const el_block_type *t = el_block_type_of(type);
    const uint8_t *block = w;
    el_unpacked u;

    if (!t)
        return;
    if (t->elements == 1) {
        for (int64_t i = 0; i < k; i++)
            y[i] = float_at(type, block, i);
        return;
    }
    for (int64_t b = 0; b < k / t->elements; b++, block += t->bytes, y += t->elements) {
        t->unpack(&u, block);
        for (int e = 0; e < t->elements; e++) {
            const float value = u.d * (float)u.scale[e / 16] * (float)u.q[e];
            y[e] = !t->has_min ? value : t->elements == 32 ? value + u.m : value - u.m * (float)u.min[e / 16];
        }
    }
}
