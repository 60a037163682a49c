"""
What is in a file of each family: its tensors and the keys it cannot do without, in one table.

A layer is written as words, one per tensor: ``attn_q`` is ``blk.N.attn_q.weight``; ``attn_q+`` has a bias too;
``exp_probs_b~`` is a bias alone; ``ssm_a!`` has no suffix; ``attn_q_norm=q`` replaces the usual shape. Shapes are in
the file's order (rows of a matrix come second), in the names of `sizes`.

Source: the tensor and key names of the ``gguf`` package and the published model code of each family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ATTN = "attn_norm attn_q attn_k attn_v attn_output"
GLU = "ffn_norm ffn_gate ffn_up ffn_down"
MLP = "ffn_norm ffn_up ffn_down"
MOE = "ffn_norm ffn_gate_inp ffn_gate_exps ffn_up_exps ffn_down_exps"
SHARED = "ffn_gate_shexp ffn_up_shexp ffn_down_shexp"
QK_NORM = "attn_q_norm attn_k_norm"
POST = "post_attention_norm post_ffw_norm"
MLA = (
    "attn_norm attn_q_a attn_q_a_norm attn_q_b=rank,mla_q attn_kv_a_mqa attn_kv_a_norm attn_k_b attn_v_b "
    "attn_output=mla_v,embd"
)
MAMBA = "attn_norm ssm_in ssm_conv1d+ ssm_x ssm_dt+ ssm_a! ssm_d! ssm_out"
MAMBA2 = (
    "ssm_in=embd,in2 ssm_conv1d+=conv,conv2 ssm_dt~=heads ssm_a!=one,heads ssm_d!=one,heads "
    "ssm_norm=inner_group,groups ssm_out"
)
DELTA = (
    "attn_norm attn_qkv=embd,delta attn_gate=embd,inner ssm_conv1d=conv,delta ssm_dt~=heads ssm_a!=heads "
    "ssm_norm=state ssm_out"
)
SHORTCONV = "attn_norm shortconv.conv shortconv.in_proj shortconv.out_proj"
RWKV7 = (
    "time_mix_w0 time_mix_w1 time_mix_w2 time_mix_a0 time_mix_a1 time_mix_a2 time_mix_v0 time_mix_v1 time_mix_v2 "
    "time_mix_g1 time_mix_g2 time_mix_lerp_fused=embd,one,one,six time_mix_k_k time_mix_k_a time_mix_r_k "
    "time_mix_key time_mix_value time_mix_receptance time_mix_output"
)
RWKV6 = (
    "time_mix_w1=embd,mix5 time_mix_w2=mix,embd,five time_mix_lerp_x time_mix_lerp_fused=embd,one,one,five "
    "time_mix_decay time_mix_decay_w1 time_mix_decay_w2 time_mix_receptance time_mix_gate time_mix_output"
)
KDA = (
    "attn_norm attn_q attn_k=embd,q attn_v=embd,q ssm_conv1d_q ssm_conv1d_k ssm_conv1d_v ssm_f_a ssm_f_b ssm_dt~=q "
    "ssm_a!=one,head ssm_beta=embd,head ssm_g_a=embd,size ssm_g_b=size,q ssm_norm=size attn_output"
)
BERT = "attn_q+ attn_k+=embd,q attn_v+=embd,q attn_output+ attn_output_norm+ ffn_up+ ffn_down+ layer_output_norm+"
BERT_PLAIN = "attn_qkv=embd,q3 attn_output attn_output_norm+ ffn_up ffn_down layer_output_norm+"
NEXT = "output_norm output"

# Where a name has the same shape in (almost) every family.
SHAPES = {
    "token_embd": "embd,vocab",
    "output": "embd,vocab",
    "position_embd": "embd,ctx",
    "token_types": "embd,two",
    "attn_q": "embd,q",
    "attn_k": "embd,k",
    "attn_v": "embd,k",
    "attn_qkv": "embd,qkv",
    "attn_output": "q,embd",
    "attn_gate": "embd,q",
    "attn_sinks": "head",
    "attn_q_norm": "size",
    "attn_k_norm": "size",
    "attn_q_a": "embd,rank",
    "attn_q_a_norm": "rank",
    "attn_kv_a_mqa": "embd,latent",
    "attn_kv_a_norm": "kv_rank",
    "attn_k_b": "nope,kv_rank,head",
    "attn_v_b": "kv_rank,value,head",
    "ffn_gate": "embd,ff",
    "ffn_up": "embd,ff",
    "ffn_down": "ff,embd",
    "ffn_sub_norm": "ff",
    "ffn_gate_inp": "embd,expert",
    "exp_probs_b": "expert",
    "ffn_gate_exps": "embd,expert_ff,expert",
    "ffn_up_exps": "embd,expert_ff,expert",
    "ffn_down_exps": "expert_ff,embd,expert",
    "ffn_gate_inp_shexp": "embd",
    "ffn_gate_shexp": "embd,shared_ff",
    "ffn_up_shexp": "embd,shared_ff",
    "ffn_down_shexp": "shared_ff,embd",
    "ssm_in": "embd,inner2",
    "ssm_conv1d": "conv,inner",
    "ssm_x": "inner,x",
    "ssm_dt": "heads,inner",
    "ssm_a": "state,inner",
    "ssm_d": "inner",
    "ssm_dt_norm": "heads",
    "ssm_b_norm": "state",
    "ssm_c_norm": "state",
    "ssm_out": "inner,embd",
    "ssm_alpha": "embd,heads",
    "ssm_beta": "embd,heads",
    "ssm_ba": "embd,heads2",
    "ssm_conv1d_q": "conv,one,q",
    "ssm_conv1d_k": "conv,one,q",
    "ssm_conv1d_v": "conv,one,q",
    "ssm_f_a": "embd,size",
    "ssm_f_b": "size,q",
    "shortconv.conv": "shortconv,embd",
    "shortconv.in_proj": "embd,embd3",
    "shortconv.out_proj": "embd,embd",
    "time_mix_w1": "embd,mix",
    "time_mix_w2": "mix,embd",
    "time_mix_a1": "embd,mix",
    "time_mix_a2": "mix,embd",
    "time_mix_v1": "embd,mix",
    "time_mix_v2": "mix,embd",
    "time_mix_g1": "embd,mix",
    "time_mix_g2": "mix,embd",
    "time_mix_decay_w1": "embd,mix",
    "time_mix_decay_w2": "mix,embd",
    "time_mix_first": "size,head",
    "time_mix_key": "embd,embd",
    "time_mix_value": "embd,embd",
    "time_mix_receptance": "embd,embd",
    "time_mix_gate": "embd,embd",
    "time_mix_output": "embd,embd",
    "channel_mix_key": "embd,ff",
    "channel_mix_value": "ff,embd",
    "channel_mix_receptance": "embd,embd",
    "cls": "embd,embd",
    "cls.output": "embd,one",
}


@dataclass(frozen=True)
class Family:
    """
    Tensors and keys of one family.

    Attributes:
        layers: Words for the layers, in turn; with *lead* the first one stands for the first layer alone.
        top: Words for the tensors outside the layers, besides token_embd.
        keys: Keys beside those every family has; a value "$name" is one of `sizes`.
        sizes: What differs from the default sizes.
        eps: Which epsilon the norms have: "rms", "layer" or "both".
        lead: The first layer is of a kind of its own (dense before experts).
        stacks: Words by prefix, for a family with two kinds of layers side by side (T5).
        encoder: It gives embeddings, not logits.
    """

    layers: tuple[str, ...]
    top: str = NEXT
    keys: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    eps: str = "rms"
    lead: bool = False
    stacks: Mapping[str, str] = field(default_factory=dict)
    encoder: bool = False

    def words(self, layer: int) -> list[str]:
        """The words of one layer."""
        if self.lead:
            return self.layers[0 if layer == 0 else 1 + (layer - 1) % (len(self.layers) - 1)].split()
        return self.layers[layer % len(self.layers)].split()


def sizes(family: Family, n_vocab: int, n_layer: int, overrides: Mapping[str, int]) -> dict[str, int]:
    """Every name that shapes and keys may use, with its number."""
    base = {"embd": 128, "head": 4, "kv": 2, "size": 32, "ff": 192, "ctx": 512, "expert": 4, "used": 2}
    base |= {"expert_ff": 64, "shared_ff": 64, "rank": 64, "kv_rank": 64, "nope": 32, "rope": 32, "value": 32}
    base |= {"inner": 256, "state": 32, "heads": 8, "groups": 1, "conv": 4, "shortconv": 3, "mix": 32, "buckets": 8}
    base |= {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "per_layer": 32, "altup": 16, "laurel": 64}
    base |= {"index": 64, "index_head": 2}
    s = {**base, **family.sizes, **overrides, "vocab": n_vocab}
    s |= {"q": s["head"] * s["size"], "k": s["kv"] * s["size"]}
    s |= {"qkv": s["q"] + 2 * s["k"], "q2": 2 * s["q"], "q3": 3 * s["q"], "ff2": 2 * s["ff"], "embd3": 3 * s["embd"]}
    s |= {"expert_ff2": 2 * s["expert_ff"], "half": s["size"] // 2, "mix5": 5 * s["mix"], "heads2": 2 * s["heads"]}
    s |= {"index_q": s["index"] * s["index_head"]}
    s |= {"latent": s["kv_rank"] + s["rope"], "mla": s["nope"] + s["rope"]}
    s |= {"mla_q": s["head"] * s["mla"], "mla_v": s["head"] * s["value"]}
    s |= {"kv_b": s["head"] * (s["nope"] + s["value"])}
    s |= {"per_layers": n_layer * s["per_layer"], "half_ff": s["ff"] // 2}
    s |= {"plamo_dt": max(64, s["embd"] // 16), "plamo_x": max(64, s["embd"] // 16) + 2 * s["state"]}
    bc = 2 * s["groups"] * s["state"]
    s |= {"inner2": 2 * s["inner"], "x": s["heads"] + 2 * s["state"], "conv2": s["inner"] + bc}
    s |= {"in2": 2 * s["inner"] + bc + s["heads"], "inner_group": s["inner"] // s["groups"], "delta": s["inner"] + bc}
    return s


def tensor_shapes(word: str, prefix: str, known: Mapping[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Full names of the tensors a word stands for, and their shapes in the file's order."""
    name, _, own = word.partition("=")
    base = name.rstrip("+~!")
    default = SHAPES.get(base.removeprefix("enc.").removeprefix("dec."), "embd")
    shape = tuple(known[part] for part in (own or default).split(","))
    if name.endswith("!"):
        yield f"{prefix}{base}", shape
        return
    if not name.endswith("~"):
        yield f"{prefix}{base}.weight", shape
    if name[-1] in "+~":
        experts = base.endswith("_exps")  # one bias for each expert
        yield f"{prefix}{base}.bias", shape[1:] if experts else shape[-1:]
