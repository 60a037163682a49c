/* graph.c - inputs of a step and the small blocks. */
#include "graph.h"

#include <math.h>

#include "ggml.h"
#include "ggml_guard.h"
#include "layer_blocks.h"

enum { NODES_PER_LAYER = 192, NODES_BESIDES = 128 };

static size_t max_nodes(const el_model *model, int32_t n_adapters)
{
    const size_t per_layer = NODES_PER_LAYER + 2 * (size_t)model->hp.expert.n_used + 4 * 16 * (size_t)n_adapters;

    return (size_t)model->hp.n_layer * per_layer + NODES_BESIDES;
}

size_t el_graph_memory(const el_model *model, const el_graph_options *options)
{
    const size_t n = max_nodes(model, options->adapters.n);

    return n * ggml_tensor_overhead() + ggml_graph_overhead_custom(n, false);
}

static struct ggml_tensor *input(el_graph *g, enum ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2,
                                 const char *name)
{
    const int64_t ne[3] = {ne0, ne1, ne2};
    struct ggml_tensor *t = ggml_new_tensor(g->ctx, type, ne2 > 1 ? 3 : ne1 > 1 ? 2 : 1, ne);

    ggml_set_input(t);
    ggml_set_name(t, name);
    /* Graphs read inputs at any node, and the allocator frees what it thinks no one reads: keep them to the end. */
    ggml_set_output(t);
    return t;
}

static void make_inputs(el_graph *g)
{
    const el_hparams *hp = &g->model->hp;
    const el_graph_shape *s = &g->shape;

    g->in.tokens = input(g, GGML_TYPE_I32, s->n_rows, 1, 1, "tokens");
    g->in.positions = input(g, GGML_TYPE_I32, s->n_rows, 1, 1, "positions");
    g->in.slots = input(g, GGML_TYPE_I64, s->n_rows, 1, 1, "slots");
    g->in.slots_sliding = hp->window ? input(g, GGML_TYPE_I64, s->n_rows, 1, 1, "slots_sliding") : NULL;
    g->in.outputs = s->n_out ? input(g, GGML_TYPE_I32, s->n_out, 1, 1, "outputs") : NULL;
    g->in.mask = input(g, GGML_TYPE_F16, s->n_kv, s->n_rows, 1, "mask");
    g->in.mask_sliding = hp->window ? input(g, GGML_TYPE_F16, s->n_kv_sliding, s->n_rows, 1, "mask_sliding") : NULL;
    g->in.ranges = input(g, GGML_TYPE_I32, 4, s->n_rows, 1, "ranges");
    g->in.ranges_sliding = hp->window ? input(g, GGML_TYPE_I32, 4, s->n_rows, 1, "ranges_sliding") : NULL;
    g->in.tables = input(g, GGML_TYPE_I32, (s->n_kv + 31) / 32, s->n_seqs, 1, "tables");
    g->in.tables_sliding =
        hp->window ? input(g, GGML_TYPE_I32, (s->n_kv + 31) / 32, s->n_seqs, 1, "tables_sliding") : NULL;
    g->in.runs = input(g, GGML_TYPE_I32, 4, s->n_seqs, 1, "runs");
    if (hp->n_encoder > 0 && !s->encode && hp->causal) {
        g->in.source_ranges = input(g, GGML_TYPE_I32, 4, s->n_rows, 1, "source_ranges");
        g->in.source_tables = input(g, GGML_TYPE_I32, (s->n_kv + 31) / 32, s->n_seqs, 1, "source_tables");
    }
    if (g->model->token_types && g->model->token_types->ne[1] > 1)
        g->in.types = input(g, GGML_TYPE_I32, s->n_rows, 1, 1, "types");
    g->in.attn_temp = hp->attn_temp_scale != 0 ? input(g, GGML_TYPE_F32, 1, 1, s->n_rows, "attn_temp") : NULL;
}

static void build(void *data)
{
    el_graph *g = data;

    g->nodes = ggml_new_graph_custom(g->ctx, max_nodes(g->model, g->options.adapters.n), false);
    make_inputs(g);
    if (g->model->arch->build)
        g->model->arch->build(g);
    else
        el_build_decoder(g);
}

edgellm_status el_graph_build(el_graph *g, const el_model *model, const el_layer_memory *layers, el_graph_shape shape,
                              el_graph_options options, void *memory)
{
    const struct ggml_init_params params = {
        .mem_size = el_graph_memory(model, &options), .mem_buffer = memory, .no_alloc = true};

    *g = (el_graph){.model = model, .memory = layers, .shape = shape, .options = options};
    g->ctx = ggml_init(params);
    if (!g->ctx)
        return el_no_memory(params.mem_size);
    /* Families refuse what cannot be built when a file is opened. Should one have forgotten something, this request
     * fails and the process lives on: nodes lie in the graph's own memory, and building takes no lock. */
    if (!el_ggml_guarded(build, g))
        return el_fail(EDGELLM_EUNSUPPORTED,
                       "the sizes of this %s model do not fit together; "
                       "please report it with "
                       "what `edgellm gguf dump` says of the file",
                       model->arch->name);
    return EDGELLM_OK;
}

void el_graph_clear(el_graph *g)
{
    if (g->ctx)
        ggml_free(g->ctx);
    g->ctx = NULL;
}

