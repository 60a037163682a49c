/* model.c - opens a model: finds its family, reads its numbers, and lists the weights of the generic decoder. */
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ggml.h"
#include "layer_blocks.h"
#include "log.h"
#include "vocab.h"

enum { HEADERS_PER_LAYER = 24, HEADERS_BESIDES = 64 }; /* for parts of tensors, beside one for each in the file */

el_ffn el_load_ffn(el_loader *l, const char *suffix, int64_t n_ff)
{
    const el_traits *traits = &l->model->arch->traits;
    const int64_t n_embd = l->model->hp.n_embd;
    const el_gguf_tensor *found;
    char name[64];
    el_ffn ffn = {0};

    snprintf(name, sizeof name, "ffn_up%s", suffix);
    found = el_find(l, name, "weight");
    if ((traits->fused_gate && !*suffix) || (traits->any_gate && found && found->ne[1] == 2 * n_ff)) {
        const el_linear both = el_load_linear(l, name, EL_REQUIRED, n_embd, 2 * n_ff);
        ffn.gate = el_rows_of(l, both, 0, n_ff);
        ffn.up = el_rows_of(l, both, n_ff, n_ff);
    } else {
        ffn.up = el_load_linear(l, name, EL_REQUIRED, n_embd, n_ff);
        snprintf(name, sizeof name, "ffn_gate%s", suffix);
        if (!traits->ungated)
            ffn.gate = el_load_linear(l, name, traits->any_gate ? EL_OPTIONAL : EL_REQUIRED, n_embd, n_ff);
        else
            ffn.act_scale = el_load_vector(l, "ffn.act.scales", EL_OPTIONAL, n_ff);
    }
    snprintf(name, sizeof name, "ffn_down%s", suffix);
    ffn.down = el_load_linear(l, name, EL_REQUIRED, n_ff, n_embd);
    if (traits->sub_norms)
        ffn.sub_norm = el_load_norm(l, "ffn_sub_norm", EL_REQUIRED, n_ff);
    if (l->layer >= 0)
        ffn.limit = l->model->hp.layers[l->layer].swiglu_limit;
    return ffn;
}

/* The width of a block inside: as the tensor says that leads out of it. */
static int64_t width_inside(const el_loader *l, const char *down)
{
    const el_gguf_tensor *found = el_find(l, down, "weight");

    return found ? found->ne[0] : 0;
}

el_experts *el_load_mixture(el_loader *l)
{
    const el_expert_hparams *e = &l->model->hp.expert;
    const int64_t n_embd = l->model->hp.n_embd, width = e->n_latent ? e->n_latent : n_embd;
    const bool told = el_has(l, "ffn_down_exps.weight");
    const int64_t n_ff = told ? width_inside(l, "ffn_down_exps") : e->n_ff;
    el_experts *x = el_load_memory(l, sizeof *x);

    if (!x)
        return NULL;
    x->limit = l->model->hp.layers[l->layer].swiglu_limit_experts;
    if (l->model->arch->traits.router_scale) {
        x->router.w = el_load(l, "ffn_gate_inp.weight", EL_REQUIRED, EL_MATRIX, n_embd, e->n, 1);
        x->router_scale = el_load_vector(l, "ffn_gate_inp.scale", EL_REQUIRED, n_embd);
    } else {
        x->router = el_load_linear(l, "ffn_gate_inp", EL_REQUIRED, n_embd, e->n);
    }
    x->choice_bias = el_load_vector(l, "exp_probs_b.bias", EL_OPTIONAL, e->n);
    if (!x->choice_bias)
        x->choice_bias = el_load_vector(l, "exp_probs_b", EL_OPTIONAL, e->n); /* the name that some families have */
    if (el_has(l, "ffn_gate_up_exps.weight")) {
        const el_linear both = el_load_experts(l, "ffn_gate_up_exps", EL_REQUIRED, width, 2 * n_ff);
        x->gate = el_rows_of(l, both, 0, n_ff);
        x->up = el_rows_of(l, both, n_ff, n_ff);
    } else {
        x->up = el_load_experts(l, "ffn_up_exps", EL_REQUIRED, width, n_ff);
        if (!l->model->arch->traits.ungated)
            x->gate = el_load_experts(l, "ffn_gate_exps", EL_REQUIRED, width, n_ff);
    }
    x->down = el_load_experts(l, "ffn_down_exps", EL_REQUIRED, n_ff, width);
    if (e->n_latent) {
        x->into = el_load_linear(l, "ffn_latent_down", EL_REQUIRED, n_embd, width);
        x->back = el_load_linear(l, "ffn_latent_up", EL_REQUIRED, width, n_embd);
    }
    if (l->model->arch->traits.shared_experts && el_has(l, "ffn_up_shexp.weight")) {
        x->shared = el_load_ffn(l, "_shexp", width_inside(l, "ffn_down_shexp"));
        x->shared_gate = el_load_vector(l, "ffn_gate_inp_shexp.weight", EL_OPTIONAL, n_embd);
    }
    return x;
}

