/* kernels.h - the arithmetic of a model on one CPU: weights times activations, rows, attention. No threads, no graph,
 * no allocation. One table per instruction set; `ref` is the plain C that defines the result, and every other table
 * gives the same bits for the same input (NaNs compare as equal; their payload is not defined).
 *
 * The rule. An output has one order of summation, given by the weight's type and the position along K. It does not
 * depend on how many rows or activations a call has, on tiles, threads or instruction set. fma is IEEE's fused
 * operation, every other operation rounds once; nothing flushes denormals.
 *
 * Blocks of 32 (Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL MXFP4), activations EL_ACT_Q8_32, block by block from acc = 0:
 *     i   = sum of q_w * q_x over the block, exact in int32; q_w is the signed value (Q4_0: nibble - 8, Q5_0: - 16)
 *     acc = fma(d_w * d_x, (float)i, acc)
 *     acc = fma(m_w, s_x, acc)                  Q4_1 and Q5_1 only; s_x = d_x * (float)(sum of q_x)
 * MXFP4 counts in halves: q_w in {0, 1, 2, 3, 4, 6, 8, 12} with sign, d_w = 2^(e - 128).
 *
 * Super-blocks of 256 (Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_XS), activations EL_ACT_Q8_256, one by one from acc = 0:
 *     i   = sum over the groups g (of 16 or 32) of scale_g * (sum of q_w * q_x over g), exact in int32
 *     acc = fma(d_w * d_x, (float)i, acc)
 *     acc = fma(-(dmin_w * d_x), (float)j, acc)  Q2_K, Q4_K and Q5_K only; j = sum over g of min_g * (sum of q_x over
 * g)
 *
 * F32, F16, BF16, activations EL_ACT_F32: 16 partial sums from 0, p[k % 16] = fma(w[k], x[k], p[k % 16]) with k
 * ascending, both sides padded with zeros to a multiple of 16; then the fold: p[i] += p[i + 8] for i < 8,
 * p[i] += p[i + 4] for i < 4, p[i] += p[i + 2] for i < 2, p[0] + p[1]. Row sums (norms, dot) use the same 16 and fold.
 *
 * Activations are quantized by el_kernels.act_quantize: d = amax / 127, q = x * (127 / amax) rounded to the nearest,
 * ties to even, so |q| <= 127. A block with amax < 2^-120 counts as zeros. A block with an infinity or a NaN gets
 * d = NaN, so that the fault stays visible in what it touches. */
#ifndef EL_KERNELS_H
#define EL_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* ---- activations ---------------------------------------------------------------------- */

typedef enum el_act_kind {
    EL_ACT_F32,   /* as they are */
    EL_ACT_Q8_32, /* int8 with a float scale per 32 */
    EL_ACT_Q8_256 /* int8 with a float scale per 256 */
} el_act_kind;

/* What a weight type (its number in GGUF) wants; -1: there is no kernel for the type. */
int el_kernels_act_kind(int type);

/* Bytes of one row of k activations: a multiple of 64, and an odd one, so that rows of a power-of-two k do not fall on
 * the same cache sets. k is a multiple of 32 (Q8_32) or 256 (Q8_256). */
size_t el_act_row_bytes(el_act_kind kind, int64_t k);

/* Elements and bytes of one block of the type; false: no kernel. */
int el_kernels_block(int type, int *elements, int *bytes);

/* Bytes of scratch a matmul call wants, 0 when none (scratch may then be NULL). */
size_t el_matmul_scratch(int type, int64_t k);

/* ---- attention ------------------------------------------------------------------------ */

enum {
    EL_ATTN_SEGMENT = 256, /* positions of one partial result */
    EL_ATTN_BLOCK = 32     /* positions per entry of a block table */
};

typedef enum el_kv_type { EL_KV_F32, EL_KV_F16, EL_KV_Q8_0 } el_kv_type;

/* Queries that share one KV head, of one sequence: heads of a group, and neighbouring tokens, in any mix.
 * Score of position p: dot(q, k_p) * scale, in the order of the float types above; K and V are converted to float
 * first (Q8_0: d * (float)q). Position p lies in slot blocks[p / 32] * 32 + p % 32. */
