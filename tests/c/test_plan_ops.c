/* test_plan_ops.c - every operation that models' graphs use, alone and between products: our plan against ggml's. */
#include "plan_harness.h"

enum { K = 64, N = 96, HEAD = 32, HEADS = 3, EXPERTS = 6, USED = 2 };

static struct ggml_tensor *mat(graph *g, int64_t in, int64_t out) { return weight(g, GGML_TYPE_F32, in, out, 1); }

static struct ggml_tensor *vec(graph *g, int64_t n) { return weight(g, GGML_TYPE_F32, n, 1, 1); }

static struct ggml_tensor *rows(graph *g, int64_t n) { return input(g, n, g->rows, 1); }

static struct ggml_tensor *product(graph *g, int64_t out) { return ggml_mul_mat(g->ctx, mat(g, K, out), rows(g, K)); }

static struct ggml_tensor *heads(graph *g, struct ggml_tensor *x, int64_t head)
{
    return ggml_reshape_3d(g->ctx, x, head, x->ne[0] / head, g->rows);
}

static struct ggml_tensor *flat(graph *g, struct ggml_tensor *x)
{
    return ggml_reshape_2d(g->ctx, x, x->ne[0] * x->ne[1], g->rows);
}

/* A product of the result, so that what follows is a product's input. */
static struct ggml_tensor *into(graph *g, struct ggml_tensor *x)
{
    return ggml_mul_mat(g->ctx, mat(g, x->ne[0], 40), x);
}

static struct ggml_tensor *part(graph *g, struct ggml_tensor *x, int64_t first, int64_t n)
{
    return ggml_view_2d(g->ctx, x, n, x->ne[1], x->nb[1], (size_t)first * sizeof(float));
}

/* ---- elements --------------------------------------------------------------------------- */

/* All unary functions, each after a product, summed. */
static struct ggml_tensor *unary_after(graph *g, const enum ggml_unary_op *ops, int n)
{
    struct ggml_tensor *sum = NULL, *x = rows(g, K);

    for (int i = 0; i < n; i++) {
        struct ggml_tensor *y = ggml_unary(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, N), x), ops[i]);
        sum = sum ? ggml_add(g->ctx, sum, into(g, y)) : into(g, y);
    }
    return sum;
}

static struct ggml_tensor *activations_after_product(graph *g)
{
    return unary_after(g,
                       (const enum ggml_unary_op[]){GGML_UNARY_OP_GELU_ERF, GGML_UNARY_OP_SILU, GGML_UNARY_OP_RELU,
                                                    GGML_UNARY_OP_SIGMOID},
                       4);
}

static struct ggml_tensor *table_gelus(graph *g) /* ggml reads these from tables in f16 */
{
    return unary_after(g, (const enum ggml_unary_op[]){GGML_UNARY_OP_GELU, GGML_UNARY_OP_GELU_QUICK}, 2);
}

static struct ggml_tensor *all_unary(graph *g)
{
    static const enum ggml_unary_op ops[] = {GGML_UNARY_OP_ABS,         GGML_UNARY_OP_SGN,       GGML_UNARY_OP_NEG,
                                             GGML_UNARY_OP_STEP,        GGML_UNARY_OP_TANH,      GGML_UNARY_OP_ELU,
                                             GGML_UNARY_OP_HARDSIGMOID, GGML_UNARY_OP_HARDSWISH, GGML_UNARY_OP_EXP,
                                             GGML_UNARY_OP_EXPM1,       GGML_UNARY_OP_SOFTPLUS};
    struct ggml_tensor *sum = NULL, *x = input(g, 7, 3, g->rows);

    for (size_t i = 0; i < EL_COUNT(ops); i++) {
        struct ggml_tensor *y = ggml_unary(g->ctx, x, ops[i]);
        sum = sum ? ggml_add(g->ctx, sum, y) : y;
    }
    return ggml_add(g->ctx, sum, ggml_xielu(g->ctx, x, 0.3f, 0.4f, 0.5f, -1e-6f));
}

static struct ggml_tensor *squared_relu(graph *g)
{
    return into(g, ggml_sqr(g->ctx, ggml_relu(g->ctx, product(g, N))));
}

static struct ggml_tensor *biased_gelu(graph *g)
{
    return into(g, ggml_gelu_erf(g->ctx, ggml_add(g->ctx, product(g, N), vec(g, N))));
}

