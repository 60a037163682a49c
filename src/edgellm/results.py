"""What calls return: plain data, detached from the engine, valid after close."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """
    What a model file says about itself.

    Attributes:
        path: The file (the first part of a split one).
        architecture: ``general.architecture``.
        type: The commonest weight type by bytes, like "Q4_K".
        n_vocab: Tokens in the vocabulary.
        n_ctx_train: Tokens the model was trained to attend to; 0 when the file does not say.
        n_embd: Width of a layer.
        n_layer: Number of layers.
        n_head: Query heads of the first layer.
        n_head_kv: Key and value heads of the first layer.
        n_expert: Experts per layer; 0: dense.
        n_params: Elements of all tensors.
        n_bytes: Bytes of all tensors.
        kv_bytes_per_token: Bytes a token takes in an f16 cache.
        gives_logits: False for an encoder, which gives embeddings alone.
        has_encoder: An encoder-decoder model: the prompt is a source text, and the answer a text of its own.
        decoder_start: The token such an answer begins with.
        causal: False when every token sees the whole text, which is then read in one step.
        n_embd_out: Width of an embedding.
        n_classes: Scores of the model's classifier; 0: it has none and cannot rank.
        pooling: How the file says that rows become one embedding ("mean", "cls", ...); None: it does not say.
    """

    path: Path
    architecture: str
    type: str
    n_vocab: int
    n_ctx_train: int
    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    n_expert: int
    n_params: int
    n_bytes: int
    kv_bytes_per_token: int
    gives_logits: bool
    has_encoder: bool
    decoder_start: int
    causal: bool
    n_embd_out: int
    n_classes: int
    pooling: str | None


@dataclass(frozen=True)
class RankedDocument:
    """
    A document and how well it answers.

    Attributes:
        index: Its place in the list that was ranked.
        score: The classifier's number; higher is better.
        document: Its text.
    """

    index: int
    score: float
    document: str


@dataclass(frozen=True, slots=True)
class Timings:
    """
    Where the time of one generation went. With several prompts in a call the times of each overlap.

    Attributes:
        queue_ms: From the call to its first step: waiting for other calls.
        prefill_ms: From there to the first token.
        decode_ms: From the first token to the last.
        first_token_ms: From the call to the first token.
        prefill_per_s: Prompt tokens per second of prefill; 0 when nothing was computed.
        decode_per_s: Tokens after the first per second of decode; 0 with fewer than two.
    """

    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    first_token_ms: float = 0.0
    prefill_per_s: float = 0.0
    decode_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """
    How likely a token was, by the model's own distribution (before temperature and filters).

    Attributes:
        token_id: The token.
        token: Its text; a piece of a character shows as U+FFFD.
        bytes: Its bytes.
        logprob: Natural logarithm of its probability.
        top: The most likely tokens at that place, most likely first; their own `top` is empty.
    """

    token_id: int
    token: str
    bytes: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """
    A finished generation.

    Attributes:
        text: What was written, without the stop string.
        token_ids: The tokens chosen, with the one that ended it.
        finish_reason: "stop" (an end token, stop token or stop string), "length" (`max_tokens`, or the context is
            full) or "cancelled".
        stop_reason: The stop string or stop token that ended it; None when the model itself did.
        n_prompt: Tokens of the prompt.
        n_generated: ``len(token_ids)``.
        timings: Where the time went.
        logprobs: One per token, when asked for.
        seed: The seed it drew with; the same seed, prompt and settings give the same tokens.
        truncated: Whether a part of the prompt was left out. Never without being asked for.
        dropped_tokens: How many tokens that were.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    stop_reason: str | int | None
    n_prompt: int
    n_generated: int
    timings: Timings
    logprobs: list[TokenLogprob] | None = None
    seed: int = 0
    truncated: bool = False
    dropped_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    A piece of a generation under way.

    Attributes:
        text: New text: whole characters, never a part of a stop string.
        token_ids: The tokens since the last chunk; their text may come later.
        finish_reason: None before the last chunk.
        logprobs: One per token, when asked for.
        completion: The whole, on the last chunk.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    logprobs: list[TokenLogprob] | None = None
    completion: Completion | None = None


class Usage(TypedDict):
    """Token counts as OpenAI's API names them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(TypedDict):
    """The answer to a chat, in the shape of OpenAI's API, plus `timings`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage
    timings: dict[str, float]
