"""What a step has to read and to multiply at least: the bytes and multiply-adds that a share is a share of."""

from __future__ import annotations

from dataclasses import dataclass

from bench.gguf_header import Header, Tensor

# Families whose layers see a sliding window except every n-th one, where the file does not say how many.
WINDOW_PERIOD = {"gemma3": 6, "gemma2": 2}
KV_BYTES = 2  # f16


@dataclass(frozen=True, slots=True)
class Layer:
    """What attention of one layer needs to know. *window* 0: it sees everything."""

    n_head: int
    n_head_kv: int
    head_k: int
    head_v: int
    window: int

    def visible(self, position: int) -> int:
        """Positions a token at *position* attends to, itself included."""
        return min(position + 1, self.window) if self.window else position + 1


class Roofline:
    """Bytes and multiply-adds of one model's steps."""

    def __init__(self, header: Header) -> None:
        self.header = header
        names = {tensor.name for tensor in header.tensors}
        self.tied = "output.weight" not in names
        self.layers = _layers(header)
        self._expert_count = int(header.get("expert_count", 0) or 0)
        self._expert_used = int(header.get("expert_used_count", 0) or 0)

    def weight_bytes(self, n_tokens: int) -> int:
        """Every tensor a step of *n_tokens* uses, once; of the embedding a row a token, unless it is the head too."""
        return round(sum(self._tensor_bytes(tensor, n_tokens) for tensor in self.header.tensors))

    def kv_bytes(self, position: int) -> int:
        """Keys and values that a token at *position* sees."""
        return sum(
            layer.n_head_kv * (layer.head_k + layer.head_v) * KV_BYTES * layer.visible(position)
            for layer in self.layers
        )

    def decode_bytes(self, depth: int, steps: int, seqs: int = 1) -> float:
        """Bytes of one step, the mean over *steps* steps of one token in each of *seqs* sequences after *depth*."""
        kv = sum(self.kv_bytes(depth + i) for i in range(steps)) / max(steps, 1)
        return self.weight_bytes(seqs) + seqs * kv

    def linear_macs(self, n_tokens: int) -> float:
        """Multiply-adds with weights in a prompt of *n_tokens*, of which only the last wants logits."""
        total = 0.0
        for tensor in self.header.tensors:
            if not tensor.name.startswith("blk.") or len(tensor.shape) < 2:
                continue
            share = self._expert_used / self._expert_count if _is_expert(tensor) and self._expert_count else 1.0
            total += tensor.n_elements * share * n_tokens
        head = "token_embd.weight" if self.tied else "output.weight"
        return total + sum(tensor.n_elements for tensor in self.header.tensors if tensor.name == head)

    def attention_macs(self, n_tokens: int) -> float:
        """Multiply-adds of keys with queries and of values with weights, over the visible positions only."""
        return sum(
            layer.n_head * (layer.head_k + layer.head_v) * sum(layer.visible(i) for i in range(n_tokens))
            for layer in self.layers
        )

    def prefill_seconds(self, n_tokens: int, int8_per_second: float, f32_per_second: float) -> float:
        """The least time of a prompt: linear multiply-adds at the 8-bit peak, attention's at the float peak."""
        return self.linear_macs(n_tokens) / int8_per_second + self.attention_macs(n_tokens) / f32_per_second

    def _tensor_bytes(self, tensor: Tensor, n_tokens: int) -> float:
        if tensor.name == "token_embd.weight" and not self.tied:
            return n_tokens * tensor.n_bytes / tensor.shape[-1]
        if _is_expert(tensor) and self._expert_count:
            # Expected number of distinct experts when every token picks its own at random.
            missed = (1 - self._expert_used / self._expert_count) ** n_tokens
            return tensor.n_bytes * (1 - missed)
        return tensor.n_bytes


def _is_expert(tensor: Tensor) -> bool:
    return "_exps" in tensor.name


def _layers(header: Header) -> list[Layer]:
    n_layer = int(header.get("block_count", 0))
    window = int(header.get("attention.sliding_window", 0) or 0)
    pattern = header.get("attention.sliding_window_pattern")
    layers = []
    for i in range(n_layer):
        n_head = _of_layer(header.get("attention.head_count", 1), i)
        size = int(header.get("embedding_length", 0)) // max(n_head, 1)
        if isinstance(pattern, list):
            sees_window = bool(pattern[i % len(pattern)])
        else:
            period = int(pattern or WINDOW_PERIOD.get(header.architecture, 0))
            sees_window = period > 0 and (i + 1) % period != 0
        layers.append(
            Layer(
                n_head,
                _of_layer(header.get("attention.head_count_kv", n_head), i),
                int(header.get("attention.key_length", size)),
                int(header.get("attention.value_length", size)),
                window if sees_window else 0,
            )
        )
    return layers


def _of_layer(value: int | list[int], layer: int) -> int:
    return int(value[layer]) if isinstance(value, list) else int(value)
