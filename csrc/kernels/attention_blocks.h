/* attention_blocks.h - a segment of attention block by block, for the vector files that convert K and V to float once
 * per block of 32 positions. Included after their functions:
 *   convert_row   a row of the cache as floats, padded with zeros to whole sums of 16
 *   score         one query's scores of the positions of a block; also of a few around them
 *   weigh         scores of a segment to exp(score - max), 0 around the span up to whole groups of 16; max and sum
 *   gather        adds the weighted rows of V */

typedef struct work { /* views of the scratch */
    float *queries;   /* [n_q][width]: padded with zeros to whole sums of 16 */
    float *scores;    /* [n_q][EL_ATTN_SEGMENT], then exp(score - max) */
    float *rows;      /* [EL_ATTN_BLOCK][width] */
    int64_t width;    /* of the larger head, a multiple of 16 */
} work;

typedef struct side { /* K or V */
    const uint8_t *data;
    size_t stride;
    el_kv_type type;
    int32_t head;
} side;

/* Where the row of each position of a block lies as floats, begin .. end - 1 of it: in the cache, or converted. */
INLINE int64_t block_rows(const float **rows, const el_attn *a, const side *s, const work *w, int32_t block, span in)
{
    const uint8_t *data = s->data + (size_t)a->blocks[block] * EL_ATTN_BLOCK * s->stride;

    if (s->type == EL_KV_F32 && s->head % 16 == 0 && s->stride % 4 == 0 && (uintptr_t)data % 4 == 0) {
        *rows = (const float *)data;
        return (int64_t)(s->stride / 4);
    }
    for (int32_t p = in.begin; p < in.end; p++)
        convert_row(w->rows + p * w->width, s->type, data + (size_t)p * s->stride, s->head);
    *rows = w->rows;
    return w->width;
}

/* ---- the segment ---------------------------------------------------------------------- */

INLINE void score_all(const el_attn *a, const work *w, int32_t base, span all)
{
    const side k = {a->k, a->k_stride, a->k_type, a->head_k};
    const float *rows;

    for (int32_t b = all.begin & ~(EL_ATTN_BLOCK - 1); b < all.end; b += EL_ATTN_BLOCK) {
        const int64_t stride = block_rows(&rows, a, &k, w, (base + b) / EL_ATTN_BLOCK, within(all, b));
        for (int32_t i = 0; i < a->n_q; i++) {
            const span in = within(span_of(a, i, base), b);
            if (in.begin < in.end)
                score(w->scores + (size_t)i * EL_ATTN_SEGMENT + b, w->queries + i * w->width, rows, stride, a, in);
        }
    }
}

INLINE void gather_all(const el_attn *a, const work *w, int32_t base, span all, float *partials)
{
    const side v = {a->v, a->v_stride, a->v_type, a->head_v};
    const size_t one = el_attn_partial_floats(a->head_v);
    const float *rows;

    for (int32_t b = all.begin & ~(EL_ATTN_BLOCK - 1); b < all.end; b += EL_ATTN_BLOCK) {
        const int64_t stride = block_rows(&rows, a, &v, w, (base + b) / EL_ATTN_BLOCK, within(all, b));
        for (int32_t i = 0; i < a->n_q; i++) {
            const span in = within(span_of(a, i, base), b);
            if (in.begin < in.end)
                gather(partials + (size_t)i * one, w->scores + (size_t)i * EL_ATTN_SEGMENT + b, rows, stride,
                       round16(a->head_v), in);
        }
    }
}

/* ALiBi of one query, over its span. */
INLINE void lean(float *scores, const el_attn *a, int32_t i, int32_t base, span in)
{
    const float slope = -a->slopes[i];

    for (int32_t p = in.begin; p < in.end; p++)
        scores[p] = fmaf(slope, fabsf((float)(a->positions[i] - base - p)), scores[p]);
}

INLINE work work_of(const el_attn *a, void *scratch)
{
    work w = {.width = round16(EL_MAX(a->head_k, a->head_v))};

    w.scores = scratch;
    w.queries = w.scores + (size_t)a->n_q * EL_ATTN_SEGMENT;
    w.rows = w.queries + a->n_q * w.width;
    for (int32_t i = 0; i < a->n_q; i++) {
        float *q = w.queries + i * w.width;
        memcpy(q, a->q + (size_t)i * a->q_stride, (size_t)a->head_k * sizeof *q);
        memset(q + a->head_k, 0, (size_t)(w.width - a->head_k) * sizeof *q);
    }
    return w;
}

static void attn_segment(const el_attn *a, int32_t segment, float *partials, void *scratch)
{
    const int32_t base = segment * EL_ATTN_SEGMENT;
    const size_t one = el_attn_partial_floats(a->head_v);
    const span all = span_of_all(a, base);
    const work w = work_of(a, scratch);

    memset(partials, 0, (size_t)a->n_q * one * sizeof *partials);
    score_all(a, &w, base, all);
    for (int32_t i = 0; i < a->n_q; i++) {
        const span in = span_of(a, i, base);
        float *max = partials + (size_t)(i + 1) * one - 16;
        if (a->slopes)
            lean(w.scores + (size_t)i * EL_ATTN_SEGMENT, a, i, base, in);
        if (in.begin < in.end)
            weigh(w.scores + (size_t)i * EL_ATTN_SEGMENT, in, max, max + 1);
        else
            *max = -INFINITY;
    }
    gather_all(a, &w, base, all, partials);
}
