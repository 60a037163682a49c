/* weights.c - finds tensors by name, checks type and shape, and makes ggml headers over the mapped file.
 * After this no graph of the model can reach a ggml assertion about shapes or types. */
#include "weights.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ggml.h"
#include "model.h"

/* Types that ggml_mul_mat multiplies with F32 activations. */
static bool is_weight_type(enum ggml_type type)
{
    if (type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16)
        return true;
    return ggml_is_quantized(type) && type != GGML_TYPE_Q8_1 && type != GGML_TYPE_Q8_K;
}

static void full_name(char name[GGML_MAX_NAME], const el_loader *l, const char *suffix)
{
    if (l->layer < 0)
        snprintf(name, GGML_MAX_NAME, "%s", suffix);
    else
        snprintf(name, GGML_MAX_NAME, "%s%d.%s", l->prefix, l->layer, suffix);
}

void el_refuse(el_loader *l, edgellm_status code, const char *fmt, ...)
{
    char text[512];
    va_list args;

    if (l->status != EDGELLM_OK)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    l->status = el_fail(code, "%s", text);
}

bool el_is_multiplied(const struct ggml_tensor *weight) { return weight->op_params[0] == 0; }

bool el_has(const el_loader *l, const char *name)
{
    char full[GGML_MAX_NAME];

    full_name(full, l, name);
    return el_gguf_find_tensor(l->model->file, full) != NULL;
}

const el_gguf_tensor *el_find(const el_loader *l, const char *name, const char *what)
{
    char part_name[GGML_MAX_NAME], full[GGML_MAX_NAME];

    snprintf(part_name, sizeof part_name, "%s.%s", name, what);
    full_name(full, l, part_name);
    return el_gguf_find_tensor(l->model->file, full);
}

/* Sizes of 1 do not count: files hold a convolution's weights as [taps, 1, channels], or one head's as a vector. */
static void without_ones(int64_t to[4], const int64_t ne[4])
{
    int n = 0;

    for (int i = 0; i < 4; i++)
        to[i] = 1;
    for (int i = 0; i < 4; i++)
        if (ne[i] != 1)
            to[n++] = ne[i];
}

static bool shape_fits(el_loader *l, const char *name, const el_gguf_tensor *found, const int64_t ne[4])
{
    int64_t is[4], wanted[4];
    const bool whole_blocks = found->ne[0] == ne[0] || found->type == GGML_TYPE_F32; /* of a quantized type */

    without_ones(is, found->ne);
    without_ones(wanted, ne);
    if (whole_blocks && memcmp(is, wanted, sizeof is) == 0)
        return true;
    el_refuse(l, EDGELLM_EFORMAT,
              "tensor %s is [%" PRId64 ", %" PRId64 ", %" PRId64 "], but the metadata says [%" PRId64 ", %" PRId64
              ", %" PRId64 "]",
              name, found->ne[0], found->ne[1], found->ne[2], ne[0], ne[1], ne[2]);
    return false;
}

/* A header, unless the room that load_weights has made is used up: then the model is damaged in a way not thought of.
 */
static struct ggml_tensor *header(el_loader *l, enum ggml_type type, const int64_t ne[4])
{
    struct ggml_context *ctx = l->model->weights;

    if (ggml_used_mem(ctx) + 2 * ggml_tensor_overhead() > ggml_get_mem_size(ctx)) {
        el_refuse(l, EDGELLM_EFORMAT, "the file has more tensors than its %d layers can use", l->model->hp.n_layer);
        return NULL;
    }
    return ggml_new_tensor(ctx, type, ne[2] > 1 ? 3 : ne[1] > 1 ? 2 : 1, ne);
}

struct ggml_tensor *el_load(el_loader *l, const char *suffix, el_need need, el_role role, int64_t ne0, int64_t ne1,
                            int64_t ne2)
{
    const int64_t ne[4] = {ne0, ne1, ne2, 1};
    char name[GGML_MAX_NAME];
    const el_gguf_tensor *found;
    struct ggml_tensor *tensor;

    if (l->status != EDGELLM_OK)
        return NULL;
    full_name(name, l, suffix);
    found = el_gguf_find_tensor(l->model->file, name);
    if (!found) {
        if (need == EL_REQUIRED)
            el_refuse(l, EDGELLM_EFORMAT, "tensor %s is missing; a %s model needs it", name, l->model->arch->name);
        return NULL;
    }
    if (ne0 < 1 || ne1 < 1 || ne2 < 1) {
        el_refuse(l, EDGELLM_EFORMAT, "tensor %s has no place in this model: the metadata gives it no size", name);
        return NULL;
    }
    if (!shape_fits(l, name, found, ne))
        return NULL;
    if (found->type >= GGML_TYPE_COUNT || (role == EL_FLOATS && found->type != GGML_TYPE_F32) ||
        (role == EL_MATRIX && !is_weight_type((enum ggml_type)found->type))) {
        const char *type = "unknown";
        uint32_t elements, bytes;
        el_gguf_type_size(found->type, &elements, &bytes, &type);
        el_refuse(l, EDGELLM_EUNSUPPORTED, "tensor %s is %s; %s", name, type,
                  role == EL_FLOATS ? "norms, biases and factors must be F32" : "this type cannot be multiplied");
        return NULL;
    }
    tensor = header(l, (enum ggml_type)found->type, ne);
    if (!tensor)
        return NULL;
    tensor->data = (void *)(uintptr_t)found->data; /* read-only memory: no graph writes to a weight */
    ggml_set_name(tensor, name);
    tensor->op_params[0] = role == EL_FLOATS; /* a leaf has no use for them: el_is_multiplied */
    return tensor;
}