typedef struct el_attn {
    const float *q;  /* n_q rows of head_k */
    size_t q_stride; /* floats from row to row */
    int32_t n_q;
    const int32_t *first; /* per query: it sees the positions first[i] .. last[i] - 1 */
    const int32_t *last;
    int32_t head_k, head_v; /* multiples of 32 for EL_KV_Q8_0, any other size >= 1 else */
    el_kv_type k_type, v_type;
    const void *k, *v; /* this head's row in slot 0 */
    size_t k_stride;   /* bytes from slot to slot */
    size_t v_stride;
    const int32_t *blocks;
    float scale;
    float softcap; /* score = softcap * tanh(score / softcap); 0: none */
    /* ALiBi (Press et al. 2022), after the soft cap: score = fma(-slopes[i], |positions[i] - p|, score); NULL: none */
    const float *slopes;
    const int32_t *positions; /* of the queries themselves */
} el_attn;

/* One query's result over one segment, as floats: acc[head_v], then at el_attn_partial_floats - 16 max and sum. */
size_t el_attn_partial_floats(int32_t head_v); /* a multiple of 16 */
size_t el_attn_scratch(int32_t n_q, int32_t head_k, int32_t head_v);

/* ---- the table ------------------------------------------------------------------------ */

enum { EL_KERNELS_N_TYPES = 40 }; /* GGUF's numbers up to MXFP4, 39 */

/* y[j * ldy + r] = w_row(r) . x_row(j) for r < n_rows, j < n_x.
 *   w  n_rows rows of row_bytes, at any alignment; no byte past the last block of a row is read
 *   x  n_x rows made by act_quantize, x_stride bytes apart, 64-aligned
 * Prefetches may name addresses past the end of w; they never fault. */
typedef void el_matmul_fn(float *y, int64_t ldy, const void *w, size_t row_bytes, int64_t n_rows, const void *x,
                          size_t x_stride, int64_t n_x, int64_t k, void *scratch);

/* Functions of single elements. x stands for a's element, u for b's; f: parameters. */
typedef enum el_map {
    EL_MAP_ADD, /* x + u, ... */
    EL_MAP_SUB,
    EL_MAP_MUL,
    EL_MAP_DIV,
    EL_MAP_SCALE, /* fma(x, f[0], f[1]); x * f[0] when f[1] is 0 */
    EL_MAP_CLAMP, /* to f[0] .. f[1] */
    EL_MAP_NEG,
    EL_MAP_ABS,
    EL_MAP_SIGN,
    EL_MAP_STEP, /* x > 0 */
    EL_MAP_SQR,
    EL_MAP_SQRT,
    EL_MAP_EXP,
    EL_MAP_EXPM1, /* exp(x) - 1 */
    EL_MAP_TANH,
    EL_MAP_SIGMOID,
    EL_MAP_SOFTPLUS, /* log(1 + exp(x)) */
    EL_MAP_HARD_SIGMOID,
    EL_MAP_HARD_SWISH,
    EL_MAP_ELU,
    EL_MAP_RELU,
    EL_MAP_RELU_SQR,
    EL_MAP_SILU,
    EL_MAP_GELU,       /* tanh form */
    EL_MAP_GELU_ERF,   /* the exact one */
    EL_MAP_GELU_QUICK, /* x * sigmoid(1.702 x) */
    EL_MAP_XIELU,      /* f: alpha_n, alpha_p, beta, eps, as GGML_UNARY_OP_XIELU has them */
    EL_MAP_REGLU,      /* from here on: activation(x) * u */
    EL_MAP_GEGLU,
    EL_MAP_SWIGLU,
    EL_MAP_SWIGLU_OAI, /* f: alpha, limit. g = min(x, limit): g * sigmoid(alpha g) * (clamp(u, -limit, limit) + 1) */
    EL_MAP_GEGLU_ERF,
    EL_MAP_GEGLU_QUICK,
    EL_N_MAPS
} el_map;

/* One token of linear attention: the state of a head is n_value rows of n_key floats. For each row j, with
 * p = dot(row, probe) before it changes:
 *     row = fma(row, decay, fma(value[j], key, p * erase)), or without erase fma(row, decay, value[j] * key)
 *     y[j] = dot(row, query), or with a probe alone p */
typedef struct el_state_step {
    int64_t n_key, n_value;
    const float *decay, *key, *query; /* [n_key] */
    const float *probe, *erase;       /* [n_key] or NULL; erase wants a probe */
    const float *value;               /* [n_value] */
} el_state_step;

