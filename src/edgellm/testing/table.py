"""The families, by what stands in general.architecture; families.py explains the words."""

from __future__ import annotations

from typing import Any

from edgellm.testing.families import (
    ATTN,
    BERT,
    BERT_PLAIN,
    DELTA,
    GLU,
    KDA,
    MAMBA,
    MAMBA2,
    MLA,
    MLP,
    MOE,
    POST,
    QK_NORM,
    RWKV6,
    RWKV7,
    SHARED,
    SHORTCONV,
    Family,
)

EXPERTS = {
    "expert_count": "$expert",
    "expert_used_count": "$used",
    "expert_feed_forward_length": "$expert_ff",
}
SHARED_KEYS = {**EXPERTS, "expert_shared_count": 1, "expert_shared_feed_forward_length": "$shared_ff"}
LEAD = {**SHARED_KEYS, "leading_dense_block_count": 1}
SIGMOID = {**LEAD, "expert_gating_func": 2, "expert_weights_norm": True, "expert_weights_scale": 2.5}
MLA_KEYS = {
    "attention.head_count_kv": 1,
    "attention.q_lora_rank": "$rank",
    "attention.kv_lora_rank": "$kv_rank",
    "attention.key_length": "$latent",
    "attention.value_length": "$kv_rank",
    "attention.key_length_mla": "$mla",
    "attention.value_length_mla": "$value",
    "rope.dimension_count": "$rope",
}
SSM = {
    "ssm.conv_kernel": "$conv",
    "ssm.inner_size": "$inner",
    "ssm.state_size": "$state",
    "ssm.time_step_rank": "$heads",
}
SSM2 = {**SSM, "ssm.group_count": "$groups"}
INDEXER = "indexer.attn_k=embd,index indexer.attn_q_b=rank,index_q indexer.k_norm+=index indexer.proj=embd,index_head"
INDEXER_KEYS = {
    "attention.indexer.head_count": "$index_head",
    "attention.indexer.key_length": "$index",
    "attention.indexer.top_k": 2048,
}
NO_HEADS = {"attention.head_count": 0, "attention.head_count_kv": 0, "attention.key_length": None}
WINDOW = {"attention.sliding_window": 24, "attention.sliding_window_pattern": 2}
KDA_FULL = KDA.replace("ssm_f_a ssm_f_b", "ssm_f_a=embd,q").replace(
    "ssm_g_a=embd,size ssm_g_b=size,q", "ssm_g_a=embd,q"
)
SLIDING_LAST = {"attention.sliding_window": 24, "attention.sliding_window_pattern": [False, True]}
RWKV = {
    **NO_HEADS,
    "wkv.head_size": "$size",
    "attention.decay_lora_rank": "$mix",
    "attention.iclr_lora_rank": "$mix",
    "attention.value_residual_mix_lora_rank": "$mix",
    "attention.gate_lora_rank": "$mix",
    "time_mix_extra_dim": "$mix",
    "time_decay_extra_dim": "$mix",
}
DELTA_SIZES = {"inner": 128, "heads": 4, "groups": 2, "state": 32}
NORMS = "output_norm+ output"
BOTH_NORMS = "attn_norm+ ffn_norm+"
EMBEDDER = "token_embd_norm+ token_types"
PRE_QKV = f"{BOTH_NORMS} attn_qkv+=embd,q3 attn_output+ ffn_up+ ffn_down+"
SPLIT = f"{BOTH_NORMS} attn_q+ attn_k+ attn_v+ attn_output+ ffn_up+ ffn_down+"
BARE_POST = "post_attention_norm! post_ffw_norm!"
FUSED_FFN = "ffn_norm ffn_up=embd,ff2 ffn_down"
DENSE = f"{ATTN} {GLU}"
QK_DENSE = f"{ATTN} {QK_NORM} {GLU}"
QWEN2 = "attn_norm attn_q+ attn_k+ attn_v+ attn_output"
SHARED_MOE = f"{MOE} {SHARED}"
ROUTER_MOE = f"{MOE} exp_probs_b~ {SHARED}"
LFM2 = "token_embd_norm"
T5_ENC = "attn_norm attn_q attn_k=embd,q attn_v=embd,q attn_o=q,embd ffn_norm ffn_gate ffn_up ffn_down"
T5_DEC = T5_ENC + (" cross_attn_norm cross_attn_q=embd,q cross_attn_k=embd,q cross_attn_v=embd,q cross_attn_o=q,embd")
T5_TOP = {part: f"{part}.output_norm {part}.blk.0.attn_rel_b=head,buckets" for part in ("enc", "dec")}
GEMMA4 = f"{ATTN} {QK_NORM} {GLU} {POST} layer_output_scale=one inp_gate=embd,per_layer proj=per_layer,embd post_norm"
GEMMA3N = (
    f"{ATTN} {QK_NORM} {GLU} {POST} inp_gate=embd,per_layer proj=per_layer,embd post_norm altup_correct_coef=four,four "
    "altup_correct_scale altup_predict_coef=four,altup altup_router=embd,four altup_router_norm laurel_l=embd,laurel "
    "laurel_r=laurel,embd laurel_post_norm"
)
PER_LAYER = "per_layer_token_embd=per_layers,vocab per_layer_model_proj=embd,per_layers per_layer_proj_norm=per_layer"
FULL_HEADS = {"kv": 4}