static struct ggml_tensor *arithmetic(graph *g)
{
    struct ggml_tensor *a = rows(g, K), *b = rows(g, K), *one = input(g, 1, g->rows, 1);
    struct ggml_tensor *y = ggml_mul(g->ctx, ggml_sub(g->ctx, a, b), ggml_scale_bias(g->ctx, b, 0.3f, -0.7f));

    y = ggml_div(g->ctx, y, ggml_scale_bias(g->ctx, ggml_sqr(g->ctx, a), 1.0f, 2.0f));
    y = ggml_mul(g->ctx, ggml_clamp(g->ctx, y, -0.5f, 0.4f), one);
    y = ggml_add(g->ctx, y, ggml_sqrt(g->ctx, ggml_sqr(g->ctx, b)));
    y = ggml_add(g->ctx, y, vec(g, 1));
    return ggml_mul(g->ctx, y, ggml_sum_rows(g->ctx, a));
}

static struct ggml_tensor *shapes(graph *g)
{
    struct ggml_tensor *x = input(g, 8, 6, g->rows), *y = input(g, 8, 2, g->rows), *z;

    z = ggml_concat(g->ctx, x, y, 1);                           /* [8, 8, rows] */
    z = ggml_cont(g->ctx, ggml_permute(g->ctx, z, 1, 0, 2, 3)); /* heads turned */
    z = ggml_concat(g->ctx, z, ggml_repeat(g->ctx, ggml_view_3d(g->ctx, y, 8, 1, g->rows, y->nb[1], y->nb[2], 0), z),
                    0);
    z = ggml_cont_2d(g->ctx, ggml_permute(g->ctx, z, 1, 0, 2, 3), 128, g->rows);
    return ggml_add(g->ctx, z, ggml_cpy(g->ctx, z, input(g, 128, g->rows, 1)));
}

static struct ggml_tensor *gathered(graph *g)
{
    struct ggml_tensor *x = ggml_sigmoid(g->ctx, product(g, EXPERTS)); /* [experts, rows] */
    struct ggml_tensor *chosen = ggml_argsort_top_k(g->ctx, x, USED);
    struct ggml_tensor *y = ggml_get_rows(g->ctx, ggml_reshape_3d(g->ctx, x, 1, EXPERTS, g->rows), chosen);

    y = ggml_reshape_2d(g->ctx, y, USED, g->rows);
    return ggml_div(g->ctx, y, ggml_sum_rows(g->ctx, y));
}

/* ---- norms ------------------------------------------------------------------------------- */

static struct ggml_tensor *layer_norm(graph *g, struct ggml_tensor *x, bool bias)
{
    x = ggml_mul(g->ctx, ggml_norm(g->ctx, x, 1e-5f), vec(g, x->ne[0]));
    return bias ? ggml_add(g->ctx, x, vec(g, x->ne[0])) : x;
}

static struct ggml_tensor *layer_norms(graph *g)
{
    struct ggml_tensor *x = layer_norm(g, rows(g, K), true);

    x = ggml_add(g->ctx, x, ggml_mul_mat(g->ctx, mat(g, K, K), layer_norm(g, x, false)));
    return into(g, ggml_norm(g->ctx, x, 1e-5f));
}

static struct ggml_tensor *rms_norms(graph *g)
{
    struct ggml_tensor *x = ggml_rms_norm(g->ctx, rows(g, K), 1e-5f);

    x = ggml_add(g->ctx, ggml_mul(g->ctx, x, vec(g, K)), vec(g, K));
    x = ggml_mul_mat(g->ctx, mat(g, K, N), x);
    return ggml_rms_norm(g->ctx, flat(g, ggml_rms_norm(g->ctx, heads(g, x, HEAD), 1e-6f)), 1e-6f);
}

/* Norms of heads after a product: a weight for all, one per head, a layer norm's, none. */
static struct ggml_tensor *head_norms(graph *g)
{
    struct ggml_tensor *x = rows(g, K), *a, *b, *c, *d;

