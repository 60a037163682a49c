/* model.c - opens a model: finds its family, checks every tensor's type and shape, and makes ggml tensors over the map.
 * After this no graph of the model can reach a ggml assertion about shapes or types. */
#include "model.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ggml.h"
#include "log.h"
#include "vocab.h"

enum need { OPTIONAL, REQUIRED };

/* What a tensor is used for decides which types its kernels take. */
enum role { MATRIX, VECTOR };

typedef struct loader {
    el_model *model;
    int32_t layer; /* -1: not in one */
    edgellm_status status;
} loader;

/* Types that ggml_mul_mat multiplies with F32 activations. */
static bool is_weight_type(enum ggml_type type)
{
    if (type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16)
        return true;
    return ggml_is_quantized(type) && type != GGML_TYPE_Q8_1 && type != GGML_TYPE_Q8_K;
}

static void full_name(char *name, size_t cap, const loader *l, const char *suffix)
{
    if (l->layer < 0)
        snprintf(name, cap, "%s", suffix);
    else
        snprintf(name, cap, "blk.%d.%s", l->layer, suffix);
}

static void refuse(loader *l, edgellm_status code, const char *fmt, ...) EL_PRINTF(3, 4);

static void refuse(loader *l, edgellm_status code, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    l->status = el_fail(code, "%s", text);
}

/* The tensor with that name and exactly that shape, or NULL: refused or not there. Later calls after a refusal do
 * nothing, so a family lists its weights without checking each. */
static struct ggml_tensor *take(loader *l, const char *suffix, enum need need, enum role role, int64_t ne0, int64_t ne1,
                                int64_t ne2)
{
    const int64_t ne[4] = {ne0, ne1, ne2, 1};
    char name[GGML_MAX_NAME];
    const el_gguf_tensor *found;
    struct ggml_tensor *tensor;

    if (l->status != EDGELLM_OK)
        return NULL;
    full_name(name, sizeof name, l, suffix);
    found = el_gguf_find_tensor(l->model->file, name);
    if (!found) {
        if (need == REQUIRED)
            refuse(l, EDGELLM_EFORMAT, "tensor %s is missing; a %s model needs it", name, l->model->arch->name);
        return NULL;
    }
    for (int i = 0; i < 4; i++) {
        if (found->ne[i] != ne[i]) {
            refuse(l, EDGELLM_EFORMAT,
                   "tensor %s is [%" PRId64 ", %" PRId64 ", %" PRId64 "], but the metadata says [%" PRId64 ", %" PRId64
                   ", %" PRId64 "]",
                   name, found->ne[0], found->ne[1], found->ne[2], ne0, ne1, ne2);
            return NULL;
        }
    }
    if (found->type >= GGML_TYPE_COUNT || (role == VECTOR && found->type != GGML_TYPE_F32) ||
        (role == MATRIX && !is_weight_type((enum ggml_type)found->type))) {
        const char *type = "unknown";
        uint32_t elements, bytes;
        el_gguf_type_size(found->type, &elements, &bytes, &type);
        refuse(l, EDGELLM_EUNSUPPORTED, "tensor %s is %s; %s", name, type,
               role == VECTOR ? "norms, biases and factors must be F32" : "this type cannot be multiplied");
        return NULL;
    }
    tensor = ggml_new_tensor(l->model->weights, (enum ggml_type)found->type, ne2 > 1 ? 3 : ne1 > 1 ? 2 : 1, ne);
    tensor->data = (void *)(uintptr_t)found->data; /* read-only memory: no graph writes to a weight */
    ggml_set_name(tensor, name);
    return tensor;
}

static struct ggml_tensor *matrix(loader *l, const char *suffix, enum need need, int64_t n_in, int64_t n_out)
{
    return take(l, suffix, need, MATRIX, n_in, n_out, 1);
}

static struct ggml_tensor *experts(loader *l, const char *suffix, int64_t n_in, int64_t n_out)
{
    return take(l, suffix, REQUIRED, MATRIX, n_in, n_out, l->model->hp.n_expert);
}

static struct ggml_tensor *vector(loader *l, const char *suffix, enum need need, int64_t n)
{
    return take(l, suffix, need, VECTOR, n, 1, 1);
}