def _plain(layer: str, **options: Any) -> Family:
    return Family((layer,), **options)


def _moe(layer: str, keys: dict[str, Any] = EXPERTS, **options: Any) -> Family:
    return Family((layer,), keys={"feed_forward_length": "$expert_ff", **keys}, **options)


def _lead(attn: str, moe: str, keys: dict[str, Any], **options: Any) -> Family:
    return Family((f"{attn} {GLU}", f"{attn} {moe}"), keys=keys, lead=True, **options)


def _mixed(**counts: Any) -> dict[str, Any]:
    """Heads by layer: the second one has none."""
    return {"attention.head_count_kv": ["$kv", 0]} | counts


_LLAMAS = "llama baichuan deci xverse internlm2 smollm3 nanbeige minicpm mistral3 llada"
FAMILIES: dict[str, Family] = {name: _plain(DENSE) for name in _LLAMAS.split()} | {
    # like LLaMA, each with a tensor or a key of its own
    "granite": _plain(DENSE, keys={"logit_scale": 6.0}),
    "llama-embed": _plain(DENSE, encoder=True),
    "gemma": _plain(DENSE, top="output_norm"),
    "eurobert": _plain(DENSE, top="output_norm", encoder=True),
    "ernie4_5": _plain(DENSE),
    "paddleocr": _plain(DENSE, keys={"rope.dimension_sections": [4, 6, 6, 0]}),
    "pangu-embedded": _plain(f"attn_norm attn_q+ attn_k+ attn_v+ attn_output+ {GLU}"),
    "arcee": _plain(f"{ATTN} {MLP}"),
    "exaone": _plain(DENSE),
    "plamo": _plain("attn_norm attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down"),
    "refact": _plain(DENSE),
    "orion": _plain(
        "attn_norm+ attn_q attn_k attn_v attn_output ffn_norm+ ffn_gate ffn_up ffn_down", top=NORMS, eps="layer"
    ),
    "stablelm": _plain(
        "attn_norm+ attn_q attn_k attn_v attn_output ffn_norm+ ffn_gate ffn_up ffn_down",
        top=NORMS,
        eps="layer",
        keys={"use_parallel_residual": False},
    ),
    "olmo": _plain("attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down", top="output", eps="layer"),
    "olmo2": _plain(f"attn_q attn_k attn_v attn_output attn_q_norm=q attn_k_norm=k ffn_gate ffn_up ffn_down {POST}"),
    "exaone4": _plain(f"attn_q attn_k attn_v attn_output {QK_NORM} ffn_gate ffn_up ffn_down {POST}"),
    "apertus": _plain(
        f"{ATTN} {QK_NORM} {MLP}",
        keys={"xielu.alpha_n": 0.8, "xielu.alpha_p": 0.8, "xielu.beta": 0.5, "xielu.eps": 1e-7},
    ),
    "bitnet": _plain(f"{ATTN} attn_sub_norm {GLU} ffn_sub_norm", top="output_norm"),
    "seed_oss": _plain(f"{QWEN2} post_attention_norm ffn_gate ffn_up ffn_down"),
    "chatglm": _plain(f"{QWEN2} {FUSED_FFN}"),
    "glm4": _plain(f"{ATTN} {FUSED_FFN} {POST}"),
    "command-r": _plain(
        "attn_norm attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down", top="output_norm", eps="layer"
    ),
    "cohere2": _plain(
        "attn_norm attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down",
        top="output_norm",
        eps="layer",
        keys={"logit_scale": 0.25, "attention.sliding_window": 24},
    ),
    "phi2": _plain(
        "attn_norm+ attn_q+ attn_k+ attn_v+ attn_output+ ffn_up+ ffn_down+",
        top="output_norm+ output+=embd,vocab",
        eps="layer",
    ),
    "phi3": _plain(f"attn_norm attn_qkv attn_output {FUSED_FFN}"),
    "plamo3": _plain(f"attn_norm attn_qkv attn_output {QK_NORM} {FUSED_FFN} {BARE_POST}", keys=WINDOW),
    "openelm": _plain(f"attn_norm attn_qkv attn_output {QK_NORM} {GLU}", top="output_norm"),
    "qwen": _plain(
        "attn_norm attn_qkv+ attn_output ffn_norm ffn_gate=embd,half_ff ffn_up=embd,half_ff ffn_down=half_ff,embd",
        sizes=FULL_HEADS,
    ),
    "qwen2": _plain(f"{QWEN2} {GLU}"),
    "dream": _plain(f"{QWEN2} {GLU}"),
    "qwen2vl": _plain(f"{QWEN2} {GLU}", keys={"rope.dimension_sections": [4, 6, 6, 0]}),
    "qwen3": _plain(QK_DENSE),
    "qwen3vl": _plain(QK_DENSE, keys={"rope.dimension_sections": [6, 5, 5, 0], "n_deepstack_layers": 0}),
    "qwen3tts": _plain(QK_DENSE),
    "hunyuan-dense": _plain(QK_DENSE),
    "hunyuan_vl": _plain(QK_DENSE),
    "maincoder": _plain(QK_DENSE),
    "cogvlm": _plain(f"attn_norm attn_qkv attn_output {GLU}"),
    "muse-glimmer": _plain(f"{ATTN} {QK_NORM} attn_gate {GLU} {POST}", keys={**WINDOW, "logit_scale": 1.0}),
    "spark2_5": _plain(f"{ATTN} attn_gate=embd,head {GLU}", keys=SLIDING_LAST),
    "hrm_text": _plain(
        "attn_q attn_k attn_v attn_output attn_gate ffn_gate ffn_up ffn_down",
        top="output hrm.z_l_init!",
        keys={"hrm.layers_per_stack": 1, "hrm.h_cycles": 1, "hrm.l_cycles": 1},
    ),
    "talkie": _plain(
        "attn_q attn_k attn_v attn_output attn_q_norm=one,head ffn_gate ffn_up ffn_down layer_output_scale=one",
        top="output",
        keys={"logit_scale": 1.0},
    ),
    # Gemma
    "gemma2": _plain(
        f"{DENSE} {POST}",
        top="output_norm",
        keys={**WINDOW, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3": _plain(f"{QK_DENSE} {POST}", keys=WINDOW),
    "gemma3n": _plain(
        GEMMA3N,
        top=f"output_norm {PER_LAYER} altup_proj=embd,embd,three altup_unembd_proj=embd,embd,three",
        keys=WINDOW,
        sizes={"per_layer": 256},  # this width, laurel and altup are fixed in the family
    ),
    "gemma4": _plain(
        GEMMA4,
        top=f"output_norm {PER_LAYER} rope_freqs=half",
        keys={
            "attention.sliding_window": 24,
            "attention.sliding_window_pattern": [True, False],
            "attention.key_length_swa": "$size",
            "attention.value_length_swa": "$size",
            "embedding_length_per_layer_input": "$per_layer",
        },
    ),
    "gemma-embedding": _plain(f"{QK_DENSE} {POST}", keys=WINDOW, encoder=True),
    # GPT-2 and its like
    "gpt2": _plain(PRE_QKV, top="position_embd output_norm+ output", eps="layer", sizes=FULL_HEADS),
    "starcoder": _plain(PRE_QKV, top="position_embd output_norm+ output", eps="layer", sizes=FULL_HEADS),
    "gptneox": _plain(PRE_QKV, top=NORMS, eps="layer", sizes=FULL_HEADS, keys={"use_parallel_residual": True}),
    "bloom": _plain(PRE_QKV, top=f"token_embd_norm+ {NORMS}", eps="layer", sizes=FULL_HEADS),
    "falcon": _plain("attn_norm+ attn_qkv attn_output ffn_up ffn_down", top=NORMS, eps="layer"),
    "mpt": _plain(
        "attn_norm attn_qkv attn_output ffn_norm ffn_up ffn_down", eps="layer", keys={"attention.max_alibi_bias": 8.0}
    ),
    "jais": _plain(
        f"{BOTH_NORMS} attn_qkv+=embd,q3 attn_output+ ffn_gate+ ffn_up+ ffn_down+",
        top=NORMS,
        eps="layer",
        sizes=FULL_HEADS,
        keys={"attention.max_alibi_bias": 8.0},
    ),
    "starcoder2": _plain(SPLIT, top=NORMS, eps="layer"),
    "codeshell": _plain(SPLIT, top=NORMS, eps="layer"),
    "jais2": _plain(SPLIT, top=NORMS, eps="layer"),
    "nemotron": _plain(f"{BOTH_NORMS} attn_q attn_k attn_v attn_output ffn_up ffn_down", top=NORMS, eps="layer"),
    # latent attention
    "minicpm3": _plain(
        "attn_norm attn_q_a attn_q_a_norm attn_q_b=rank,mla_q attn_kv_a_mqa attn_kv_a_norm attn_kv_b=kv_rank,kv_b "
        f"attn_output=mla_v,embd {GLU}",
        keys={
            "attention.head_count_kv": "$head",
            "attention.q_lora_rank": "$rank",
            "attention.kv_lora_rank": "$kv_rank",
            "attention.key_length": "$mla",
            "attention.value_length": "$value",
            "rope.dimension_count": "$rope",
        },
    ),
    "deepseek2": _lead(MLA, ROUTER_MOE, {**SIGMOID, **MLA_KEYS}),
    "deepseek2-ocr": _lead(ATTN, ROUTER_MOE, SIGMOID, sizes=FULL_HEADS),
    "deepseek32": _lead(f"{MLA} {INDEXER}", ROUTER_MOE, {**SIGMOID, **MLA_KEYS, **INDEXER_KEYS}),
    "glm-dsa": _lead(f"{MLA} {INDEXER}", ROUTER_MOE, {**SIGMOID, **MLA_KEYS, **INDEXER_KEYS}),
    "plm": _plain(
        f"attn_norm attn_q=embd,mla_q attn_kv_a_mqa attn_kv_a_norm attn_kv_b=kv_rank,kv_b attn_output=mla_v,embd {MLP}",
        top="output_norm",
        keys={
            "attention.head_count_kv": "$head",
            "attention.kv_lora_rank": "$kv_rank",
            "attention.key_length": "$mla",
            "attention.value_length": "$value",
            "rope.dimension_count": "$rope",
        },
    ),
    "mistral4": _lead(MLA, ROUTER_MOE, {**SIGMOID, **MLA_KEYS}),
    # mixtures of experts
    "granitemoe": _moe(f"{ATTN} {MOE}", {**EXPERTS, "logit_scale": 6.0}),
    "qwen2moe": _moe(f"{QWEN2} {MOE} ffn_gate_inp_shexp {SHARED}", SHARED_KEYS),
    "qwen3moe": _moe(f"{ATTN} {QK_NORM} {MOE}"),
    "qwen3vlmoe": _moe(f"{ATTN} {QK_NORM} {MOE}", {**EXPERTS, "rope.dimension_sections": [6, 5, 5, 0]}),
    "llada-moe": _moe(f"{ATTN} {QK_NORM} {MOE}"),
    "rnd1": _moe(f"{ATTN} {QK_NORM} {MOE}"),
    "olmoe": _moe(f"{ATTN} attn_q_norm=q attn_k_norm=k {MOE}", sizes=FULL_HEADS),
    "phimoe": _moe(
        f"attn_norm+ attn_q+ attn_k+ attn_v+ attn_output+ {MOE.replace('ffn_norm', 'ffn_norm+')}",
        top="output_norm+ output+=embd,vocab",
    ),
    "gpt-oss": _moe(
        "attn_norm attn_q+ attn_k+ attn_v+ attn_output+ attn_sinks post_attention_norm ffn_gate_inp+ ffn_gate_exps+ "
        "ffn_up_exps+ ffn_down_exps+",
        {**EXPERTS, "attention.sliding_window": 24},
    ),
    "smallthinker": _moe(f"{ATTN} {MOE}", {**EXPERTS, "attention.sliding_window": 24, "expert_gating_func": 2}),
    "minimax-m2": _moe(f"{ATTN} attn_q_norm=q attn_k_norm=k {MOE} exp_probs_b~", {**EXPERTS, "expert_gating_func": 2}),
    "hunyuan-moe": _moe(f"{ATTN} {QK_NORM} {SHARED_MOE}", SHARED_KEYS),
    "dbrx": _moe(
        "attn_norm attn_qkv attn_output attn_output_norm ffn_gate_inp ffn_gate_exps ffn_up_exps ffn_down_exps",
        {**EXPERTS, "attention.clamp_kqv": 8.0},
        eps="layer",
    ),
    "grok": _moe(f"{ATTN} attn_output_norm layer_output_norm {MOE}"),
    "arctic": _moe(
        f"{ATTN} ffn_gate=embd,embd ffn_up=embd,embd ffn_down=embd,embd ffn_norm_exps {MOE}",
        EXPERTS,
    ),
    "deepseek": _lead(ATTN, SHARED_MOE, LEAD),
    "bailingmoe": _moe(f"{ATTN} {SHARED_MOE}", {**LEAD, "expert_weights_norm": True}),
    "bailingmoe2": _lead(f"attn_norm attn_qkv attn_output {QK_NORM}", ROUTER_MOE, SIGMOID),
    "dots1": _lead(f"{ATTN} {QK_NORM}", ROUTER_MOE, SIGMOID, sizes=FULL_HEADS),
    "ernie4_5-moe": _lead(ATTN, ROUTER_MOE, {**LEAD, "interleave_moe_layer_step": 1}),
    "exaone-moe": _lead(f"{ATTN} {QK_NORM}", ROUTER_MOE, {**SIGMOID, **WINDOW}),
    "glm4moe": Family(
        (
            f"{ATTN} post_attention_norm ffn_gate ffn_up ffn_down",
            f"{ATTN} post_attention_norm {ROUTER_MOE.removeprefix('ffn_norm ')}",
        ),
        keys=SIGMOID,
        lead=True,
    ),
    "afmoe": _lead(f"{ATTN} {QK_NORM} attn_gate {POST}", ROUTER_MOE, {**SIGMOID, "attention.sliding_window": 24}),
    "llama4": Family(
        (DENSE, f"{ATTN} {SHARED_MOE}"),
        keys={**SHARED_KEYS, "interleave_moe_layer_step": 2, "attention.sliding_window_pattern": 2},
        sizes={"shared_ff": 64, "used": 1},
    ),
    "cohere2moe": Family(
        (
            "attn_norm attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down",
            f"attn_norm attn_q attn_k attn_v attn_output {SHARED_MOE.removeprefix('ffn_norm ')}",
        ),
        top="output_norm",
        eps="layer",
        keys={**SIGMOID, "logit_scale": 0.25, "attention.sliding_window": 24},
        lead=True,
    ),
    "granite_swa": _plain(f"{ATTN} attn_sinks {GLU}", keys={**SLIDING_LAST, "logit_scale": 6.0}),
    "grovemoe": _moe(
        f"{ATTN} {QK_NORM} {MOE} ffn_gate_chexps=embd,size,two ffn_up_chexps=embd,size,two "
        "ffn_down_chexps=size,embd,two",
        {**EXPERTS, "experts_per_group": 2, "expert_group_scale": 0.05},
    ),
    "hy_v3": _lead(f"{ATTN} {QK_NORM}", f"{MOE} exp_probs_b! {SHARED}", SIGMOID),
    "laguna": _lead(f"{ATTN} {QK_NORM} attn_gate=embd,head", ROUTER_MOE, {**SIGMOID, "attention.sliding_window": 24}),
    "maple": _moe(f"{ATTN} {QK_NORM} {MOE}", {**EXPERTS, **SLIDING_LAST, "swiglu_clamp_exp": 7.0}),
    "mellum": _moe(f"{ATTN} {QK_NORM} {MOE}", {**EXPERTS, "attention.sliding_window": 24}),
    "mimo2": _lead(f"{ATTN} attn_sinks", f"{MOE} exp_probs_b~", {**LEAD, **SLIDING_LAST}),
    "step35": _lead(f"{ATTN} {QK_NORM} attn_gate=embd,head", ROUTER_MOE, {**SIGMOID, **SLIDING_LAST}),
    "lfm2moe": Family(
        (f"{SHORTCONV} {GLU}", f"{ATTN} {QK_NORM} {MOE} exp_probs_b~"),
        top=LFM2,
        keys={
            **EXPERTS,
            "leading_dense_block_count": 1,
            "expert_gating_func": 2,
            "shortconv.l_cache": "$shortconv",
            "attention.head_count_kv": [0, "$kv"],
        },
    ),
    "lfm2": Family(
        (f"{SHORTCONV} {GLU}", f"{ATTN} {QK_NORM} {GLU}"),
        top=LFM2,
        keys={"shortconv.l_cache": "$shortconv", "attention.head_count_kv": [0, "$kv"]},
    ),
    # state space, linear attention, hybrids
    "mamba": _plain(MAMBA, keys={**SSM, **NO_HEADS, "feed_forward_length": 0}),
    "mamba2": _plain(f"attn_norm {MAMBA2}", keys={**SSM2, **NO_HEADS, "feed_forward_length": 0}),
    "jamba": Family(
        (f"{MAMBA} ssm_dt_norm ssm_b_norm ssm_c_norm {GLU}", f"{ATTN} {MOE}"),
        keys={
            **SSM,
            "attention.head_count_kv": [0, "$kv"],
            "expert_count": "$expert",
            "expert_used_count": "$used",
            "feed_forward_length": "$expert_ff",
        },
        sizes={"ff": 64},
    ),
    "falcon-h1": _plain(f"{ATTN} {MAMBA2} {GLU.replace('ffn_norm', 'ffn_norm!')}", keys=SSM2),
    "granitehybrid": Family(
        (f"attn_norm {MAMBA2} {GLU}", DENSE),
        keys={**SSM2, "attention.head_count_kv": [0, "$kv"], "logit_scale": 6.0},
    ),
    "nemotron_h": Family(
        (f"attn_norm {MAMBA2}", ATTN, "attn_norm ffn_up ffn_down"),
        keys={**SSM2, "attention.head_count_kv": [0, "$kv", 0], "feed_forward_length": [0, 0, "$ff"]},
        eps="both",
    ),
    "nemotron_h_moe": Family(
        (
            f"attn_norm {MAMBA2}",
            ATTN,
            "attn_norm ffn_gate_inp exp_probs_b~ ffn_up_exps ffn_down_exps ffn_up_shexp ffn_down_shexp",
        ),
        keys={
            **SSM2,
            **SIGMOID,
            "attention.head_count_kv": [0, "$kv", 0],
            "feed_forward_length": [0, 0, "$expert_ff"],
            "leading_dense_block_count": None,
        },
        eps="both",
    ),
    "plamo2": Family(
        (
            "attn_norm ssm_in ssm_conv1d ssm_x=inner,plamo_x ssm_dt=plamo_dt,heads ssm_dt~=heads ssm_a!=heads "
            f"ssm_d!=heads ssm_dt_norm!=plamo_dt ssm_b_norm! ssm_c_norm! ssm_out {FUSED_FFN} {BARE_POST}",
            f"attn_norm attn_qkv attn_output attn_q_norm=size,head attn_k_norm=size,kv {FUSED_FFN} {BARE_POST}",
        ),
        keys={
            **SSM2,
            "ssm.group_count": 0,
            "attention.head_count_kv": [0, "$kv"],
        },
    ),
    "qwen3next": Family(
        (
            f"{DELTA} ssm_ba post_attention_norm {SHARED_MOE.removeprefix('ffn_norm ')} ffn_gate_inp_shexp",
            f"{ATTN.replace('attn_q ', 'attn_q=embd,q2 ')} {QK_NORM} post_attention_norm "
            f"{SHARED_MOE.removeprefix('ffn_norm ')} ffn_gate_inp_shexp",
        ),
        keys={**SHARED_KEYS, **SSM2, "full_attention_interval": 2},
        sizes=DELTA_SIZES,
    ),
    "qwen35": Family(
        (
            f"{DELTA} ssm_alpha ssm_beta post_attention_norm ffn_gate ffn_up ffn_down",
            f"{ATTN.replace('attn_q ', 'attn_q=embd,q2 ')} {QK_NORM} post_attention_norm ffn_gate ffn_up ffn_down",
        ),
        keys={**SSM2, "full_attention_interval": 2, "rope.dimension_sections": [6, 5, 5, 0]},
        sizes=DELTA_SIZES,
    ),
    "qwen35moe": Family(
        (
            f"{DELTA} ssm_alpha ssm_beta post_attention_norm {SHARED_MOE.removeprefix('ffn_norm ')} ffn_gate_inp_shexp",
            f"{ATTN.replace('attn_q ', 'attn_q=embd,q2 ')} {QK_NORM} post_attention_norm "
            f"{SHARED_MOE.removeprefix('ffn_norm ')} ffn_gate_inp_shexp",
        ),
        keys={**SHARED_KEYS, **SSM2, "full_attention_interval": 2, "rope.dimension_sections": [6, 5, 5, 0]},
        sizes=DELTA_SIZES,
    ),
    "bailingmoe3": Family(
        (
            f"{KDA_FULL} {GLU}",
            f"{MLA} attn_gate=embd,head {ROUTER_MOE}",
        ),
        keys={
            **SIGMOID,
            **MLA_KEYS,
            "attention.head_count_kv": [0, 1],
            "ssm.conv_kernel": "$conv",
            "kda.head_dim": "$size",
            "kda.gate_lower_bound": -5.0,
        },
    ),
    "minimax-01": Family(
        (
            f"attn_norm attn_qkv=embd,q3 attn_gate=embd,q attn_norm_2=q attn_output {MOE}",
            f"{ATTN} {MOE}",
        ),
        keys={
            "feed_forward_length": "$expert_ff",
            **EXPERTS,
            "residual_scale": 3.5,
            "full_attention_interval": 2,
        },
    ),
    "kimi-linear": Family(
        (
            f"{KDA} {GLU}",
            "attn_norm attn_q=embd,mla_q attn_kv_a_mqa attn_kv_a_norm attn_k_b attn_v_b attn_output=mla_v,embd "
            + ROUTER_MOE,
        ),
        keys={
            **SIGMOID,
            **MLA_KEYS,
            "attention.q_lora_rank": None,
            "attention.head_count_kv": [0, 1],
            "ssm.conv_kernel": "$conv",
            "kda.head_dim": "$size",
        },
    ),
    "rwkv6": _plain(
        f"attn_norm+ attn_norm_2+ {RWKV6} time_mix_first time_mix_key time_mix_value time_mix_ln+ channel_mix_lerp_k "
        "channel_mix_lerp_r channel_mix_key channel_mix_value channel_mix_receptance",
        top=f"token_embd_norm+ {NORMS}",
        keys={**RWKV, "rescale_every_n_layers": 6},
        eps="layer",
    ),
    "rwkv6qwen2": _plain(
        f"attn_norm {RWKV6} time_mix_key+=embd,k time_mix_value+=embd,k {GLU}",
        keys={**RWKV, "attention.head_count": "$head", "attention.head_count_kv": "$kv", "token_shift_count": 1},
        eps="both",
    ),
    "rwkv7": _plain(
        f"attn_norm+ attn_norm_2+ {RWKV7} time_mix_ln+ channel_mix_lerp_k channel_mix_key channel_mix_value",
        top=f"token_embd_norm+ {NORMS}",
        keys=RWKV,
        eps="layer",
    ),
    "arwkv7": _plain(f"attn_norm {RWKV7} {GLU}", keys={**RWKV, "token_shift_count": 1}, eps="both"),
    # encoders
    "bert": _plain(BERT, top=f"position_embd {EMBEDDER}", eps="layer", encoder=True, sizes=FULL_HEADS),
    "nomic-bert": _plain(f"{BERT_PLAIN} ffn_gate", top=EMBEDDER, eps="layer", encoder=True, sizes=FULL_HEADS),
    "nomic-bert-moe": Family(
        (
            BERT,
            BERT.replace("ffn_up+ ffn_down+", "ffn_gate_inp ffn_up_exps=embd,ff,expert ffn_down_exps=ff,embd,expert"),
        ),
        top=EMBEDDER,
        keys={"expert_count": "$expert", "expert_used_count": "$used", "moe_every_n_layers": 2},
        eps="layer",
        encoder=True,
        sizes=FULL_HEADS,
    ),
    "jina-bert-v2": _plain(
        BERT.replace("ffn_up+", "ffn_up ffn_gate"), top=EMBEDDER, eps="layer", encoder=True, sizes=FULL_HEADS
    ),
    "jina-bert-v3": _plain(BERT, top=EMBEDDER, eps="layer", encoder=True, sizes=FULL_HEADS),
    "modern-bert": Family(
        (
            f"attn_qkv=embd,q3 attn_output {FUSED_FFN}",
            f"attn_norm attn_qkv=embd,q3 attn_output {FUSED_FFN}",
        ),
        top="token_embd_norm output_norm",
        keys={"attention.sliding_window": 24},
        eps="layer",
        encoder=True,
        lead=True,
        sizes=FULL_HEADS,
    ),
    "neo-bert": _plain(
        f"attn_norm attn_qkv=embd,q3 attn_output {FUSED_FFN}", top="enc.output_norm", encoder=True, sizes=FULL_HEADS
    ),
    "t5": Family(
        (),
        top=f"{T5_TOP['enc']} {T5_TOP['dec']} output",
        stacks={"enc.blk.": T5_ENC, "dec.blk.": T5_DEC},
        keys={"attention.relative_buckets_count": "$buckets", "decoder_start_token_id": 0},
        sizes=FULL_HEADS,
    ),
    "t5encoder": Family(
        (),
        top=T5_TOP["enc"],
        stacks={"enc.blk.": T5_ENC},
        keys={"attention.relative_buckets_count": "$buckets"},
        sizes=FULL_HEADS,
        encoder=True,
    ),
}