    a = ggml_rms_norm(g->ctx, heads(g, ggml_mul_mat(g->ctx, mat(g, K, N), x), HEAD), 1e-6f);
    a = ggml_mul(g->ctx, a, vec(g, HEAD));
    b = ggml_rms_norm(g->ctx, heads(g, ggml_mul_mat(g->ctx, mat(g, K, N), x), HEAD), 1e-6f);
    b = ggml_mul(g->ctx, b, mat(g, HEAD, HEADS));
    c = ggml_norm(g->ctx, heads(g, ggml_mul_mat(g->ctx, mat(g, K, N), x), HEAD), 1e-6f);
    c = ggml_add(g->ctx, ggml_mul(g->ctx, c, mat(g, HEAD, HEADS)), mat(g, HEAD, HEADS));
    d = ggml_norm(g->ctx, heads(g, ggml_mul_mat(g->ctx, mat(g, K, N), x), HEAD), 1e-6f);
    d = ggml_add(g->ctx, ggml_mul(g->ctx, d, vec(g, HEAD)), vec(g, HEAD));
    a = ggml_concat(g->ctx, flat(g, a), flat(g, b), 0);
    return ggml_concat(g->ctx, a, ggml_concat(g->ctx, flat(g, c), flat(g, d), 0), 0);
}

static struct ggml_tensor *unit_heads(graph *g)
{
    struct ggml_tensor *x = ggml_l2_norm(g->ctx, heads(g, product(g, N), HEAD), 1e-6f);

    return ggml_add(g->ctx, x, ggml_rms_norm(g->ctx, heads(g, product(g, N), HEAD), 1e-6f));
}

/* ---- gates ------------------------------------------------------------------------------- */

static struct ggml_tensor *split_gates(graph *g)
{
    static const enum ggml_glu_op ops[] = {GGML_GLU_OP_REGLU, GGML_GLU_OP_SWIGLU, GGML_GLU_OP_GEGLU_ERF};
    struct ggml_tensor *sum = NULL, *x = rows(g, K);

    for (size_t i = 0; i < EL_COUNT(ops); i++) {
        struct ggml_tensor *a = ggml_mul_mat(g->ctx, mat(g, K, N), x), *b = ggml_mul_mat(g->ctx, mat(g, K, N), x);
        struct ggml_tensor *y = into(g, ggml_glu_split(g->ctx, a, b, ops[i]));
        sum = sum ? ggml_add(g->ctx, sum, y) : y;
    }
    return sum;
}

static struct ggml_tensor *fused_gates(graph *g)
{
    struct ggml_tensor *x = rows(g, K), *a, *b, *c;

    a = ggml_swiglu(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, 2 * N), x));
    b = ggml_glu(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, 2 * N), x), GGML_GLU_OP_GEGLU_ERF, true);
    c = ggml_reglu(g->ctx, ggml_add(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, 2 * N), x), vec(g, 2 * N)));
    return ggml_add(g->ctx, ggml_add(g->ctx, into(g, a), into(g, b)), into(g, c));
}

static struct ggml_tensor *table_gates(graph *g)
{
    struct ggml_tensor *x = rows(g, K), *a, *b;

    a = ggml_geglu(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, 2 * N), x));
    b = ggml_geglu_quick_split(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, N), x), ggml_mul_mat(g->ctx, mat(g, K, N), x));
    return ggml_add(g->ctx, into(g, a), into(g, b));
}

static struct ggml_tensor *oai_gate(graph *g)
{
    struct ggml_tensor *x = rows(g, K);
    struct ggml_tensor *a = ggml_add(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, N), x), vec(g, N));
    struct ggml_tensor *b = ggml_add(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, N), x), vec(g, N));

    return into(g, ggml_swiglu_oai(g->ctx, a, b, 1.702f, 1.5f));
}

/* As MPT has them: clamped, into the cache and on, divided. ggml_clamp works in place. */
static void number_rows(struct ggml_tensor *t);
static struct ggml_tensor *clamped(graph *g)
{
    struct ggml_tensor *x = rows(g, K), *a, *b, *c;

    a = ggml_clamp(g->ctx, ggml_add(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, N), x), vec(g, N)), -0.5f, 0.5f);
    b = ggml_clamp(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, N), x), -0.5f, 0.5f);
    c = ggml_rope(g->ctx, heads(g, ggml_clamp(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, N), x), -1, 1), HEAD),
                  ids(g, g->rows, 1, 50), HEAD, GGML_ROPE_TYPE_NEOX);
    ggml_build_forward_expand(g->nodes, ggml_set_rows(g->ctx, state(g, N, MAX_CASE_ROWS), b,
                                                      filled(g, GGML_TYPE_I64, g->rows, 1, number_rows)));
    a = ggml_add(g->ctx, into(g, flat(g, c)), into(g, a));
    return ggml_add(g->ctx, a, into(g, ggml_div(g->ctx, ggml_gelu_erf(g->ctx, product(g, N)), vec(g, N))));
}