static void load_layer(el_loader *l, el_layer *w, const el_layer_hparams *lh)
{
    const el_hparams *hp = &l->model->hp;
    const el_traits *traits = &l->model->arch->traits;
    const bool sum = traits->norm_place == EL_NORM_SUM;
    const el_need before = traits->norm_place == EL_NORM_AFTER || sum || traits->no_norms ? EL_OPTIONAL : EL_REQUIRED;
    const bool has_ffn = lh->experts || lh->n_ff > 0;
    const bool bare = (traits->first_unnormed && l->layer == 0) || (traits->attn_norm_optional && !lh->mixer);

    w->attn_norm = el_load_norm(l, "attn_norm", bare ? EL_OPTIONAL : before, hp->n_embd);
    if (lh->mixer)
        w->mixer = lh->mixer->load(l, lh);
    if (traits->norm_place != EL_NORM_BEFORE) {
        const char *attn = traits->attn_post_norm ? traits->attn_post_norm : "post_attention_norm";
        const char *ffn = traits->ffn_post_norm ? traits->ffn_post_norm : "post_ffw_norm";
        w->attn_post_norm = el_load_norm(l, sum ? "attn_output_norm" : attn, EL_REQUIRED, hp->n_embd);
        if (has_ffn)
            w->ffn_post_norm = el_load_norm(l, sum ? "layer_output_norm" : ffn, EL_REQUIRED, hp->n_embd);
    }
    if (!has_ffn)
        return;
    w->ffn_norm = el_load_norm(l, traits->ffn_norm ? traits->ffn_norm : "ffn_norm", hp->parallel ? EL_OPTIONAL : before,
                               hp->n_embd);
    if (lh->experts)
        w->experts = el_load_mixture(l);
    else
        w->ffn = el_load_ffn(l, "", lh->n_ff);
}

/* Frequency factors divide an angle, so each must be finite and not 0 (a negative one turns the other way). */
static struct ggml_tensor *load_rope_factors(el_loader *l, const char *name, int32_t n_rot)
{
    const el_gguf_tensor *found = el_gguf_find_tensor(l->model->file, name);
    const int64_t n = found && found->ne[0] > n_rot / 2 ? found->ne[0] : n_rot / 2; /* a layer may use the first few */
    struct ggml_tensor *factors = el_load_vector(l, name, EL_OPTIONAL, n);
    const unsigned char *data = factors ? factors->data : NULL;

    for (int64_t i = 0; factors && i < factors->ne[0]; i++) {
        float factor;
        memcpy(&factor, data + (size_t)i * sizeof factor, sizeof factor);
        if (!(factor == factor) || factor == 0 || factor > 1e30f || factor < -1e30f) {
            el_refuse(l, EDGELLM_EFORMAT, "%s holds %g at index %" PRId64 "; factors must be finite and not 0", name,
                      (double)factor, i);
            return NULL;
        }
    }
    return factors;
}

static void load_rope(el_loader *l)
{
    el_model *m = l->model;
    int32_t n_rot = 0;

    /* full layers' if any of them rotates */
    for (int32_t i = 0; i < m->hp.n_layer && n_rot == 0; i++)
        n_rot = m->hp.layers[i].sliding ? 0 : m->hp.layers[i].n_rot;
    for (int32_t i = 0; i < m->hp.n_layer && n_rot == 0; i++)
        n_rot = m->hp.layers[i].n_rot;
    if (n_rot < 2 || m->arch->traits.no_rope_factors)
        return;
    m->rope_freqs = load_rope_factors(l, "rope_freqs.weight", n_rot);
    m->rope_long = load_rope_factors(l, "rope_factors_long.weight", n_rot);
    m->rope_short = load_rope_factors(l, "rope_factors_short.weight", n_rot);
}

static void load_ends(el_loader *l)
{
    el_model *m = l->model;
    const el_traits *traits = &m->arch->traits;
    const int64_t n_embd = m->hp.n_embd;

    m->token_embd = el_load(l, "token_embd.weight", EL_REQUIRED, EL_MATRIX, n_embd, m->hp.n_vocab, 1);
    if (traits->position_table) {
        const el_gguf_tensor *table = el_gguf_find_tensor(m->file, "position_embd.weight");
        m->hp.n_positions = table ? (int32_t)EL_MIN(table->ne[1], INT32_MAX) : 0;
        m->position_embd = el_load(l, "position_embd.weight", traits->alibi ? EL_OPTIONAL : EL_REQUIRED, EL_MATRIX,
                                   n_embd, table ? table->ne[1] : 1, 1);
    }
    if (traits->token_types) {
        const el_gguf_tensor *types = el_find(l, "token_types", "weight");
        m->token_types = el_load(l, "token_types.weight", EL_OPTIONAL, EL_FLOATS, n_embd, types ? types->ne[1] : 1, 1);
    }
    if (traits->embd_norm)
        m->embd_norm = el_load_norm(l, traits->embd_norm, EL_REQUIRED, n_embd);
    if (!traits->no_output_norm)
        m->output_norm = el_load_norm(l, traits->output_norm ? traits->output_norm : "output_norm",
                                      traits->no_norms || traits->encoder ? EL_OPTIONAL : EL_REQUIRED, n_embd);
    m->output = el_load_linear(l, "output", EL_OPTIONAL, n_embd, m->hp.n_vocab);
    if (!m->output.w && !traits->encoder)
        m->output.w = m->token_embd;
    el_pooling_load(l);
}

