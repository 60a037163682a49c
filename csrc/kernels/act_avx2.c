/* act_avx2.c - activations quantized; the same bits as act_ref.c. */
#include "lanes_avx2.h"

#include "blocks.h"
#include "mem.h"

INLINE uint32_t max_lane(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

INLINE uint32_t peak_of(const float *x, int n)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i peak = _mm256_setzero_si256();

    for (int i = 0; i < n; i += 8)
        peak = _mm256_max_epi32(peak, _mm256_and_si256(magnitude, _mm256_loadu_si256((const __m256i *)(x + i))));
    return max_lane(peak);
}

INLINE __m256i rounded(const float *x, __m256 inverse)
{
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
}

/* 32 values as int8. The packs work within halves, so their order is restored at the end. */
INLINE __m256i quantize_32_values(const float *x, __m256 inverse)
{
    const __m256i a = _mm256_packs_epi32(rounded(x, inverse), rounded(x + 8, inverse));
    const __m256i b = _mm256_packs_epi32(rounded(x + 16, inverse), rounded(x + 24, inverse));

    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

typedef struct scales {
    float d, inverse; /* inverse 0: all q are 0 */
} scales;

INLINE scales scales_of(uint32_t peak)
{
    const float amax = el_float_of(peak);

    if (peak >= 0x7f800000)
        return (scales){el_float_of(0x7fc00000), 0};
    if (amax < 0x1p-120f)
        return (scales){0, 0};
    return (scales){amax / 127.0f, 127.0f / amax};
}

/* Sums of 16 in the low and the high half, as the first int32 of each. */
INLINE __m256i sums_of_16(__m256i q)
{
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
    __m256i s = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));

    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
    return _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
}

static void quantize_32(uint8_t *row, const float *x, int64_t k)
{
    float *d = (float *)(row + el_act32_d(k)), *s = (float *)(row + el_act32_s(k));
    int32_t *sum8 = (int32_t *)(row + el_act32_sum8(k));

    for (int64_t b = 0; b < k / 32; b++, x += 32) {
        const scales sc = scales_of(peak_of(x, 32));
        __m256i q = _mm256_setzero_si256(), halves;
        int32_t sum;
        if (sc.inverse != 0)
            q = quantize_32_values(x, _mm256_set1_ps(sc.inverse));
        _mm256_storeu_si256((__m256i *)(row + 32 * b), q);
        halves = sums_of_16(q);
        sum = _mm256_extract_epi32(halves, 0) + _mm256_extract_epi32(halves, 4);
        d[b] = sc.d;
        s[b] = sc.d * (float)sum;
        sum8[b] = 8 * sum;
    }
}

static void quantize_256(uint8_t *row, const float *x, int64_t k)
{
    int16_t *sum16 = (int16_t *)(row + el_act256_sum16(k)), *sum32 = (int16_t *)(row + el_act256_sum32(k));
    float *d = (float *)(row + el_act256_d(k));

    for (int64_t b = 0; b < k / 256; b++) {
        const scales sc = scales_of(peak_of(x + 256 * b, 256));
        d[b] = sc.d;
        for (int64_t g = 8 * b; g < 8 * b + 8; g++) {
            __m256i q = _mm256_setzero_si256(), halves;
            if (sc.inverse != 0)
                q = quantize_32_values(x + 32 * g, _mm256_set1_ps(sc.inverse));
            _mm256_storeu_si256((__m256i *)(row + 32 * g), q);
            halves = sums_of_16(q);
            sum16[2 * g] = (int16_t)_mm256_extract_epi32(halves, 0);
            sum16[2 * g + 1] = (int16_t)_mm256_extract_epi32(halves, 4);
            sum32[g] = (int16_t)(sum16[2 * g] + sum16[2 * g + 1]);
        }
    }
}

static void act_quantize(el_act_kind kind, void *dst, const float *x, int64_t k)
{
    if (kind == EL_ACT_Q8_32)
        quantize_32(dst, x, k);
    else if (kind == EL_ACT_Q8_256)
        quantize_256(dst, x, k);
    else if (k)
        memcpy(dst, x, (size_t)k * sizeof *x);
}

void el_act_use_avx2(el_kernels *t) { t->act_quantize = act_quantize; }