static struct ggml_tensor *part(el_loader *l, const char *name, const char *what, el_need need, el_role role,
                                int64_t ne0, int64_t ne1, int64_t ne2)
{
    char full[GGML_MAX_NAME];

    snprintf(full, sizeof full, "%s.%s", name, what);
    return el_load(l, full, need, role, ne0, ne1, ne2);
}

el_linear el_load_linear(el_loader *l, const char *name, el_need need, int64_t n_in, int64_t n_out)
{
    el_linear linear = {part(l, name, "weight", need, EL_MATRIX, n_in, n_out, 1), NULL, NULL};

    if (linear.w) {
        linear.b = part(l, name, "bias", EL_OPTIONAL, EL_FLOATS, n_out, 1, 1);
        linear.s = part(l, name, "scale", EL_OPTIONAL, EL_FLOATS, 1, 1, 1);
    }
    return linear;
}

el_linear el_load_experts(el_loader *l, const char *name, el_need need, int64_t n_in, int64_t n_out)
{
    const int64_t n = l->model->hp.expert.n;
    el_linear linear = {part(l, name, "weight", need, EL_MATRIX, n_in, n_out, n), NULL, NULL};

    if (linear.w) {
        linear.b = part(l, name, "bias", EL_OPTIONAL, EL_FLOATS, n_out, n, 1);
        linear.s = part(l, name, "scale", EL_OPTIONAL, EL_FLOATS, n, 1, 1);
    }
    return linear;
}

el_norm el_load_norm(el_loader *l, const char *name, el_need need, int64_t n)
{
    /* Some files leave ".weight" out (PLaMo 2, Falcon-H1). */
    el_norm norm = {el_has(l, name) ? el_load(l, name, need, EL_FLOATS, n, 1, 1)
                                    : part(l, name, "weight", need, EL_FLOATS, n, 1, 1),
                    NULL};

    if (norm.w)
        norm.b = part(l, name, "bias", EL_OPTIONAL, EL_FLOATS, n, 1, 1);
    return norm;
}

struct ggml_tensor *el_load_vector(el_loader *l, const char *name, el_need need, int64_t n)
{
    return el_load(l, name, need, EL_FLOATS, n, 1, 1);
}

/* Of ne[1] rows (biases: ne[0] floats), those from `first` on; experts keep their stride. */
static struct ggml_tensor *rows(el_loader *l, struct ggml_tensor *all, int64_t first, int64_t n, int dim)
{
    int64_t ne[4];
    struct ggml_tensor *t;

    if (!all || l->status != EDGELLM_OK)
        return NULL;
    memcpy(ne, all->ne, sizeof ne);
    ne[dim] = n;
    t = header(l, all->type, ne);
    if (!t)
        return NULL;
    memcpy(t->nb, all->nb, sizeof t->nb);
    t->data = (char *)all->data + (size_t)first * all->nb[dim];
    snprintf(t->name, sizeof t->name, "%.*s:%" PRId64, GGML_MAX_NAME - 24, all->name, first);
    return t;
}

el_linear el_rows_of(el_loader *l, el_linear all, int64_t first, int64_t n)
{
    return (el_linear){rows(l, all.w, first, n, 1), rows(l, all.b, first, n, 0), all.s};
}

void *el_load_memory(el_loader *l, size_t n_bytes)
{
    el_model *m = l->model;
    void *memory = NULL;

    if (m->n_owned == m->cap_owned) {
        const int32_t cap = EL_MAX(64, 2 * m->cap_owned);
        void **grown = el_realloc(m->owned, (size_t)cap, sizeof *grown);
        if (!grown)
            goto done;
        m->owned = grown;
        m->cap_owned = cap;
    }
    memory = el_alloc(1, n_bytes);
    if (memory)
        m->owned[m->n_owned++] = memory;
done:
    if (!memory && l->status == EDGELLM_OK)
        l->status = el_no_memory(n_bytes);
    return memory;
}

struct ggml_tensor *el_load_computed(el_loader *l, int64_t ne0, int64_t ne1)
{
    const int64_t ne[4] = {ne0, ne1, 1, 1};
    void *data = el_load_memory(l, (size_t)(ne0 * ne1) * sizeof(float));
    struct ggml_tensor *t = data ? header(l, GGML_TYPE_F32, ne) : NULL;

    if (t)
        t->data = data;
    return t;
}
