"""
Which tensors of a folder become which tensors of a GGUF file, in which type, and their bytes.

Sources: names from the `gguf` package's table. Rows of q and k: Meta's code turns neighbouring elements of a head
(pairs), transformers' turns its two halves, so its folders have the rows of the first half before those of the second.
Which tensors always stay F32 follows what llama.cpp reads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import gguf
import numpy as np
from numpy.typing import NDArray

from edgellm.errors import FormatError, InvalidArgument, Unsupported
from edgellm.tools.convert import hparams
from edgellm.tools.convert.families import Family
from edgellm.tools.convert.folder import Folder
from edgellm.tools.convert.safetensors import FLOATS, Tensor
from edgellm.tools.ggml_types import f32_to_bf16

STEP = 4 << 20  # weights in memory at a time
TYPES = {name: getattr(gguf.GGMLQuantizationType, name) for name in ("F32", "F16", "BF16", "Q8_0")}
_ALWAYS_F32 = ("position_embd.weight", "token_types.weight")
_SKIPPED = re.compile(  # constants that old folders carry, and parts of models that also see
    r"(.*\.)?(rotary_emb\.inv_freq|position_ids|attn\.(masked_)?bias)$|(.*\.)?(vision_tower|multi_modal_projector|vision_model)\."
)
_BERT_SKIPPED = ("cls.", "pooler.")


@dataclass(frozen=True)
class Planned:
    """
    A tensor of the file to write.

    Attributes:
        name: Its name in GGUF.
        type: One of TYPES.
        source: Where its numbers come from.
        order: Which row of the source each of its rows is; None: the same.
        add: Added to every weight.
    """

    name: str
    type: str
    source: Tensor
    order: NDArray[np.int64] | None = None
    add: float = 0.0

    @property
    def n_bytes(self) -> int:
        """Its size in the file."""
        elements, size = gguf.GGML_QUANT_SIZES[TYPES[self.type]]
        return math.prod(self.source.shape) // elements * size

    def chunks(self) -> Iterator[bytes]:
        """
        Its bytes, some rows at a time.

        Raises:
            InvalidArgument: A weight is too large for F16.
        """
        width = self.source.shape[-1] if self.source.shape else 1
        rows = max(1, STEP // max(1, width))
        for start in range(0, self.source.n_rows, rows):
            index = slice(start, start + rows)
            values = self.source.rows(index if self.order is None else self.order[index])
            yield self._encoded(values + np.float32(self.add) if self.add else values)

    def _encoded(self, values: NDArray[np.float32]) -> bytes:
        if self.type == "F16":
            with np.errstate(over="ignore"):
                half = values.astype(np.float16)
            if np.any(np.isinf(half) & np.isfinite(values)):
                largest = float(np.abs(values[np.isfinite(values)]).max())
                raise InvalidArgument(
                    f"tensor '{self.name}' has a weight of size {largest:.6g}, more than f16 holds (65504): "
                    "use --type bf16 or f32"
                )
            return half.tobytes()
        if self.type == "BF16":
            return f32_to_bf16(values).tobytes()
        if self.type == "Q8_0":
            return gguf.quants.quantize(values, TYPES["Q8_0"]).tobytes()
        return values.tobytes()


def plan(
    folder: Folder, family: Family, tensors: dict[str, Tensor], wanted: str, factors: hparams.Factors
) -> list[Planned]:
    """
    The tensors to write: those outside the layers, then layer by layer.

    Args:
        folder: The model folder.
        family: Its family.
        tensors: Its weights.
        wanted: The type of the matrices.
        factors: Rotary factors, from `hparams.write`.

    Raises:
        Unsupported: A tensor has no place in the family.
        FormatError: A tensor is missing or appears twice.
    """
    arch = getattr(gguf.MODEL_ARCH, family.arch)
    n_layer = folder.count("num_hidden_layers")
    table = gguf.get_tensor_name_map(arch, n_layer)
    heads = folder.count("num_attention_heads")
    heads_kv = folder.count("num_key_value_heads", default=heads)
    found: dict[str, Planned] = {}
    for name, tensor in tensors.items():
        plain = _plain_name(folder, family, name)
        if plain is None:
            continue
        target = table.get_name(plain, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise Unsupported(f"tensor '{name}' has no place in a {family.arch.lower()} model of {n_layer} layers")
        if target in found:
            raise FormatError(f"the tensors '{found[target].source.name}' and '{name}' are both GGUF's '{target}'")
        _check(tensor)
        order = None
        if family.permute and re.search(r"\.[qk]_proj\.(weight|bias)$", plain):
            order, tensor = _pairs(tensor, heads if ".q_proj." in plain else heads_kv)
        add = 1.0 if family.norm_plus_one and plain.endswith("norm.weight") else 0.0
        found[target] = Planned(target, _type(target, tensor, wanted), tensor, order, add)
    for key, values in factors.items():
        target = gguf.TENSOR_NAMES[key] + ".weight"
        found[target] = Planned(target, "F32", Tensor(target, "F32", values.shape, values))
    _check_complete(folder, family, found, n_layer)
    return sorted(found.values(), key=lambda planned: _layer(planned.name))


def _plain_name(folder: Folder, family: Family, name: str) -> str | None:
    """A tensor's name as the table has it; None for one that GGUF does not have."""
    if _SKIPPED.match(name):
        return None
    name = name.replace("language_model.", "")
    if family.encoder:
        name = name.removeprefix("bert.")
        if folder.architecture == "BertForSequenceClassification":
            name = _classifier(name)
        if name.startswith(_BERT_SKIPPED):
            return None
        return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
    if name == "lm_head.weight" and folder.config.get("tie_word_embeddings", family.tied):
        return None
    return name


