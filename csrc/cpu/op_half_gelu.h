/* op_half_gelu.h - GELU (its tanh form) of a number rounded to half precision, the result rounded likewise. Other
 * runtimes look it up in a table of all halves; models whose logits depend on such details need the same rounding. The
 * weights of those models were published in bfloat16, so no more precision is lost than they have. Source: Hendrycks
 * and Gimpel 2016. */
#ifndef EL_OP_HALF_GELU_H
#define EL_OP_HALF_GELU_H

struct ggml_context;
struct ggml_tensor;

/* x: F32, rows contiguous. At -10 and below 0, at 10 and above x itself: those are GELU's values there, and activations
 * that no half can hold stay finite. */
struct ggml_tensor *el_op_half_gelu(struct ggml_context *ctx, struct ggml_tensor *x);

#endif