/* A product gated by another long before, as state-space layers have it. */
static struct ggml_tensor *late_gate(graph *g)
{
    struct ggml_tensor *x = rows(g, K), *z = ggml_mul_mat(g->ctx, mat(g, K, N), x);
    struct ggml_tensor *y = ggml_mul_mat(g->ctx, mat(g, K, N), ggml_mul_mat(g->ctx, mat(g, K, K), x));

    return into(g, ggml_swiglu_split(g->ctx, z, y));
}

/* A product times the sigmoid of another, as gated attention and shared experts have it. */
static struct ggml_tensor *sigmoid_gate(graph *g)
{
    struct ggml_tensor *x = rows(g, K), *y = ggml_mul_mat(g->ctx, mat(g, K, N), x);

    y = ggml_mul(g->ctx, y, ggml_sigmoid(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, N), x)));
    y = into(g, y);
    return ggml_mul(g->ctx, y, ggml_sigmoid(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, 1), x)));
}

/* ---- views ------------------------------------------------------------------------------- */

/* Parts of one product, each with its own way. */
static struct ggml_tensor *parts_of_product(graph *g)
{
    struct ggml_tensor *x = product(g, 3 * N), *a = part(g, x, 0, N), *b = part(g, x, N, N), *c = part(g, x, 2 * N, N);

    a = into(g, a);
    b = into(g, ggml_mul(g->ctx, ggml_rms_norm(g->ctx, b, 1e-6f), vec(g, N)));
    return ggml_add(g->ctx, ggml_add(g->ctx, a, b), into(g, ggml_silu(g->ctx, c)));
}

/* Parts of rows that nothing has computed yet; one alone; the same matrix rows for two parts. */
static struct ggml_tensor *parts_of_norm(graph *g)
{
    struct ggml_tensor *x = ggml_mul(g->ctx, ggml_rms_norm(g->ctx, rows(g, N), 1e-6f), vec(g, N));
    struct ggml_tensor *w = mat(g, HEAD, 40);

    return ggml_add(g->ctx, ggml_mul_mat(g->ctx, w, part(g, x, HEAD, HEAD)),
                    ggml_mul_mat(g->ctx, w, part(g, x, 2 * HEAD, HEAD)));
}

static struct ggml_tensor *part_alone(graph *g)
{
    struct ggml_tensor *x = ggml_rms_norm(g->ctx, rows(g, N), 1e-6f);

    x = into(g, ggml_mul(g->ctx, ggml_rms_norm(g->ctx, part(g, x, HEAD, HEAD), 1e-6f), vec(g, HEAD)));
    return ggml_add(g->ctx, x, into(g, part(g, product(g, N), 8, 16)));
}

/* Rope of a part of each head, then the parts together. */
static struct ggml_tensor *part_rope(graph *g)
{
    struct ggml_tensor *x = heads(g, product(g, N), HEAD), *positions = ids(g, g->rows, 1, 50);
    struct ggml_tensor *a = ggml_view_3d(g->ctx, x, 12, HEADS, g->rows, x->nb[1], x->nb[2], 0);
    struct ggml_tensor *b = ggml_view_3d(g->ctx, x, 20, HEADS, g->rows, x->nb[1], x->nb[2], 12 * sizeof(float));

    b = ggml_rope_ext(g->ctx, b, positions, NULL, 20, GGML_ROPE_TYPE_NEOX, 0, 1e4f, 1, 0, 1, 0, 0);
    a = ggml_rope_ext(g->ctx, a, positions, NULL, 8, GGML_ROPE_TYPE_NORMAL, 0, 1e4f, 1, 0, 1, 0, 0);
    return ggml_concat(g->ctx, b, a, 0);
}

/* ---- products of other shapes -------------------------------------------------------------- */

/* A matrix per head, in and out, as latent attention has them. */
static struct ggml_tensor *matrix_per_head(graph *g)
{
    struct ggml_tensor *x = ggml_permute(g->ctx, heads(g, product(g, N), HEAD), 0, 2, 1, 3); /* [head, rows, heads] */

    x = ggml_mul_mat(g->ctx, weight(g, GGML_TYPE_Q8_0, HEAD, 48, HEADS), x); /* [48, rows, heads] */
    return ggml_cont(g->ctx, ggml_permute(g->ctx, x, 0, 2, 1, 3));
}

