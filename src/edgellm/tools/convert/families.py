"""
The model families that can be converted, and how each differs from the plain case.

Source: the published model code (Hugging Face transformers) for what the weights mean; llama.cpp's reading of the
keys for how GGUF says it.
"""

from __future__ import annotations

from dataclasses import dataclass

SILU = ("silu", "swish")
GELU_TANH = ("gelu_pytorch_tanh", "gelu")  # Gemma 1's first folders say "gelu" and mean this one


@dataclass(frozen=True)
class Family:
    """
    What makes a family differ.

    Attributes:
        arch: Its name in the `gguf` package's tables.
        activations: Values of hidden_act that are what the runtime computes.
        permute: Rows of q and k are put from rotary halves into rotary pairs.
        norm_plus_one: Norms are stored minus 1.
        tied: Whether the output is the embedding when config.json does not say.
        head_dim: Width of a head when config.json does not say; 0: hidden_size / heads.
        vocab_size: The key vocab_size is written.
        rope_dims: The key rope.dimension_count is written.
        sliding_window: The key attention.sliding_window is written.
        softcaps: The keys of the soft caps are written.
        encoder: A BERT: no causal mask, layer norms, pooling.
    """

    arch: str
    activations: tuple[str, ...] = SILU
    permute: bool = False
    norm_plus_one: bool = False
    tied: bool = False
    head_dim: int = 0
    vocab_size: bool = False
    rope_dims: bool = False
    sliding_window: bool = False
    softcaps: bool = False
    encoder: bool = False


_LLAMA = Family("LLAMA", permute=True, vocab_size=True, rope_dims=True)
_GEMMA = Family("GEMMA", activations=GELU_TANH, norm_plus_one=True, tied=True, head_dim=256)
_GEMMA2 = Family("GEMMA2", GELU_TANH, False, True, True, 256, sliding_window=True, softcaps=True)
_GEMMA3 = Family("GEMMA3", GELU_TANH, False, True, True, 256, sliding_window=True, softcaps=True)
_BERT = Family("BERT", ("gelu",), encoder=True)

FAMILIES = {
    "LlamaForCausalLM": _LLAMA,
    "LLaMAForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "SmolLM3ForCausalLM": Family("SMOLLM3", permute=True, vocab_size=True, rope_dims=True, tied=True),
    "Qwen2ForCausalLM": Family("QWEN2"),
    "Qwen3ForCausalLM": Family("QWEN3"),
    "GemmaForCausalLM": _GEMMA,
    "Gemma2ForCausalLM": _GEMMA2,
    "Gemma3ForCausalLM": _GEMMA3,
    "Gemma3ForConditionalGeneration": _GEMMA3,
    "Phi3ForCausalLM": Family("PHI3", rope_dims=True, sliding_window=True),
    "BertModel": _BERT,
    "BertForMaskedLM": _BERT,
    "BertForSequenceClassification": _BERT,
}
