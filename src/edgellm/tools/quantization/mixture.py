"""
Which tensor of a file gets which type: the mixtures behind names like Q4_K_M.

A file type names a type for most weights; some tensors get more bits, because an error there costs more (values of the
attention, the second half of the feed-forward block, the first and last eighth of the layers, the head), and in the
smallest types some get fewer. The choices are those of llama.cpp's llama-quantize, so that a file made here has the
same types as one made there; they were found by measuring perplexities and are facts about that format, not a rule.

Tensors have to be asked for in the order of their layers: what counts is the how-many-th of its kind one is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edgellm.tools.quantization.file_types import FLOATS, TYPES, FileType

Q2_BITS = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"})
RICHER = frozenset({"IQ2_S", "IQ2_M"})  # of these
# The type in blocks of 32 that stands in for one whose blocks of 256 do not fit a row; F16 where that fails too.
FALLBACKS = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
}  # fmt: skip
# Parts of names of matrices that stay as they are: small, or read in ways that quantized rows do not allow.
KEPT = (
    "_norm.weight", "ffn_gate_inp.weight", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d",
    "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight",
    "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
    "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight",
    "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
    "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
    ".patch_merger", "a.rvq.codebook", "mm.a.code_embd", "ffn_gate_tid2eid.weight",
)  # fmt: skip
KEPT_NAMES = ("position_embd.weight", "token_types.weight")
EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")
_KINDS = (
    ("attn_qkv.weight", "qkv"), ("attn_kv_b.weight", "kv_b"), ("attn_v.weight", "v"), ("attn_k.weight", "k"),
    ("attn_q.weight", "q"), ("attn_output.weight", "o"), ("ffn_up", "up"), ("ffn_gate", "gate"), ("ffn_down", "down"),
)  # fmt: skip
VALUES = frozenset({"v", "qkv", "kv_b"})


def is_quantizable(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of that name and shape (fastest first) takes part: matrices, but not all of them."""
    n_dims = max([1, *(i + 1 for i, size in enumerate(shape) if size > 1)])
    return n_dims >= 2 and name.endswith("weight") and name not in KEPT_NAMES and not any(part in name for part in KEPT)


def kind_of(name: str) -> str:
    """What a tensor is for: head, embedding, q, k, v, qkv, kv_b, o, up, gate, down, or other."""
    if name == "output.weight":
        return "head"
    if name in EMBEDDINGS:
        return "embedding"
    return next((kind for part, kind in _KINDS if part in name), "other")


def layer_order(name: str) -> tuple[int, str]:
    """A key to sort names by: those outside the layers, then layer by layer."""
    match = re.match(r"blk\.(\d+)\.", name)
    return (int(match[1]) if match else -1, name)


@dataclass(frozen=True)
class Facts:
    """
    What a mixture depends on besides the file type.

    Attributes:
        arch: ``general.architecture``.
        n_layer: Layers.
        n_gqa: Query heads for each head of keys, in the first layer; 0 without attention.
        n_expert: Experts; 0 without.
        tied: No ``output.weight``: the embedding is the head.
        imatrix: An importance matrix is at hand.
        n_values: Tensors among `VALUES`.
        wide: 80 layers and grouped queries, the shape of Llama 2 70B.
    """

    arch: str
    n_layer: int
    n_gqa: int
    n_expert: int
    tied: bool
    imatrix: bool
    n_values: int
    wide: bool


