/* op_gelu.h - GELU (tanh form) by way of f16, times a second factor: argument and result are rounded to f16 within
 * -10 .. 10, as in runtimes that look it up in a table over all f16 numbers. For models that amplify rounding so much
 * that files made for those runtimes give other numbers with the exact function (Gemma 3n, T5). Those were published in
 * bfloat16, which holds less. Source: Hendrycks and Gimpel 2016. */
#ifndef EL_OP_GELU_H
#define EL_OP_GELU_H

struct ggml_context;
struct ggml_tensor;

/* gelu(gate) * up, both F32 of one shape, rows contiguous; the result is contiguous. */
struct ggml_tensor *el_op_geglu_f16(struct ggml_context *ctx, struct ggml_tensor *gate, struct ggml_tensor *up);

#endif