/* Rows are n floats at any alignment. y may be the same array as an input unless said otherwise. */
typedef struct el_kernels {
    const char *isa;

    void (*act_quantize)(el_act_kind kind, void *dst, const float *x, int64_t k); /* one row; dst 64-aligned */
    el_matmul_fn *matmul[EL_KERNELS_N_TYPES];                                     /* by GGUF number; NULL: no kernel */

    /* y = x * (1 / sqrt(mean(x^2) + eps)) * w; w NULL: 1 */
    void (*rms_norm)(float *y, const float *x, const float *w, int64_t n, float eps);
    /* y = fma((x - mean) * (1 / sqrt(var + eps)), w, b); w and b may be NULL: 1 and 0 */
    void (*layer_norm)(float *y, const float *x, const float *w, const float *b, int64_t n, float eps);
    void (*add)(float *y, const float *a, const float *b, int64_t n);
    void (*mul)(float *y, const float *a, const float *b, int64_t n);
    void (*scale)(float *y, const float *x, float factor, int64_t n);
    void (*axpy)(float *y, float factor, const float *x, int64_t n);           /* y = fma(factor, x, y) */
    void (*silu_mul)(float *y, const float *gate, const float *up, int64_t n); /* silu(gate) * up; up NULL: 1 */
    void (*gelu_mul)(float *y, const float *gate, const float *up, int64_t n); /* tanh form */
    void (*map)(el_map which, float *y, const float *a, const float *b, int64_t n, const float *f); /* b, f: or NULL */
    void (*softcap)(float *y, const float *x, float cap, int64_t n); /* cap * tanh(x / cap) */
    void (*softmax)(float *y, const float *x, int64_t n);            /* over n >= 1 scores */
    float (*dot)(const float *a, const float *b, int64_t n);
    void (*state_step)(float *y, float *state, const el_state_step *s); /* y: no other array's memory */
    /* Rotates the first n_rot of n values by n_rot / 2 angles; the rest is copied.
     * adjacent: pairs (2i, 2i + 1); halves: pairs (i, i + n_rot / 2). */
    void (*rope_adjacent)(float *y, const float *x, const float *cosines, const float *sines, int64_t n_rot, int64_t n);
    void (*rope_halves)(float *y, const float *x, const float *cosines, const float *sines, int64_t n_rot, int64_t n);

    void (*f32_to_f16)(uint16_t *y, const float *x, int64_t n); /* to nearest, ties to even */
    void (*f16_to_f32)(float *y, const uint16_t *x, int64_t n);
    void (*f32_to_q8_0)(void *y, const float *x, int64_t n); /* n a multiple of 32; 34 bytes per block */

    int64_t (*argmax)(const float *x, int64_t n); /* the first of the largest; NaN is never larger; n >= 1 */
    /* The k largest, best first, equal values by index; NaN counts as -inf. Returns min(k, n). */
    int64_t (*top_k)(int32_t *ids, float *values, int64_t k, const float *x, int64_t n);

    /* Partial results of all a->n_q queries over positions segment * 256 .. + 255. A query that sees none of them
     * gets max -inf, sum 0, acc 0. scratch: el_attn_scratch bytes, 64-aligned.
     * p = exp(score - max); sum: 16 partial sums by position % 16, then the fold; acc = fma(p, v, acc), ascending. */
    void (*attn_segment)(const el_attn *a, int32_t segment, float *partials, void *scratch);
    /* One query: y[head_v] from n partials in order of their segments, `stride` floats apart; those without a visible
     * position change nothing, so they may be left out. sink: a score that has no value (-inf: none).
     * With f = exp(max_s - max): acc = fma(acc_s, f, acc), sum = fma(sum_s, f, sum); y = acc * (1 / sum). */
    void (*attn_combine)(float *y, const float *partials, size_t stride, int64_t n, float sink, int32_t head_v);
} el_kernels;

const el_kernels *el_kernels_get(void); /* the best this CPU can run, minus EDGELLM_CPU_DISABLE */
/* "ref", "avx2", "avxvnni" (whichever of its two encodings the CPU has), ...; NULL: not on this CPU, or unknown */
const el_kernels *el_kernels_named(const char *isa);
const char *el_kernels_isa(size_t i); /* the i-th name, slow to fast; NULL after the last */

/* One row of k weights as floats, in plain C: d * scale * q - dmin * min as the formats define it. */
void el_dequantize_row(int type, float *y, const void *w, int64_t k);

#endif