static struct ggml_tensor *computed_matrix(graph *g)
{
    struct ggml_tensor *k = ggml_mul_mat(g->ctx, mat(g, K, 24), input(g, K, 11, 1)); /* [24, 11] */

    return ggml_soft_max(g->ctx, ggml_scale(g->ctx, ggml_mul_mat(g->ctx, k, product(g, 24)), 0.2f));
}

static struct ggml_tensor *experts_of(graph *g, bool bias, enum ggml_type type)
{
    struct ggml_tensor *x = rows(g, K), *in = ggml_reshape_3d(g->ctx, x, K, 1, g->rows);
    struct ggml_tensor *probs = ggml_sigmoid(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, EXPERTS), x));
    struct ggml_tensor *chosen = ggml_argsort_top_k(g->ctx, ggml_add(g->ctx, probs, vec(g, EXPERTS)), USED), *w, *y;

    w = ggml_get_rows(g->ctx, ggml_reshape_3d(g->ctx, probs, 1, EXPERTS, g->rows), chosen);
    y = ggml_mul_mat_id(g->ctx, weight(g, type, K, 2 * N, EXPERTS), in, chosen);
    if (bias)
        y = ggml_add_id(g->ctx, y, weight(g, GGML_TYPE_F32, 2 * N, EXPERTS, 1), chosen);
    y = ggml_swiglu(g->ctx, y);
    y = ggml_mul_mat_id(g->ctx, weight(g, type, N, K, EXPERTS), y, chosen);
    if (bias)
        y = ggml_add_id(g->ctx, y, weight(g, GGML_TYPE_F32, K, EXPERTS, 1), chosen);
    y = ggml_mul(g->ctx, y, w);
    return ggml_add(g->ctx, ggml_view_2d(g->ctx, y, K, g->rows, y->nb[2], 0),
                    ggml_view_2d(g->ctx, y, K, g->rows, y->nb[2], y->nb[1]));
}

/* As csrc/models builds them. */
enum {
    SOFTMAX = 1,
    SIGMOID = 2,
    ROOT = 3,
    GATING = 3,
    OF_CHOSEN = 4,
    CHOICE = 8,
    BIAS = 16,
    UNGATED = 32,
    NORMAL = 64
};

static struct ggml_tensor *by_id(graph *g, struct ggml_tensor *x, int64_t out, struct ggml_tensor *chosen, int kind)
{
    struct ggml_tensor *y = ggml_mul_mat_id(g->ctx, weight(g, GGML_TYPE_F32, x->ne[0], out, EXPERTS), x, chosen);

    return kind & BIAS ? ggml_add_id(g->ctx, y, weight(g, GGML_TYPE_F32, out, EXPERTS, 1), chosen) : y;
}

static struct ggml_tensor *expert_weights(graph *g, struct ggml_tensor *probs, struct ggml_tensor *chosen, int kind)
{
    struct ggml_tensor *w = ggml_get_rows(g->ctx, ggml_reshape_3d(g->ctx, probs, 1, EXPERTS, g->rows), chosen);

    w = ggml_reshape_2d(g->ctx, w, USED, g->rows);
    if (kind & OF_CHOSEN)
        w = ggml_soft_max(g->ctx, w);
    if (kind & NORMAL)
        w = ggml_div(g->ctx, w, ggml_clamp(g->ctx, ggml_sum_rows(g->ctx, w), 0x1p-14f, INFINITY));
    return ggml_reshape_3d(g->ctx, ggml_scale(g->ctx, w, 2.5f), 1, USED, g->rows);
}

static struct ggml_tensor *mixture(graph *g, int kind)
{
    struct ggml_tensor *x = rows(g, K), *logits = ggml_mul_mat(g->ctx, mat(g, K, EXPERTS), x), *probs, *choice, *w, *y;
    struct ggml_tensor *chosen, *up, *in = ggml_reshape_3d(g->ctx, x, K, 1, g->rows);