float el_graph_attn_temperature(const el_hparams *hp, int32_t position)
{
    const float steps = floorf((float)(position + hp->attn_temp_offset) / (float)hp->attn_temp_length);

    return 1.0f + hp->attn_temp_scale * logf(1.0f + steps);
}

int32_t el_graph_first_visible(const el_hparams *hp, bool causal, bool sliding, int32_t position, int32_t length,
                               int32_t *end)
{
    int32_t first = 0;

    *end = causal ? position + 1 : length;
    if (!sliding)
        return 0;
    switch (hp->window_kind) {
    case EL_WINDOW_LAST:
        first = position - hp->window + 1;
        break;
    case EL_WINDOW_CHUNK:
        first = position - position % hp->window;
        break;
    case EL_WINDOW_AROUND:
        first = position - hp->window / 2;
        *end = EL_MIN(*end, position + hp->window / 2 + 1);
        break;
    }
    return EL_MAX(first, 0);
}

struct ggml_tensor *el_build_rms_norm(el_graph *g, struct ggml_tensor *x, struct ggml_tensor *weight)
{
    x = ggml_rms_norm(g->ctx, x, g->model->hp.norm_eps);
    return weight ? ggml_mul(g->ctx, x, weight) : x;
}

struct ggml_tensor *el_build_norm(el_graph *g, struct ggml_tensor *x, const el_norm *norm)
{
    if (!g->model->hp.layer_norm)
        x = el_build_rms_norm(g, x, norm->w);
    else {
        x = ggml_norm(g->ctx, x, g->model->hp.norm_eps);
        if (norm->w)
            x = ggml_mul(g->ctx, x, norm->w);
    }
    return norm->b ? ggml_add(g->ctx, x, norm->b) : x;
}

/* y plus what the adapters add to w x; ids: of experts. */
static struct ggml_tensor *adapted(el_graph *g, const struct ggml_tensor *w, struct ggml_tensor *x,
                                   struct ggml_tensor *ids, struct ggml_tensor *y)
{
    const el_adapters *adapters = &g->options.adapters;

    for (int32_t i = 0; i < adapters->n; i++) {
        const el_adapted *one = el_adapter_find(adapters->use[i], w);
        struct ggml_tensor *z;
        if (!one)
            continue;
        z = ids ? ggml_mul_mat_id(g->ctx, one->a, x, ids) : ggml_mul_mat(g->ctx, one->a, x);
        z = ggml_scale(g->ctx, z, el_adapter_strength(adapters->use[i], one, adapters->scale[i]));
        z = ids ? ggml_mul_mat_id(g->ctx, one->b, z, ids) : ggml_mul_mat(g->ctx, one->b, z);
        y = ggml_add(g->ctx, y, z);
    }
    return y;
}

struct ggml_tensor *el_build_lookup(el_graph *g, struct ggml_tensor *table, struct ggml_tensor *ids)
{
    const el_adapters *adapters = &g->options.adapters;
    struct ggml_tensor *x = ggml_get_rows(g->ctx, table, ids);

    for (int32_t i = 0; i < adapters->n; i++) {
        const el_adapted *one = el_adapter_find(adapters->use[i], table);
        struct ggml_tensor *z;
        if (!one)
            continue;
        z = ggml_scale(g->ctx, ggml_get_rows(g->ctx, one->a, ids),
                       el_adapter_strength(adapters->use[i], one, adapters->scale[i]));
        x = ggml_add(g->ctx, x, ggml_mul_mat(g->ctx, one->b, z));
    }
    return x;
}

struct ggml_tensor *el_build_linear(el_graph *g, const el_linear *linear, struct ggml_tensor *x)
{
    struct ggml_tensor *y = ggml_mul_mat(g->ctx, linear->w, x);

    if (linear->s)
        y = ggml_mul(g->ctx, y, linear->s);
    if (linear->w != g->model->token_embd) /* as an output layer it is not what an adapter of the table means */
        y = adapted(g, linear->w, x, NULL, y);
    return linear->b ? ggml_add(g->ctx, y, linear->b) : y;
}

struct ggml_tensor *el_build_linear_id(el_graph *g, const el_linear *experts, struct ggml_tensor *x,
                                       struct ggml_tensor *ids)
{
    struct ggml_tensor *y = ggml_mul_mat_id(g->ctx, experts->w, x, ids);

    if (experts->s) { /* one factor for each expert: gathered by the same ids */
        struct ggml_tensor *s = ggml_reshape_3d(g->ctx, experts->s, 1, experts->s->ne[0], 1);
        s = ggml_repeat_4d(g->ctx, s, 1, s->ne[1], ids->ne[1], 1);
        y = ggml_mul(g->ctx, y, ggml_get_rows(g->ctx, s, ids));
    }
    y = adapted(g, experts->w, x, ids, y);
    return experts->b ? ggml_add_id(g->ctx, y, experts->b, ids) : y;
}

struct ggml_tensor *el_build_scale(el_graph *g, struct ggml_tensor *x, float factor)
{
    return factor == 1 ? x : ggml_scale(g->ctx, x, factor);
}

bool el_nobody_reads(const el_graph *g, int32_t layer)
{
    return layer == g->model->hp.n_layer - 1 && g->shape.n_out == 0;
}

void el_build_now(el_graph *g, struct ggml_tensor *t) { ggml_build_forward_expand(g->nodes, t); }