def more_bits(i: int, n: int) -> bool:
    """The first and last eighth of n, and every third between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def fitting(kind: str, n_per_row: int) -> str:
    """*kind*, or what stands in for it where rows of *n_per_row* are no whole blocks of it."""
    if n_per_row % TYPES[kind].elements == 0:
        return kind
    kind = FALLBACKS.get(kind, kind)
    return kind if n_per_row % TYPES[kind].elements == 0 else "F16"


class Mixture:
    """The types of one file, tensor after tensor in the order of `layer_order`."""

    def __init__(self, file_type: FileType, facts: Facts) -> None:
        self._name, self._base, self._facts = file_type.name, file_type.base, facts
        self._seen = {"value": 0, "down": 0, "gate": 0, "up": 0}

    def choose(self, name: str, shape: tuple[int, ...], output_type: str | None = None) -> str:
        """
        The type that fits the tensor's part in the model; whether it fits the shape is `fitting`'s affair.

        Args:
            name: Of the tensor.
            shape: Fastest first.
            output_type: What the caller wants for the head, which may be the embedding.
        """
        kind, facts = kind_of(name), self._facts
        if kind == "head" or (facts.tied and kind == "embedding"):
            return output_type or self._head(shape[0])
        if self._name in ("MXFP4", "NVFP4"):
            return "Q8_0" if kind == "embedding" else self._base
        if self._name == "MXFP4_MOE":
            return "MXFP4" if len(shape) > 2 and shape[2] > 1 else "Q8_0"
        if kind == "embedding":
            return self._embedding()
        if self._name in Q2_BITS:
            return self._two_bits(kind)
        if kind in VALUES:
            return self._values()
        if kind in ("k", "q"):
            return self._keys(kind)
        if kind == "down":
            return self._down(*self._place("down", name))
        if kind == "o":
            return self._attention_output()
        if kind in ("gate", "up"):
            return self._gate(*self._place(kind, name))
        return self._base

    def _place(self, kind: str, name: str) -> tuple[int, int]:
        """Which of how many: by count, or for experts, which may come in any order, by name."""
        i = self._seen[kind]
        self._seen[kind] += 1
        if self._facts.n_expert > 1:
            i = max(0, layer_order(name)[0])
        return i, self._facts.n_layer

    def _head(self, n_per_row: int) -> str:
        if self._base in ("MXFP4", "NVFP4") or self._base == "Q8_0":
            return "Q8_0"
        if self._facts.arch == "falcon" or n_per_row % TYPES[self._base].elements:
            return "Q8_0"
        return "Q5_K" if self._name in Q2_BITS or self._name == "IQ3_XXS" else "Q6_K"

    def _embedding(self) -> str:
        if self._name in ("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"):
            return "Q2_K"
        if self._name in ("IQ2_S", "IQ2_M", "IQ3_XXS"):
            return "IQ3_S"
        return "Q4_K" if self._name in ("TQ1_0", "TQ2_0") else self._base

    def _two_bits(self, kind: str) -> str:
        facts, small = self._facts, "IQ3_S" if self._name in RICHER else "Q2_K"
        if kind in VALUES:
            return "Q4_K" if facts.n_gqa >= 4 or facts.n_expert >= 4 else small
        if kind == "k" and facts.n_expert == 8:
            return "Q4_K"
        if kind == "down":
            i = self._seen["down"]
            self._seen["down"] += 1
            return small if i < facts.n_layer // 8 else self._base
        if kind == "o":
            if facts.n_expert == 8:
                return "Q5_K"
            if self._name in ("IQ1_S", "IQ1_M"):
                return "IQ2_XXS"
            return "IQ3_S" if self._name in RICHER else self._base
        return self._base

    def _values(self) -> str:
        facts, i, name = self._facts, self._seen["value"], self._name
        grouped = facts.n_gqa >= 4
        self._seen["value"] += 1
        chosen = self._base
        if name == "Q2_K":
            chosen = "Q4_K" if grouped else "Q3_K"
        elif (name in ("Q2_K_S", "IQ3_XS", "IQ3_S") and grouped) or name == "IQ3_M":
            chosen = "Q4_K"
        elif name == "IQ3_XXS":
            chosen = "Q4_K" if grouped else "IQ3_XXS" if facts.imatrix else "IQ3_S"
        elif name == "Q3_K_M":
            chosen = "Q5_K" if i < 2 else "Q4_K"
        elif name == "Q3_K_L" or (name in ("IQ4_NL", "IQ4_XS") and grouped) or (name == "Q4_K_S" and i < 4):
            chosen = "Q5_K"
        elif name in ("Q4_K_M", "Q5_K_M") and more_bits(i, facts.n_values):
            chosen = "Q6_K"
        if facts.wide and chosen in ("Q3_K", "Q4_K"):  # eight heads share these values: more bits cost next to nothing
            chosen = "Q5_K"
        return "Q8_0" if facts.n_expert == 8 else chosen

    def _keys(self, kind: str) -> str:
        if kind == "k" and self._facts.n_expert == 8:
            return "Q8_0"
        return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(self._name, self._base)

    def _down(self, i: int, n: int) -> str:
        facts, name, first = self._facts, self._name, i < n // 8
        falcon = facts.arch == "falcon"
        if name == "Q2_K":
            return "Q3_K"
        if name == "Q2_K_S":
            return "Q4_K" if first else self._base
        if name == "IQ3_XXS" and not facts.imatrix:
            return "Q4_K" if first else "Q3_K"
        if name == "Q3_K_M":
            if i < n // 16:
                return "Q5_K"
            return "Q4_K" if not falcon or more_bits(i, n) else "Q3_K"
        if name == "IQ3_M":
            return "Q4_K" if first or (facts.n_expert == 8 and more_bits(i, n)) else self._base
        if name == "Q3_K_L":
            return "Q4_K" if falcon else "Q5_K"
        if name == "Q4_K_M" and falcon:
            return "Q6_K" if i < n // 16 else "Q5_K" if more_bits(i, n) else "Q4_K"
        if name in ("Q4_K_M", "Q5_K_M"):
            return "Q6_K" if more_bits(i, n) else self._base
        if first and ((name in ("IQ4_NL", "IQ4_XS") and not facts.imatrix) or (name == "Q4_K_S" and not falcon)):
            return "Q5_K"
        if first and name in ("Q4_0", "Q5_0") and facts.imatrix:
            return "Q4_1" if name == "Q4_0" else "Q5_1"
        return self._base

    def _attention_output(self) -> str:
        facts, name = self._facts, self._name
        if facts.arch == "falcon":
            return "Q4_K" if name == "Q3_K_L" else self._base
        if facts.n_expert == 8:
            richer = (
                "Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M",
                "IQ4_XS",
            )  # fmt: skip
            return "Q5_K" if name in richer else self._base
        fixed = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
        return fixed.get(name, self._base)

    def _gate(self, i: int, n: int) -> str:
        return "IQ3_XXS" if self._name == "IQ3_XS" and n // 8 <= i < 7 * n // 8 else self._base


def needs_imatrix(name: str, kind: str, file_type: str) -> bool:
    """Whether a tensor of that type is not worth having without an importance matrix."""
    if name in EMBEDDINGS or name == "output.weight":
        return False
    return kind in ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS") or (
        kind == "Q2_K" and file_type == "Q2_K_S"
    )


def count_values(names: Iterable[str]) -> int:
    """How many of *names* are among `VALUES`."""
    return sum(kind_of(name) in VALUES for name in names)


def is_float(kind: str) -> bool:
    """Whether a type holds plain numbers."""
    return kind in FLOATS