    if (kind & BIAS)
        logits = ggml_add(g->ctx, logits, vec(g, EXPERTS));
    probs = (kind & GATING) == SOFTMAX   ? ggml_soft_max(g->ctx, logits)
            : (kind & GATING) == SIGMOID ? ggml_sigmoid(g->ctx, logits)
            : (kind & GATING) == ROOT    ? ggml_sqrt(g->ctx, ggml_softplus(g->ctx, logits))
                                         : logits;
    choice = kind & CHOICE ? ggml_add(g->ctx, probs, vec(g, EXPERTS)) : probs;
    chosen = ggml_argsort_top_k(g->ctx, choice, USED);
    w = expert_weights(g, probs, chosen, kind);
    up = by_id(g, in, N, chosen, kind);
    y = kind & UNGATED ? ggml_sqr(g->ctx, ggml_relu(g->ctx, up))
                       : ggml_swiglu_oai(g->ctx, by_id(g, in, N, chosen, kind), up, 1.702f, 1.5f);
    y = ggml_mul(g->ctx, by_id(g, y, K, chosen, kind), w);
    y = ggml_add(g->ctx, ggml_view_2d(g->ctx, y, K, g->rows, y->nb[2], 0),
                 ggml_view_2d(g->ctx, y, K, g->rows, y->nb[2], y->nb[1]));
    return ggml_add(g->ctx, y, x);
}

static struct ggml_tensor *softmax_experts(graph *g) { return mixture(g, SOFTMAX | NORMAL); }
static struct ggml_tensor *sigmoid_experts(graph *g) { return mixture(g, SIGMOID | NORMAL | CHOICE); }
static struct ggml_tensor *ungated_experts(graph *g) { return mixture(g, ROOT | UNGATED | CHOICE); }
static struct ggml_tensor *chosen_experts(graph *g) { return mixture(g, OF_CHOSEN | BIAS); }
static struct ggml_tensor *biased_choice(graph *g) { return mixture(g, OF_CHOSEN | CHOICE); }

/* Experts of the best groups alone, and a shared one. */
static struct ggml_tensor *grouped_experts(graph *g)
{
    struct ggml_tensor *x = rows(g, K), *probs = ggml_sigmoid(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, EXPERTS), x));
    struct ggml_tensor *choice = ggml_add(g->ctx, probs, vec(g, EXPERTS)), *score, *worst, *chosen, *y, *groups;
    const int64_t per = EXPERTS / 3;

    groups = ggml_reshape_3d(g->ctx, choice, per, 3, g->rows);
    score = ggml_get_rows(g->ctx, ggml_reshape_4d(g->ctx, choice, 1, per, 3, g->rows), ggml_top_k(g->ctx, groups, 2));
    score = ggml_sum_rows(g->ctx, ggml_reshape_3d(g->ctx, score, 2, 3, g->rows));
    worst = ggml_argsort(g->ctx, ggml_reshape_2d(g->ctx, score, 3, g->rows), GGML_SORT_ORDER_DESC);
    worst = ggml_view_2d(g->ctx, worst, 1, g->rows, worst->nb[1], 2 * worst->nb[0]);
    groups = ggml_set_rows(g->ctx, groups, ggml_fill(g->ctx, ggml_get_rows(g->ctx, groups, worst), -INFINITY), worst);
    chosen = ggml_argsort_top_k(g->ctx, ggml_reshape_2d(g->ctx, groups, EXPERTS, g->rows), USED);
    y = ggml_swiglu_split(g->ctx, by_id(g, ggml_reshape_3d(g->ctx, x, K, 1, g->rows), N, chosen, 0),
                          by_id(g, ggml_reshape_3d(g->ctx, x, K, 1, g->rows), N, chosen, 0));
    y = ggml_mul(g->ctx, by_id(g, y, K, chosen, 0), expert_weights(g, probs, chosen, NORMAL));
    y = ggml_add(g->ctx, ggml_view_2d(g->ctx, y, K, g->rows, y->nb[2], 0),
                 ggml_view_2d(g->ctx, y, K, g->rows, y->nb[2], y->nb[1]));
    x = ggml_mul(g->ctx, ggml_mul_mat(g->ctx, mat(g, N, K), ggml_silu(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, N), x))),
                 ggml_sigmoid(g->ctx, ggml_mul_mat(g->ctx, mat(g, K, 1), x)));
    return ggml_add(g->ctx, y, x);
}

static struct ggml_tensor *experts(graph *g) { return experts_of(g, false, GGML_TYPE_F32); }
static struct ggml_tensor *biased_experts(graph *g) { return experts_of(g, true, GGML_TYPE_F32); }
static struct ggml_tensor *packed_experts(graph *g) { return experts_of(g, true, GGML_TYPE_Q8_0); }

/* ---- memory ------------------------------------------------------------------------------ */

/* A state is read, moved on and written: what was read before stays what it was. */
static struct ggml_tensor *moved_state(graph *g)
{
    struct ggml_tensor *kept = state(g, K, 4), *zero = ids(g, 1, 1, 1), *before, *x = rows(g, K);

