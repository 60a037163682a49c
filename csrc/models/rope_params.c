/* rope_params.c - how positions turn into angles: bases, stretched contexts (linear, YaRN, longrope), and what of it
 * each layer uses.
 * Sources: Su et al. 2021 (RoFormer); Peng et al. 2023 (YaRN), section 3.4; Ding et al. 2024 (LongRoPE). */
#include <math.h>
#include <stdio.h>

#include "arch.h"
#include "edgellm.h"
#include "graph.h"

enum { MAX_CTX = 1 << 30 };

static edgellm_status read_kind(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    static const struct {
        const char *name;
        el_rope_scaling kind;
    } kinds[] = {
        {"none", EL_ROPE_NONE}, {"linear", EL_ROPE_LINEAR}, {"yarn", EL_ROPE_YARN}, {"longrope", EL_ROPE_LONG}};
    char key[160];
    el_str kind = {"linear", 6};
    size_t k = 0;
    edgellm_status status = EDGELLM_OK;

    snprintf(key, sizeof key, "%s.rope.scaling.type", arch->name);
    EL_TRY(el_gguf_get_str(file, key, &kind));
    while (k < EL_COUNT(kinds) && !el_str_eq(kind, kinds[k].name))
        k++;
    if (k == EL_COUNT(kinds))
        return el_fail(EDGELLM_EUNSUPPORTED, "%s is \"%.*s\"; this version knows none, linear, yarn and longrope", key,
                       (int)EL_MIN(kind.n, (size_t)40), kind.data);
    hp->rope_scaling = kinds[k].kind;
done:
    return status;
}

static edgellm_status read_yarn(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    float log_multiplier = 0;
    edgellm_status status = EDGELLM_OK;

    hp->yarn_ext_factor = hp->rope_scaling == EL_ROPE_YARN ? 1 : 0;
    hp->yarn_beta_fast = 32;
    hp->yarn_beta_slow = 1;
    if (hp->rope_scaling != EL_ROPE_YARN || !arch->traits.yarn_keys)
        return EDGELLM_OK;
    EL_TRY(el_key_f32(file, arch, "rope.scaling.yarn_ext_factor", 1e-6f, 1e6f, &hp->yarn_ext_factor));
    EL_TRY(el_key_f32(file, arch, "rope.scaling.yarn_beta_fast", 1e-6f, 1e6f, &hp->yarn_beta_fast));
    EL_TRY(el_key_f32(file, arch, "rope.scaling.yarn_beta_slow", 1e-6f, 1e6f, &hp->yarn_beta_slow));
    EL_TRY(el_key_f32(file, arch, "rope.scaling.yarn_log_multiplier", 1e-6f, 1e6f, &log_multiplier));
    /* YaRN scales by m(factor) = 0.1 ln(factor) + 1, which ggml_rope_ext multiplies in by itself; a file's log
     * multiplier L asks for m(factor) / (0.1 L ln(factor) + 1) instead. */
    if (log_multiplier != 0)
        hp->rope_attn_factor /= 0.1f * log_multiplier * logf(EL_MAX(hp->rope_factor, 1.0f)) + 1.0f;
done:
    return status;
}

edgellm_status el_hparams_rope(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    hp->rope_base = 10000.0f;
    EL_TRY(el_key_f32(file, arch, "rope.freq_base", 1e-3f, 1e15f, &hp->rope_base));
    hp->rope_base_sliding = 0; /* families with bases of their own for sliding layers set a default in hparams */
    EL_TRY(el_key_f32(file, arch, "rope.freq_base_swa", 1e-3f, 1e15f, &hp->rope_base_sliding));
    hp->rope_factor = 1;
    EL_TRY(el_key_f32(file, arch, "rope.scale_linear", 1e-6f, 1e6f, &hp->rope_factor)); /* the old name */
    EL_TRY(el_key_f32(file, arch, "rope.scaling.factor", 1e-6f, 1e6f, &hp->rope_factor));
    EL_TRY(read_kind(hp, file, arch));
    if (hp->rope_scaling == EL_ROPE_NONE)
        hp->rope_factor = 1;
    hp->rope_ctx_orig = hp->n_ctx_train ? hp->n_ctx_train : 4096;
    EL_TRY(el_key_i32(file, arch, "rope.scaling.original_context_length", 1, MAX_CTX, &hp->rope_ctx_orig));
    hp->rope_attn_factor = 1;
    EL_TRY(el_key_f32(file, arch, "rope.scaling.attn_factor", 1e-6f, 1e6f, &hp->rope_attn_factor));
    EL_TRY(read_yarn(hp, file, arch));
done:
    return status;
}

edgellm_status el_rope_resolve(el_rope *rope, const el_hparams *hp, const edgellm_engine_options *o, int32_t n_ctx)
{
    const float factor = o->rope_factor != 0 ? o->rope_factor : hp->rope_factor;

    *rope = (el_rope){.base = o->rope_base,
                      .factor = factor,
                      .ext_factor = hp->yarn_ext_factor,
                      .attn_factor = hp->rope_attn_factor,
                      .ntk = 1,
                      .ctx_orig = o->rope_original_ctx > 0 ? o->rope_original_ctx : hp->rope_ctx_orig};
    if (!(o->rope_factor == 0 || (o->rope_factor >= 1e-3f && o->rope_factor <= 1e4f)))
        return el_fail(EDGELLM_EINVAL, "rope_factor is %g; it must be within 0.001 .. 10000", (double)o->rope_factor);
    if (!(o->rope_base == 0 || (o->rope_base >= 1 && o->rope_base <= 1e15f)))
        return el_fail(EDGELLM_EINVAL, "rope_base is %g; it must be within 1 .. 1e15", (double)o->rope_base);
    if (o->rope < EDGELLM_ROPE_MODEL || o->rope > EDGELLM_ROPE_DYNAMIC || o->rope_original_ctx < 0)
        return el_fail(EDGELLM_EINVAL, "rope is %d and rope_original_ctx %d; see edgellm_rope", o->rope,
                       o->rope_original_ctx);
    rope->stretch = o->rope != EDGELLM_ROPE_MODEL || o->rope_factor != 0;
    if (o->rope == EDGELLM_ROPE_MODEL)
        return EDGELLM_OK;
    rope->ext_factor = o->rope == EDGELLM_ROPE_YARN ? 1 : 0;
    rope->attn_factor = 1;
    if (o->rope != EDGELLM_ROPE_LINEAR && o->rope != EDGELLM_ROPE_YARN)
        rope->factor = 1;
    /* bloc97 and emozilla 2023 (NTK-aware and dynamic scaling), as Hugging Face's rope utilities compute them for a
     * sequence of n_ctx tokens: a cache cannot follow a base that changes while it fills. */
    if (o->rope == EDGELLM_ROPE_NTK)
        rope->ntk = factor;
    if (o->rope == EDGELLM_ROPE_DYNAMIC && n_ctx > rope->ctx_orig)
        rope->ntk = factor * (float)n_ctx / (float)rope->ctx_orig - (factor - 1);
    return EDGELLM_OK;
}