def _classifier(name: str) -> str:
    """The pooler and what follows it: GGUF's dense layer with tanh and its output."""
    name = re.sub(r"^classifier\.(weight|bias)$", r"classifier.out_proj.\1", name)
    return re.sub(r"^pooler\.dense\.", "classifier.dense.", name)


def _check(tensor: Tensor) -> None:
    if tensor.dtype not in FLOATS:
        raise Unsupported(
            f"tensor '{tensor.name}' has the type {tensor.dtype}: the folder is quantized; use the one it was made from"
        )
    if not 1 <= len(tensor.shape) <= 4 or 0 in tensor.shape:
        raise FormatError(f"tensor '{tensor.name}' has the shape {list(tensor.shape)}")


def _pairs(tensor: Tensor, n_heads: int) -> tuple[NDArray[np.int64], Tensor]:
    """The order of rows that puts halves into pairs; a bias becomes a column so that its elements are rows."""
    rows = tensor.shape[0]
    if rows % (2 * n_heads):
        raise FormatError(f"tensor '{tensor.name}' has {rows} rows, which {n_heads} heads cannot share in halves")
    order = np.arange(rows).reshape(n_heads, 2, rows // n_heads // 2).swapaxes(1, 2).reshape(-1)
    if len(tensor.shape) == 1:
        return order, Tensor(tensor.name, tensor.dtype, (rows, 1), tensor.data)
    return order, tensor


def _type(name: str, tensor: Tensor, wanted: str) -> str:
    matrix = len(tensor.shape) > 1 and tensor.shape[-1] > 1
    if not matrix or name.endswith("_norm.weight") or not name.endswith(".weight") or name in _ALWAYS_F32:
        return "F32"
    if wanted == "Q8_0" and tensor.shape[-1] % 32:
        return "F16"
    return wanted


def _layer(name: str) -> int:
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else -1


def _check_complete(folder: Folder, family: Family, found: dict[str, Planned], n_layer: int) -> None:
    if "token_embd.weight" not in found:
        raise FormatError("the weights have no embedding of tokens")
    if not family.encoder:
        if "output_norm.weight" not in found:
            raise FormatError("the weights have no final norm: the folder is not complete")
        if "output.weight" not in found and not folder.config.get("tie_word_embeddings", family.tied):
            raise FormatError("the weights have no lm_head.weight, and config.json does not say tie_word_embeddings")
    layers = {re.sub(r"^blk\.0\.", "", name) for name in found if name.startswith("blk.0.")}
    for layer in range(n_layer):
        missing = [part for part in sorted(layers) if f"blk.{layer}.{part}" not in found]
        if missing or not layers:
            what = f"'{missing[0]}'" if missing else "any tensor"
            raise FormatError(f"layer {layer} of {n_layer} has not {what}: the folder is not complete")