    before = ggml_get_rows(g->ctx, kept, zero);
    ggml_build_forward_expand(g->nodes, before);
    ggml_build_forward_expand(
        g->nodes, ggml_cpy(g->ctx, ggml_scale(g->ctx, kept, 0.5f), ggml_view_2d(g->ctx, kept, K, 4, kept->nb[1], 0)));
    return ggml_add(g->ctx, ggml_add(g->ctx, x, before), ggml_get_rows(g->ctx, kept, zero));
}

static void number_rows(struct ggml_tensor *t)
{
    for (int64_t i = 0; i < ggml_nelements(t); i++)
        ((int64_t *)t->data)[i] = i * 3 % MAX_CASE_ROWS;
}

static struct ggml_tensor *cache_rows(graph *g)
{
    struct ggml_tensor *kept = state(g, N, MAX_CASE_ROWS), *to = filled(g, GGML_TYPE_I64, g->rows, 1, number_rows);
    struct ggml_tensor *x = ggml_rms_norm(g->ctx, heads(g, product(g, N), HEAD), 1e-6f);

    x = ggml_concat(g->ctx, ggml_view_3d(g->ctx, x, 12, HEADS, g->rows, x->nb[1], x->nb[2], 0),
                    ggml_view_3d(g->ctx, x, 20, HEADS, g->rows, x->nb[1], x->nb[2], 12 * sizeof(float)), 0);
    ggml_build_forward_expand(g->nodes, ggml_set_rows(g->ctx, kept, flat(g, x), to));
    return flat(g, x);
}

/* ---- attention ---------------------------------------------------------------------------- */

enum { SLOTS = 512, BEFORE = 290, NONE = 0, SINKS = 1, SLOPES = 2, WHOLE = 4, CAP = 8 };

static int attention_kind;

static int32_t slot_of(int32_t position) { return (SLOTS / 32 - 1 - position / 32) * 32 + position % 32; }

static void fill_ranges(struct ggml_tensor *t)
{
    for (int64_t r = 0; r < t->ne[1]; r++)
        memcpy((int32_t *)t->data + 4 * r,
               (const int32_t[4]){(int32_t)r % 3 * 7,
                                  attention_kind & WHOLE ? BEFORE + MAX_CASE_ROWS : BEFORE + (int32_t)r + 1, 0,
                                  BEFORE + (int32_t)r},
               16);
}

static void fill_tables(struct ggml_tensor *t)
{
    for (int32_t b = 0; b < SLOTS / 32; b++)
        ((int32_t *)t->data)[b] = slot_of(b * 32) / 32;
}

static void fill_mask(struct ggml_tensor *t)
{
    for (int32_t r = 0; r < t->ne[1]; r++)
        for (int32_t p = 0; p < SLOTS; p++) {
            const int32_t end = attention_kind & WHOLE ? BEFORE + MAX_CASE_ROWS : BEFORE + r + 1;
            const float away = attention_kind & SLOPES ? (float)abs(BEFORE + r - p) : 0;
            ((ggml_fp16_t *)t->data)[r * SLOTS + slot_of(p)] =
                ggml_fp32_to_fp16(p >= r % 3 * 7 && p < end ? -away : -INFINITY);
        }
}

/* v_at: -1, or where in K's rows V's begin. */
static struct ggml_tensor *attention(graph *g, int kind, int64_t head_k, int64_t head_v, int64_t n_head,
                                     int64_t n_head_kv, int64_t v_at)
{
    struct ggml_tensor *q = heads(g, ggml_mul_mat(g->ctx, mat(g, K, head_k * n_head), rows(g, K)), head_k), *y;
    struct ggml_tensor *k = weight(g, GGML_TYPE_F32, head_k * n_head_kv, SLOTS, 1);
    struct ggml_tensor *v = v_at < 0 ? weight(g, GGML_TYPE_F32, head_v * n_head_kv, SLOTS, 1) : k;
    struct ggml_tensor *mask = filled(g, GGML_TYPE_F16, SLOTS, g->rows, fill_mask);

    attention_kind = kind;
    k = ggml_view_3d(g->ctx, k, head_k, SLOTS, n_head_kv, k->nb[1], (size_t)head_k * 4, 0);
    v = ggml_view_3d(g->ctx, v, head_v, SLOTS, n_head_kv, v->nb[1], (size_t)head_v * 4,
                     v_at < 0 ? 0 : (size_t)v_at * 4);
    y = ggml_flash_attn_ext(g->ctx, ggml_permute(g->ctx, q, 0, 2, 1, 3), k, v, mask, 0.11f, kind & SLOPES ? 8.0f : 0,
                            kind & CAP ? 5.0f : 0);
    if (kind & SINKS)
        ggml_flash_attn_ext_add_sinks(y, vec(g, n_head));
    y->src[EL_ATTN_RANGES] = filled(g, GGML_TYPE_I32, 4, g->rows, fill_ranges);
    y->src[EL_ATTN_TABLES] = filled(g, GGML_TYPE_I32, SLOTS / 32, 1, fill_tables);
    return into(g, flat(g, y));
}

