/* act_avx512.c - activations quantized; the same bits as act_ref.c. Blocks of 32 go sixteen at a time: their peaks,
 * scales and sums are lanes of one register, so that the divisions are shared. */
#include "lanes_avx512.h"

#include "blocks.h"
#include "mem.h"

INLINE __m512i magnitudes(const float *x)
{
    return _mm512_and_si512(_mm512_set1_epi32(0x7fffffff), _mm512_loadu_si512(x));
}

typedef struct scales { /* per lane */
    __m512 d, inverse;  /* inverse 0: all q are 0 */
} scales;

INLINE scales scales_of(__m512i peaks)
{
    const __m512 amax = _mm512_castsi512_ps(peaks), k127 = _mm512_set1_ps(127.0f);
    const __mmask16 fault = _mm512_cmpge_epu32_mask(peaks, _mm512_set1_epi32(0x7f800000));
    const __mmask16 large = _mm512_cmp_ps_mask(amax, _mm512_set1_ps(0x1p-120f), _CMP_GE_OQ) & (__mmask16)~fault;

    return (scales){_mm512_mask_mov_ps(_mm512_maskz_div_ps(large, amax, k127), fault,
                                       _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000))),
                    _mm512_maskz_div_ps(large, k127, amax)};
}

/* Where inverse is 0, so is q, also of an infinity or a NaN. */
INLINE __m128i quantize_16(const float *x, float inverse)
{
    const __mmask16 some = inverse != 0 ? 0xffff : 0;
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, x), _mm512_set1_ps(inverse));

    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v));
}

INLINE __m512i sums_of_4(__m512i q) { return _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), q); }

static void quantize_32(uint8_t *row, const float *x, int64_t k)
{
    float *d = (float *)(row + el_act32_d(k)), *s = (float *)(row + el_act32_s(k));
    int32_t *sum8 = (int32_t *)(row + el_act32_sum8(k));

    for (int64_t b = 0; b < k / 32; b += 16) {
        const int n = (int)EL_MIN(16, k / 32 - b);
        const __mmask16 some = el_first_lanes(n);
        int32_t peaks[16] = {0}, sums[16] = {0};
        float inverse[16];
        scales sc;
        __m512i total;
        for (int i = 0; i < n; i++) {
            const float *at = x + 32 * (b + i);
            peaks[i] = _mm512_reduce_max_epi32(_mm512_max_epi32(magnitudes(at), magnitudes(at + 16)));
        }
        sc = scales_of(_mm512_loadu_si512(peaks));
        _mm512_storeu_ps(inverse, sc.inverse);
        for (int i = 0; i < n; i++) {
            const float *at = x + 32 * (b + i);
            const __m256i q = _mm256_set_m128i(quantize_16(at + 16, inverse[i]), quantize_16(at, inverse[i]));
            const __m256i four = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), q);
            __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
            sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
            sums[i] = _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
            _mm256_storeu_si256((__m256i *)(row + 32 * (b + i)), q);
        }
        total = _mm512_loadu_si512(sums);
        _mm512_mask_storeu_ps(d + b, some, sc.d);
        _mm512_mask_storeu_ps(s + b, some, _mm512_mul_ps(sc.d, _mm512_cvtepi32_ps(total)));
        _mm512_mask_storeu_epi32(sum8 + b, some, _mm512_slli_epi32(total, 3));
    }
}

/* Four sums of 16 from 64 values, as the first int32 of each quarter. */
INLINE __m512i sums_of_16(__m512i q)
{
    const __m512i four = sums_of_4(q), two = _mm512_add_epi32(four, _mm512_shuffle_epi32(four, 0x4e));

    return _mm512_add_epi32(two, _mm512_shuffle_epi32(two, 0xb1));
}

static void quantize_256(uint8_t *row, const float *x, int64_t k)
{
    int16_t *sum16 = (int16_t *)(row + el_act256_sum16(k)), *sum32 = (int16_t *)(row + el_act256_sum32(k));
    float *d = (float *)(row + el_act256_d(k));

    for (int64_t b = 0; b < k / 256; b++) {
        __m512i peak = _mm512_setzero_si512();
        float inverse;
        scales sc;
        for (int i = 0; i < 256; i += 16)
            peak = _mm512_max_epi32(peak, magnitudes(x + 256 * b + i));
        sc = scales_of(_mm512_set1_epi32(_mm512_reduce_max_epi32(peak)));
        d[b] = _mm512_cvtss_f32(sc.d);
        inverse = _mm512_cvtss_f32(sc.inverse);
        for (int64_t g = 4 * b; g < 4 * b + 4; g++) { /* 64 values */
            const float *at = x + 64 * g;
            __m512i q = _mm512_castsi128_si512(quantize_16(at, inverse)), sums;
            __m128i four;
            q = _mm512_inserti32x4(q, quantize_16(at + 16, inverse), 1);
            q = _mm512_inserti32x4(q, quantize_16(at + 32, inverse), 2);
            q = _mm512_inserti32x4(q, quantize_16(at + 48, inverse), 3);
            _mm512_storeu_si512(row + 64 * g, q);
            sums = sums_of_16(q);
            sums = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), sums);
            four = _mm512_castsi512_si128(sums);
            _mm_storel_epi64((__m128i *)(sum16 + 4 * g), _mm_packs_epi32(four, four));
            four = _mm_hadd_epi32(four, four);
            _mm_storeu_si32(sum32 + 2 * g, _mm_packs_epi32(four, four));
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

void el_act_use_avx512(el_kernels *t) { t->act_quantize = act_quantize; }
