"""A byte-level vocabulary of 304 tokens: any text goes in and comes out, and chats render."""

from __future__ import annotations

from typing import Any

from edgellm.testing.gguf_writer import TYPE_I32, Arr

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Pairs in the order in which they are merged; every part is a byte or an earlier pair.
MERGES = (
    "Ġ t, h e, Ġ a, i n, r e, o n, Ġt he, e r, Ġ s, a t, Ġ w, n d, o u, Ġ c, e n, i s, i t, Ġ o, o r, Ġa nd, e s, "
    "Ġ b, a l, Ġ p, Ġ f, a n, a r, l l, Ġ in, o f, Ġ m, e d, Ġ h, l e, o m, Ġ is, Ġ n"
)
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_letters() -> list[str]:
    """The letter that stands for each byte in byte-level BPE. Source: Radford et al. 2019, encoder.py of GPT-2."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    moved = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(moved)) for b in range(256)]


def bpe_vocabulary() -> dict[str, Any]:
    """Tokenizer keys: 3 control tokens, 256 bytes, then one token per merge."""
    merges = MERGES.split(", ")
    tokens = [*CONTROL_TOKENS, *byte_letters(), *(m.replace(" ", "") for m in merges)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": Arr(TYPE_I32, [3] * 3 + [1] * (len(tokens) - 3)),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def dummy_vocabulary(n_vocab: int = 128) -> dict[str, Any]:
    """The dummy tokenizer: names, no text, nothing ends a generation."""
    return {
        "tokenizer.ggml.model": "test",
        "tokenizer.ggml.tokens": [f"tok_{i}" for i in range(n_vocab)],
        "tokenizer.ggml.token_type": Arr(TYPE_I32, [1] * n_vocab),
    }