static struct ggml_tensor *plain_attention(graph *g) { return attention(g, NONE, 32, 32, 6, 2, -1); }
static struct ggml_tensor *odd_heads(graph *g) { return attention(g, NONE, 80, 72, 3, 3, -1); }
static struct ggml_tensor *sinking_attention(graph *g) { return attention(g, SINKS | CAP, 40, 24, 4, 1, -1); }
static struct ggml_tensor *leaning_attention(graph *g) { return attention(g, SLOPES, 32, 32, 12, 12, -1); }
static struct ggml_tensor *both_ways(graph *g) { return attention(g, SLOPES | WHOLE, 32, 32, 4, 2, -1); }
static struct ggml_tensor *latent_attention(graph *g) { return attention(g, NONE, 576, 512, 72, 1, 0); }

static const plan_case cases[] = {
    {.name = "activations after product", .build = activations_after_product},
    {.name = "gelus from tables", .build = table_gelus, .tolerance = 1e-6},
    {.name = "all unary", .build = all_unary},
    {.name = "squared relu", .build = squared_relu, .n_regions = 2},
    {.name = "biased gelu", .build = biased_gelu, .n_regions = 2},
    {.name = "arithmetic", .build = arithmetic},
    {.name = "shapes", .build = shapes},
    {.name = "gathered", .build = gathered},
    {.name = "layer norms", .build = layer_norms, .n_regions = 2},
    {.name = "rms norms", .build = rms_norms, .n_regions = 2},
    {.name = "head norms", .build = head_norms, .n_regions = 4},
    {.name = "unit heads", .build = unit_heads},
    {.name = "split gates", .build = split_gates, .n_regions = 4},
    {.name = "fused gates", .build = fused_gates, .n_regions = 4},
    {.name = "gates from tables", .build = table_gates, .tolerance = 1e-6},
    {.name = "oai gate", .build = oai_gate, .n_regions = 2},
    {.name = "clamped", .build = clamped, .n_regions = 6},
    {.name = "late gate", .build = late_gate, .n_regions = 3},
    {.name = "sigmoid gate", .build = sigmoid_gate, .n_regions = 3},
    {.name = "parts of product", .build = parts_of_product, .n_regions = 4},
    {.name = "parts of norm", .build = parts_of_norm},
    {.name = "part alone", .build = part_alone},
    {.name = "part rope", .build = part_rope},
    {.name = "matrix per head", .build = matrix_per_head, .n_regions = 3, .tolerance = 1e-4},
    {.name = "computed matrix", .build = computed_matrix},
    {.name = "experts", .build = experts},
    {.name = "biased experts", .build = biased_experts},
    {.name = "packed experts", .build = packed_experts, .tolerance = 1e-3},
    {.name = "softmax experts", .build = softmax_experts, .n_regions = 4},
    {.name = "sigmoid experts", .build = sigmoid_experts, .n_regions = 4},
    {.name = "ungated experts", .build = ungated_experts, .n_regions = 4},
    {.name = "experts weighed after the choice", .build = chosen_experts, .n_regions = 4},
    {.name = "biased choice", .build = biased_choice, .n_regions = 4},
    {.name = "grouped experts", .build = grouped_experts},
    {.name = "moved state", .build = moved_state},
    {.name = "plain attention", .build = plain_attention, .n_regions = 4},
    {.name = "odd heads", .build = odd_heads},
    {.name = "sinks", .build = sinking_attention},
    {.name = "slopes", .build = leaning_attention},
    {.name = "slopes both ways", .build = both_ways},
    {.name = "latent attention", .build = latent_attention, .n_regions = 4},
    {.name = "cache rows", .build = cache_rows},
};

int main(int argc, char **argv) { return run_cases(cases, EL_COUNT(cases), argc, argv); }
