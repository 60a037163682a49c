/* op_rel_attention.c - one row of one head after another, position by position with a running maximum (Milakov and
 * Gimelshein 2018), so that the result depends on nothing but the row's own positions. */
#include "op_rel_attention.h"

#include <math.h>

#include "cpu_op.h"
#include "kernels.h"
#include "mem.h"
#include "scalar_math.h"

enum { MAX_HEAD = 1 << 12, MAX_DISTANCE = 128, BLOCK = 32, HEADS_PER_CHUNK = 4 };

/* Buckets of the distances 0 .. MAX_DISTANCE in one direction: half of them exact, then growing with the logarithm. */
static void make_buckets(int32_t to[MAX_DISTANCE + 1], int32_t n)
{
    const int32_t exact = n / 2;

    for (int32_t i = 0; i <= MAX_DISTANCE; i++) {
        to[i] = i;
        if (i > 0 && i >= exact) {
            const double grown = log((double)i / EL_MAX(exact, 1)) / log((double)MAX_DISTANCE / EL_MAX(exact, 1));
            to[i] = EL_MIN(exact + (int32_t)(grown * (n - exact)), n - 1);
        }
    }
}

static float bias_of(const struct ggml_tensor *bias, const el_rel_attention *s, const int32_t *buckets, int32_t head,
                     int32_t distance)
{
    int32_t bucket = 0;

    if (s->both_ways && distance > 0)
        bucket = s->n_buckets / 2;
    if (s->both_ways && distance < 0)
        distance = -distance;
    else if (!s->both_ways)
        distance = distance < 0 ? -distance : 0;
    bucket += buckets[EL_MIN(distance, MAX_DISTANCE)];
    return ((const float *)bias->data)[bucket * s->n_head + head];
}

/* n values of a cache row as floats: in place, or in `room`. */
static const float *floats(const struct ggml_tensor *pool, int64_t slot, int64_t at, int32_t n, float *room)
{
    const char *row = (const char *)pool->data + (size_t)slot * pool->nb[1] + ggml_row_size(pool->type, at);

    if (pool->type == GGML_TYPE_F32)
        return (const float *)(const void *)row;
    if (pool->type == GGML_TYPE_F16)
        el_kernels_get()->f16_to_f32(room, (const uint16_t *)(const void *)row, n);
    else
        el_dequantize_row(GGML_TYPE_Q8_0, room, row, n);
    return room;
}

static void one_head(const struct ggml_tensor *node, const el_rel_attention *s, const int32_t *buckets, int64_t row,
                     int32_t head)
{
    const el_kernels *kernels = el_kernels_get();
    const struct ggml_tensor *q = node->src[0], *k = node->src[1], *v = node->src[2], *bias = node->src[5];
    const int32_t *range = (const int32_t *)node->src[3]->data + 4 * row;
    const int32_t *blocks = (const int32_t *)node->src[4]->data + (int64_t)range[2] * node->src[4]->ne[0];
    const float *query =
        (const float *)(const void *)((const char *)q->data + (size_t)row * q->nb[2] + (size_t)head * q->nb[1]);
    const int32_t kv_head = head / (s->n_head / s->n_head_kv);
    float *acc = (float *)(void *)((char *)node->data + (size_t)row * node->nb[1]) + (int64_t)head * s->head_v;
    float room[MAX_HEAD], sum[MAX_HEAD], most = -INFINITY, total = 0;

    for (int32_t i = 0; i < s->head_v; i++)
        sum[i] = 0;
    for (int32_t p = range[0]; p < range[1]; p++) {
        const int64_t slot = (int64_t)blocks[p / BLOCK] * BLOCK + p % BLOCK;
        const float *key = floats(k, slot, (int64_t)kv_head * s->head_k, s->head_k, room);
        float score = kernels->dot(query, key, s->head_k), weight = 1;
        if (bias)
            score += bias_of(bias, s, buckets, head, p - range[3]);
        if (score > most) {
            const float old = el_expf(most - score);
            kernels->scale(sum, sum, old, s->head_v);
            total *= old;
            most = score;
        } else {
            weight = el_expf(score - most);
        }
        kernels->axpy(sum, weight, floats(v, slot, (int64_t)kv_head * s->head_v, s->head_v, room), s->head_v);
        total += weight;
    }
    kernels->scale(acc, sum, total > 0 ? 1.0f / total : 0, s->head_v);
}

static int32_t n_chunks(const struct ggml_tensor *node)
{
    const el_rel_attention *s = el_op_params(node);

    return (int32_t)node->ne[1] * ((s->n_head + HEADS_PER_CHUNK - 1) / HEADS_PER_CHUNK);
}

static void run(const struct ggml_tensor *node, int32_t chunk)
{
    const el_rel_attention *s = el_op_params(node);
    const int32_t per_row = (s->n_head + HEADS_PER_CHUNK - 1) / HEADS_PER_CHUNK;
    const int32_t first = chunk % per_row * HEADS_PER_CHUNK;
    int32_t buckets[MAX_DISTANCE + 1];

    make_buckets(buckets, s->both_ways ? s->n_buckets / 2 : s->n_buckets);
    for (int32_t head = first; head < EL_MIN(first + HEADS_PER_CHUNK, s->n_head); head++)
        one_head(node, s, buckets, chunk / per_row, head);
}

struct ggml_tensor *el_op_rel_attention(struct ggml_context *ctx, const el_rel_attention *shape, struct ggml_tensor *q,
                                        struct ggml_tensor *k, struct ggml_tensor *v, struct ggml_tensor *ranges,
                                        struct ggml_tensor *tables, struct ggml_tensor *bias)
{
    static const el_op op = {"attention with relative positions", n_chunks, run};
    const int64_t ne[4] = {(int64_t)shape->head_v * shape->n_head, q->ne[2], 1, 1};
    struct ggml_tensor *srcs[6] = {q, k, v, ranges, tables, bias};

    return el_op_new(ctx, &op, GGML_TYPE_F32, ne, srcs, bias ? 6 : 5, shape, sizeof *shape);
}
