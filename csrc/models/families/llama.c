/* llama.c - LLaMA and the families that are LLaMA but for a trait.
 * Sources: Touvron et al. 2023, section 2.2; Jiang et al. 2024 (experts); the published model code of each. */
#include <math.h>

#include "arch.h"
#include "layer_blocks.h"

EL_ARCH(llama) = {
    .name = "llama", /* also Mistral, SmolLM2, Mixtral */
    .traits = {.may_have_experts = true, .experts_normalise = true},
};

/* Mistral 3 scales queries by 1 + s * ln(1 + floor(position / original length)). */
static edgellm_status mistral3_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    hp->attn_temp_length = hp->rope_ctx_orig;
    return el_key_f32(file, arch, "attention.temperature_scale", 1e-6f, 1e3f, &hp->attn_temp_scale);
}

EL_ARCH(mistral3) = {
    .name = "mistral3",
    .traits = {.may_have_experts = true, .experts_normalise = true, .yarn_keys = true},
    .hparams = mistral3_hparams,
};

EL_ARCH(smollm3) = {.name = "smollm3", .traits = {.no_rope_period = 4}};

EL_ARCH(internlm2) = {.name = "internlm2"};

EL_ARCH(xverse) = {.name = "xverse"};

EL_ARCH(arcee) = {.name = "arcee", .traits = {.activation = EL_ACT_RELU_SQUARED, .ungated = true}};

EL_ARCH(seed_oss) = {.name = "seed_oss", .traits = {.rope = EL_ROPE_HALVES, .ffn_norm = "post_attention_norm"}};

EL_ARCH(orion) = {.name = "orion", .traits = {.rope = EL_ROPE_HALVES, .layer_norm = true}};

/* The 7B model alone rotates, the 13B model has ALiBi; files know them by their layers. */
static edgellm_status baichuan_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    enum { LAYERS_OF_7B = 32, LAYERS_OF_13B = 40 };

    (void)file;
    (void)arch;
    if (hp->n_layer == LAYERS_OF_13B)
        hp->alibi_max_bias = 8;
    for (int32_t i = 0; hp->n_layer != LAYERS_OF_7B && i < hp->n_layer; i++)
        hp->layers[i].n_rot = 0;
    return EDGELLM_OK;
}

EL_ARCH(baichuan) = {.name = "baichuan", .hparams = baichuan_hparams};

/* Files of before the scales had keys. */
static edgellm_status minicpm_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    edgellm_status status = EDGELLM_OK;

    hp->embedding_scale = 12;
    hp->residual_scale = 1.4f / sqrtf((float)hp->n_layer);
    hp->logit_scale = (float)hp->n_embd / 256.0f;
    EL_TRY(el_key_f32(file, arch, "embedding_scale", 1e-6f, 1e6f, &hp->embedding_scale));
    EL_TRY(el_key_f32(file, arch, "residual_scale", 1e-6f, 1e6f, &hp->residual_scale));
    EL_TRY(el_key_f32(file, arch, "logit_scale", 1e-6f, 1e6f, &hp->logit_scale));
    hp->logit_scale = 1.0f / hp->logit_scale;
done:
    return status;
}

EL_ARCH(minicpm) = {
    .name = "minicpm",
    .traits = {.may_have_experts = true, .experts_normalise = true},
    .hparams = minicpm_hparams,
};

EL_ARCH(pangu_embedded) = {.name = "pangu-embedded", .traits = {.rope = EL_ROPE_HALVES, .no_rope_factors = true}};

EL_ARCH(maincoder) = {.name = "maincoder", .traits = {.qk_norm = EL_QK_NORM, .qk_norm_after_rope = true}};

EL_ARCH(bitnet) = {.name = "bitnet", .traits = {.rope = EL_ROPE_HALVES, .sub_norms = true}};

static edgellm_status refact_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    hp->alibi_max_bias = 8;
    return EDGELLM_OK;
}

/* Biases are those of queries, keys and values alone, whatever a file holds. */
static void refact_load(el_loader *l)
{
    for (int32_t i = 0; i < l->model->hp.n_layer; i++) {
        el_ffn *ffn = &l->model->layers[i].ffn;
        ((el_attention *)l->model->layers[i].mixer)->out.b = NULL;
        ffn->gate.b = ffn->up.b = ffn->down.b = NULL;
    }
}

EL_ARCH(refact) = {
    .name = "refact",
    .traits = {.rope = EL_ROPE_OFF},
    .hparams = refact_hparams,
    .load = refact_load,
};

/* The text part: its images have weights of their own. Rope as it was first published, whatever a file says. */
static edgellm_status cogvlm_hparams(el_hparams *hp, const el_gguf *file, const el_arch *arch)
{
    (void)file;
    (void)arch;
    hp->rope_base = 10000;
    hp->rope_factor = hp->rope_attn_factor = 1;
    hp->yarn_ext_factor = 0;
    for (int32_t i = 0; i < hp->n_layer; i++)
        hp->layers[i].n_rot = hp->layers[i].head_k;
    return EDGELLM_OK;
}

EL_ARCH(cogvlm) = {
    .name = "cogvlm", .traits = {.rope = EL_ROPE_HALVES, .no_rope_factors = true}, .hparams = cogvlm_hparams};