static void load_layer(loader *l, el_layer *w, const el_layer_hparams *lh)
{
    const el_hparams *hp = &l->model->hp;
    const el_traits *traits = &l->model->arch->traits;
    const int64_t n_q = (int64_t)lh->n_head * hp->head_k;
    const int64_t n_k = (int64_t)lh->n_head_kv * hp->head_k;
    const int64_t n_v = (int64_t)lh->n_head_kv * hp->head_v;

    w->attn_norm = vector(l, "attn_norm.weight", REQUIRED, hp->n_embd);
    w->wq = matrix(l, "attn_q.weight", REQUIRED, hp->n_embd, n_q);
    w->wk = matrix(l, "attn_k.weight", REQUIRED, hp->n_embd, n_k);
    w->wv = matrix(l, "attn_v.weight", REQUIRED, hp->n_embd, n_v);
    w->wo = matrix(l, "attn_output.weight", REQUIRED, (int64_t)lh->n_head * hp->head_v, hp->n_embd);
    w->bq = vector(l, "attn_q.bias", OPTIONAL, n_q);
    w->bk = vector(l, "attn_k.bias", OPTIONAL, n_k);
    w->bv = vector(l, "attn_v.bias", OPTIONAL, n_v);
    w->bo = vector(l, "attn_output.bias", OPTIONAL, hp->n_embd);
    if (traits->qk_norm) {
        w->q_norm = vector(l, "attn_q_norm.weight", REQUIRED, hp->head_k);
        w->k_norm = vector(l, "attn_k_norm.weight", REQUIRED, hp->head_k);
    }
    if (traits->post_norms) {
        w->attn_post_norm = vector(l, "post_attention_norm.weight", REQUIRED, hp->n_embd);
        w->ffn_post_norm = vector(l, "post_ffw_norm.weight", REQUIRED, hp->n_embd);
    }
    w->ffn_norm = vector(l, "ffn_norm.weight", REQUIRED, hp->n_embd);
    if (hp->n_expert > 0) {
        w->router = matrix(l, "ffn_gate_inp.weight", REQUIRED, hp->n_embd, hp->n_expert);
        w->gate_exps = experts(l, "ffn_gate_exps.weight", hp->n_embd, lh->n_ff);
        w->up_exps = experts(l, "ffn_up_exps.weight", hp->n_embd, lh->n_ff);
        w->down_exps = experts(l, "ffn_down_exps.weight", lh->n_ff, hp->n_embd);
        return;
    }
    w->gate = matrix(l, "ffn_gate.weight", REQUIRED, hp->n_embd, lh->n_ff);
    w->up = matrix(l, "ffn_up.weight", REQUIRED, hp->n_embd, lh->n_ff);
    w->down = matrix(l, "ffn_down.weight", REQUIRED, lh->n_ff, hp->n_embd);
    w->gate_b = vector(l, "ffn_gate.bias", OPTIONAL, lh->n_ff);
    w->up_b = vector(l, "ffn_up.bias", OPTIONAL, lh->n_ff);
    w->down_b = vector(l, "ffn_down.bias", OPTIONAL, hp->n_embd);
}

/* Frequency factors divide an angle, so each must be finite and not 0 (a negative one turns the other way). */
static void check_rope_freqs(loader *l, const struct ggml_tensor *freqs)
{
    const unsigned char *data = freqs ? freqs->data : NULL;

    for (int64_t i = 0; freqs && i < freqs->ne[0]; i++) {
        float factor;
        memcpy(&factor, data + (size_t)i * sizeof factor, sizeof factor);
        if (!(factor == factor) || factor == 0 || factor > 1e30f || factor < -1e30f) {
            refuse(l, EDGELLM_EFORMAT,
                   "rope_freqs.weight holds %g at index %" PRId64 "; factors must be finite and not 0", (double)factor,
                   i);
            return;
        }
    }
}

static edgellm_status load_weights(el_model *m)
{
    loader l = {.model = m, .layer = -1, .status = EDGELLM_OK};
    const el_hparams *hp = &m->hp;
    const size_t n_headers = el_gguf_n_tensors(m->file) + 8;
    struct ggml_init_params params = {.mem_size = n_headers * ggml_tensor_overhead(), .no_alloc = true};

    m->weights_memory = params.mem_buffer = el_alloc(1, params.mem_size);
    m->layers = el_alloc((size_t)hp->n_layer, sizeof *m->layers);
    if (!m->weights_memory || !m->layers)
        return el_no_memory(params.mem_size);
    m->weights = ggml_init(params);
    if (!m->weights)
        return el_no_memory(params.mem_size);

    m->token_embd = matrix(&l, "token_embd.weight", REQUIRED, hp->n_embd, hp->n_vocab);
    m->output_norm = vector(&l, "output_norm.weight", REQUIRED, hp->n_embd);
    m->output = matrix(&l, "output.weight", OPTIONAL, hp->n_embd, hp->n_vocab);
    if (!m->output)
        m->output = m->token_embd;
    if (m->arch->traits.rope == EL_ROPE_ADJACENT) {
        m->rope_freqs = vector(&l, "rope_freqs.weight", OPTIONAL, hp->n_rot / 2);
        check_rope_freqs(&l, m->rope_freqs);
    }
    for (l.layer = 0; l.layer < hp->n_layer && l.status == EDGELLM_OK; l.layer++)
        load_layer(&l, &m->layers[l.layer], &hp->layers[l.layer]);
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
    el_str arch_name = {"", 0};

    *out = NULL;
    if (!m)
        return el_no_memory(sizeof *m);
    EL_TRY(el_gguf_open(&m->file, path_utf8, 0));
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
    el_free(m->weights_memory);
    el_free(m->layers);
    el_hparams_clear(&m->hp);
    el_tokenizer_free(m->vocab.tokenizer);
    el_gguf_close(m->file);
    el_free(m);
}