static edgellm_status load_weights(el_model *m)
{
    el_loader l = {.model = m, .prefix = "blk.", .layer = -1, .status = EDGELLM_OK};
    const el_hparams *hp = &m->hp;
    const size_t n_headers =
        el_gguf_n_tensors(m->file) + (size_t)hp->n_layer * HEADERS_PER_LAYER + (size_t)HEADERS_BESIDES;
    struct ggml_init_params params = {.mem_size = n_headers * ggml_tensor_overhead(), .no_alloc = true};

    m->weights_memory = params.mem_buffer = el_alloc(1, params.mem_size);
    m->layers = el_alloc((size_t)hp->n_layer, sizeof *m->layers);
    if (!m->weights_memory || !m->layers)
        return el_no_memory(params.mem_size);
    m->weights = ggml_init(params);
    if (!m->weights)
        return el_no_memory(params.mem_size);
    load_ends(&l);
    load_rope(&l);
    for (l.layer = 0; l.layer < hp->n_layer && !m->arch->traits.no_layers && l.status == EDGELLM_OK; l.layer++)
        if (hp->n_layer_stored == 0 || l.layer < hp->n_layer_stored)
            load_layer(&l, &m->layers[l.layer], &hp->layers[l.layer]);
        else
            m->layers[l.layer] = m->layers[l.layer % hp->n_layer_stored];
    l.layer = -1;
    if (m->arch->load && l.status == EDGELLM_OK)
        m->arch->load(&l);
    return l.status;
}

static void count_weights(el_model *m)
{
    for (size_t i = 0; i < el_gguf_n_tensors(m->file); i++) {
        const el_gguf_tensor *t = el_gguf_tensor_at(m->file, i);
        m->n_params += (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
        m->n_bytes += t->n_bytes;
    }
}

edgellm_status el_model_open(el_model **out, const char *path_utf8)
{
    edgellm_status status = EDGELLM_OK;
    el_model *m = el_alloc(1, sizeof *m);
    el_str arch_name = {"", 0}, kind = {"", 0};
    const el_gguf_kv *type;

    *out = NULL;
    if (!m)
        return el_no_memory(sizeof *m);
    EL_TRY(el_gguf_open(&m->file, path_utf8, 0));
    type = el_gguf_find(m->file, "general.type");
    if (type && type->type == EL_GGUF_STR)
        EL_TRY(el_gguf_get_str(m->file, "general.type", &kind));
    if (el_str_eq(kind, "adapter")) {
        status = el_fail(EDGELLM_EINVAL, "this is an adapter, not a model: open the model it was made for and add this "
                                         "file to it (edgellm run MODEL --lora FILE)");
        goto done;
    }
    EL_TRY(el_gguf_get_str(m->file, "general.architecture", &arch_name));
    if (arch_name.n == 0) {
        status =
            el_fail(EDGELLM_EFORMAT, "general.architecture is missing; this is a GGUF file without a language model");
        goto done;
    }
    EL_TRY(el_arch_find(&m->arch, arch_name));
    EL_TRY(el_vocab_from_gguf(&m->vocab.tokenizer, m->file));
    EL_TRY(el_hparams_read(&m->hp, m->file, m->arch, (int32_t)el_tokenizer_n_tokens(m->vocab.tokenizer)));
    EL_TRY(load_weights(m));
    count_weights(m);
    el_log(EL_LOG_INFO, "opened a %s model with %d layers, %" PRIu64 " weights, %" PRIu64 " bytes", m->arch->name,
           m->hp.n_layer, m->n_params, m->n_bytes);
    *out = m;
    m = NULL;
done:
    el_model_free(m);
    return status;
}

void el_model_free(el_model *m)
{
    if (!m)
        return;
    if (m->weights)
        ggml_free(m->weights);
    for (int32_t i = 0; i < m->n_owned; i++)
        el_free(m->owned[i]);
    el_free(m->owned);
    el_free(m->weights_memory);
    el_free(m->layers);
    el_hparams_clear(&m->hp);
    el_tokenizer_free(m->vocab.tokenizer);
    el_gguf_close(m->file);
    el_free(m);
}
