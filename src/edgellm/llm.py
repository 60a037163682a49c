"""A model that answers."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args, overload

from edgellm import _native
from edgellm._turns import Turns
from edgellm.chat import ChatFormat
from edgellm.embedding import (
    Embedder,
    check_numpy,
    finished,
    needs_generation,
    needs_text,
    pair_tokens,
    ranked,
)
from edgellm.errors import Cancelled, ClosedError, ContextOverflow, EdgellmError, InvalidArgument
from edgellm.generation import Batch, Core, Run, compute_logits
from edgellm.results import ChatCompletion, Chunk, Completion, ModelInfo, RankedDocument, TokenLogprob
from edgellm.sampling import SamplingParams, as_number, shown
from edgellm.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KvType = Literal["f16", "f32", "q8_0"]
RopeScaling = Literal["model", "none", "linear", "yarn", "ntk", "dynamic"]
Pooling = Literal["none", "mean", "cls", "last"]
Message = Mapping[str, Any]
T = TypeVar("T")
MAX_LOGITS = 64 << 20  # bytes of logits in one step, when the caller leaves the choice to us
_DEFAULTS = SamplingParams()


class LLM:
    """
    A language model from a GGUF file. A context manager; nothing here uses the network.

    Threads may share it. Their calls take turns, step by step, in the order they ask; Ctrl-C ends a call within about
    50 ms, also while a prompt is read, and the LLM stays usable. A signal handler may call `cancel` and `close`; other
    calls raise EdgellmError where it has interrupted one. It cannot be used in a forked child.

    Args:
        model: A path to a .gguf file, or the name of a model in the local store.
        n_ctx: Tokens one sequence may hold; 0: what the model was trained for, as memory allows.
        threads: Threads to compute with, up to 256; 0: one per physical performance core we may use.
        kv_type: How the cache keeps keys and values: "f16", "f32" (exact, twice the size) or "q8_0" (half the size).
        seed: For calls that set none. None: a new one for each call, reported in `Completion.seed`.
        n_seqs: Sequences open at once, 1 to 256; fewer when the recurrent memory of so many would not fit.
        n_batch: Tokens in one step, at most 4096.
        rope_scaling: How to stretch the context instead of what the file says: "none", "linear", "yarn", "ntk",
            "dynamic". "model": as the file says, also for the numbers below where they are 0.
        rope_factor: How many times longer the context is to be, 0.001 to 10000.
        rope_base: Base of the angles, 1 to 1e15.
        rope_original_ctx: Tokens the model was trained for before stretching.

    Raises:
        ModelNotFound: Neither a file nor in the store.
        FileError, FormatError, Unsupported: The file cannot be read, is damaged, or holds a model edgellm lacks.
        InvalidArgument: A setting is outside its limits; the text names it.
        OutOfMemory: The cache does not fit.

    Attributes:
        info: What the file says about the model.
        n_ctx: Tokens one sequence may hold.
        threads: Threads in use.
        isa: Instruction set in use, like "avx2".
        tokenizer: The model's vocabulary.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        n_ctx: int = 0,
        threads: int = 0,
        kv_type: KvType = "f16",
        seed: int | None = None,
        n_seqs: int = 8,
        n_batch: int = 512,
        rope_scaling: RopeScaling = "model",
        rope_factor: float = 0.0,
        rope_base: float = 0.0,
        rope_original_ctx: int = 0,
    ) -> None:
        self._seed = SamplingParams(seed=seed).seed
        rope = _native.Rope(rope_scaling, rope_factor, rope_base, rope_original_ctx)
        path, self._name = _resolve(model)
        self._model = _native.Model(path)
        self._vocab = self._model.vocab()
        self._vocab.called = "LLM"
        self.info: ModelInfo = self._model.info
        self.tokenizer = Tokenizer._of(self._vocab)
        self._embedders: dict[str, Embedder] = {}
        self._adapters: list[tuple[_native.Adapter, float]] = []
        self._embedder_options = (n_ctx, threads, rope)
        self._making = Turns()
        try:
            if self.info.gives_logits:
                engine = self._model.engine(
                    n_ctx=n_ctx, n_seqs=n_seqs, n_batch=n_batch, n_threads=threads, kv_type=kv_type, rope=rope
                )
                self._core = Core(engine, self.tokenizer)
            else:
                self._core = self._embedder("model").core
        except EdgellmError:
            self._vocab.close()
            self._model.close()
            raise
        self.n_ctx: int = self._core.info.n_ctx
        self.threads: int = self._core.info.n_threads
        self.isa: str = self._core.info.isa

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._core.engine.closed else f"n_ctx={self.n_ctx}, threads={self.threads}"
        return f"<LLM {self._name}: {self.info.architecture} {self.info.type}, {state}>"

    def close(self) -> None:
        """Free everything. Closing twice is fine; any other use then raises ClosedError, also calls under way."""
        self._core.close()
        for embedder in list(self._embedders.values()):
            embedder.close()
        for adapter, _ in self._adapters:
            adapter.close()
        self._vocab.close()
        self._model.close()

    def cancel(self) -> None:
        """End all calls under way with Cancelled, from any thread. Calls that begin later are not touched."""
        self._check_open()
        self._core.cancel()
        for embedder in list(self._embedders.values()):
            embedder.core.cancel()

    def _check_open(self) -> None:
        if self._core.engine.closed:
            raise ClosedError("this LLM is closed")
        _ = self._core.engine.pointer  # raises in a forked child

    # ---- adapters ----------------------------------------------------------------------------------------------------

    @property
    def adapters(self) -> dict[Path, float]:
        """The LoRA adapters in use, with their scales."""
        return {adapter.path: scale for adapter, scale in self._adapters}

    def set_adapter(self, path: str | os.PathLike[str], scale: float = 1.0) -> None:
        """
        Use a LoRA adapter from the next call on, beside those in use, or change its scale.

        The model is not loaded again, and its file and memory stay as they are; other LLMs of the same file are not
        touched. Up to 8 at once.

        Args:
            path: A GGUF file with ``general.type`` "adapter", made for this model.
            scale: Strength; 1 is what it was trained with, negative turns it around, 0 leaves it out.

        Raises:
            FileError, FormatError: The file cannot be read or is damaged.
            InvalidArgument: It is for another model, or there are 8 already.
            EdgellmError: A call is under way: what it has in its cache would not fit.
        """
        self._check_open()
        if as_number(scale) is None:
            raise InvalidArgument(f"scale is {shown(scale)}; it must be a number")
        with self._making.turn():
            known = {adapter.path: adapter for adapter, _ in self._adapters}
            adapter = known.get(Path(path)) or _native.Adapter(self._model, path)
            changed = [(one, old) for one, old in self._adapters if one is not adapter]
            try:
                self._apply([*changed, (adapter, float(scale))])
            except BaseException:
                if Path(path) not in known:
                    adapter.close()
                raise

    def remove_adapter(self, path: str | os.PathLike[str]) -> None:
        """
        Stop using an adapter.

        Raises:
            InvalidArgument: It is not in use.
            EdgellmError: A call is under way.
        """
        self._check_open()
        with self._making.turn():
            gone = [adapter for adapter, _ in self._adapters if adapter.path == Path(path)]
            if not gone:
                raise InvalidArgument(f"the adapter {path} is not in use")
            self._apply([(one, scale) for one, scale in self._adapters if one is not gone[0]])
            gone[0].close()

    def _apply(self, adapters: list[tuple[_native.Adapter, float]]) -> None:
        """Use *adapters* everywhere or nowhere. The caller has the lock `_making`."""
        cores = [self._core, *(embedder.core for embedder in self._embedders.values())]
        with contextlib.ExitStack() as turns:
            for core in {id(core): core for core in cores}.values():  # an encoder's is both
                turns.enter_context(core.turns.turn())
            if any(core.room.busy for core in cores):
                raise EdgellmError("adapters can be changed when no call is under way; finish or close streams")
            for core in cores:
                core.engine.set_adapters(adapters)
        self._adapters = adapters

    # ---- text and tokens ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def metadata(self) -> dict[str, Any]:
        """The file's metadata; arrays of more than 16 items are cut, see `edgellm.inspect`."""
        found: dict[str, Any] = _native.inspect(self.info.path)["metadata"]
        return found

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """
        Cut *text* into tokens.

        Args:
            text: Any text.
            add_special: Put the tokens around it that the file asks for.
            parse_special: Text that spells a control token becomes that token. Leave it off for text of users.

        Raises:
            Unsupported: The vocabulary has no text.
        """
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """
        Turn tokens into text; what is not UTF-8 becomes U+FFFD.

        Args:
            ids: Tokens.
            keep_special: Write control tokens out instead of dropping them.

        Raises:
            InvalidArgument: An id is outside the vocabulary.
        """
        return self.tokenizer.decode_text(ids, keep_special=keep_special)

    @functools.cached_property
    def _chat_format(self) -> ChatFormat:
        return ChatFormat(self.tokenizer, self.metadata)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        template: str | None = None,
        tools: Sequence[Message] | None = None,
        **variables: Any,
    ) -> str:
        """
        The text that the chat template makes of *messages*.

        Args:
            messages: ``{"role", "content"}`` each, as in OpenAI's API.
            add_generation_prompt: End with the beginning of the assistant's answer.
            template: A named template of the file, one of ours ("chatml", "gemma", "llama3", "mistral", "phi3",
                "zephyr", "plain"), or Jinja text. None: the file's own, else the one of ours that fits.
            tools: Descriptions of functions, as in OpenAI's API.
            **variables: Given to the template, like ``enable_thinking=False``.

        Raises:
            InvalidArgument: Something is not a message, there is no such template, or it never reads the tools.
            TemplateError: The template is wrong, refuses these messages, or wants more than its limits.
        """
        self._check_open()
        return self._chat_format.render(
            messages, add_generation_prompt=add_generation_prompt, template=template, tools=tools, **variables
        )

    def _ids(self, prompt: str | bytes | Sequence[int]) -> list[int]:
        """The tokens of a prompt, checked against the context."""
        if isinstance(prompt, str) or _native.is_bytes(prompt):
            ids = self.tokenizer.encode(prompt, add_special=True)
            if prompt and not ids:
                raise InvalidArgument("the prompt gives no token: this vocabulary has none for the bytes in it")
            ends = self.tokenizer.adds_eos and ids and ids[-1] == self.tokenizer.eos
            if ends and not self.info.has_encoder:
                ids.pop()  # the text is to go on
        elif hasattr(prompt, "__len__") and not isinstance(prompt, Mapping):
            ids = _native.token_array(prompt).tolist()
        else:
            raise InvalidArgument(f"a prompt is text or a list of token ids, not {type(prompt).__name__}")
        return self._fitting(ids)

    def _fitting(self, ids: list[int]) -> list[int]:
        if not ids:
            raise InvalidArgument(
                "the prompt is empty and this vocabulary puts no token in front of a text; give at least one token"
            )
        if len(ids) > self.n_ctx:
            raise ContextOverflow(
                f"the prompt has {len(ids)} tokens, the context {self.n_ctx}; "
                f"shorten the prompt or use n_ctx={len(ids)} or more"
            )
        for place, token in enumerate(ids):
            if not 0 <= token < self.info.n_vocab:
                raise InvalidArgument(
                    f"token {place} of the prompt is {token}; the vocabulary goes from 0 to {self.info.n_vocab - 1}"
                )
        return ids

    # ---- generation --------------------------------------------------------------------------------------------------

    @overload
    def generate(self, prompt: str, params: SamplingParams | None = None, **overrides: Any) -> Completion: ...
    @overload
    def generate(self, prompt: Sequence[int], params: SamplingParams | None = None, **overrides: Any) -> Completion: ...
    @overload
    def generate(
        self, prompt: Sequence[str] | Sequence[Sequence[int]], params: SamplingParams | None = None, **overrides: Any
    ) -> list[Completion]: ...

    def generate(
        self, prompt: Any, params: SamplingParams | None = None, **overrides: Any
    ) -> Completion | list[Completion]:
        """
        Continue a prompt, or several in shared steps.

        Args:
            prompt: Text, token ids, or a list of either. In text, spellings of control tokens are plain text; an empty
                text stands for the beginning-of-text token, where the vocabulary has it put in front.
            params: How to choose tokens; None: the defaults.
            **overrides: Single settings of `SamplingParams`, like ``max_tokens=64``.

        Returns:
            One result, or a list of them in the order of the prompts. Prompt number i draws with the seed plus i.

        Raises:
            InvalidArgument: A prompt is empty, has an id outside the vocabulary, or a setting is wrong.
            ContextOverflow: A prompt is longer than `n_ctx`. Nothing was computed.
            CacheFull: The cache has no room, and no other call is about to give any back.
            Cancelled: `cancel` was called; ``error.partial`` has what there was of a single prompt.
        """
        self._check_open()
        chosen = _params(params, overrides)
        single, prompts = _as_list(prompt)
        seed = self._seed_for(chosen)
        runs = [
            _numbered(single, n, functools.partial(self._run, one, chosen, (seed + n) % (1 << 64)))
            for n, one in enumerate(prompts)
        ]
        with Batch(self._core, runs) as batch:
            try:
                while not batch.done:
                    batch.step()
            except Cancelled as error:
                error.partial = batch.partial()
                raise
            results = [run.completion(batch.asked) for run in runs]
        return results[0] if single else results

    def stream(
        self, prompt: str | Sequence[int], params: SamplingParams | None = None, **overrides: Any
    ) -> Iterator[Chunk]:
        """
        Continue a prompt and yield the text as it comes.

        Arguments and errors are those of `generate`, for one prompt; wrong arguments raise at once, not at the first
        chunk. Between two chunks nothing is held but the sequence, so other calls may run. Leaving the loop early gives
        the sequence back when the iterator is closed or collected.

        Returns:
            Chunks; the last one has `Chunk.completion`.
        """
        self._check_open()
        chosen = _params(params, overrides)
        return self._stream(self._run(prompt, chosen, self._seed_for(chosen)))

    def _run(self, prompt: str | Sequence[int], params: SamplingParams, seed: int) -> Run:
        """A prompt, without its last token if that is to be healed."""
        needs_generation(self._model)
        ids = self._ids(prompt)
        if self.info.has_encoder:
            return self._answer_to(ids, params, seed)
        if params.token_healing and len(ids) > 1 and self.tokenizer.has_spelling(ids[-1]):
            return Run(ids[:-1], params, seed, heal_token=ids[-1])
        return Run(ids, params, seed)

    def _answer_to(self, ids: list[int], params: SamplingParams, seed: int) -> Run:
        """All of a prompt; of an encoder-decoder model it is the source text."""
        if self.info.has_encoder:
            return Run([self.info.decoder_start], params, seed, source=ids)
        return Run(ids, params, seed)

    def _stream(self, run: Run) -> Iterator[Chunk]:
        with Batch(self._core, [run]) as batch:
            if run.finish:
                yield cast(Chunk, run.chunk(batch.asked))
            while not batch.done:
                try:
                    batch.step()
                except Cancelled as error:
                    error.partial = batch.partial()
                    raise
                chunk = run.chunk(batch.asked)
                if chunk is not None:
                    yield chunk

    def _seed_for(self, params: SamplingParams) -> int:
        if params.seed is not None:
            return params.seed
        return int.from_bytes(os.urandom(8), "little") if self._seed is None else self._seed

    # ---- chat --------------------------------------------------------------------------------------------------------

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: Literal[False] = False,
        template: str | None = None,
        tools: Sequence[Message] | None = None,
        template_args: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> ChatCompletion: ...
    @overload
    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: Literal[True],
        template: str | None = None,
        tools: Sequence[Message] | None = None,
        template_args: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Iterator[dict[str, Any]]: ...

    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: bool = False,
        template: str | None = None,
        tools: Sequence[Message] | None = None,
        template_args: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> ChatCompletion | Iterator[dict[str, Any]]:
        """
        Answer the last of *messages*.

        What users write never becomes a control token, whatever it spells.

        Args:
            messages: ``{"role", "content"}`` each, as in OpenAI's API.
            params: How to choose tokens; None: the defaults.
            stream: Yield ``chat.completion.chunk`` dicts as the text comes; the last has `usage` and `timings`.
            template: See `render`.
            tools: Descriptions of functions for the template, which has to read them; the answer is not parsed for
                calls.
            template_args: Variables for the template, like ``{"enable_thinking": False}``.
            **overrides: Single settings of `SamplingParams`.

        Returns:
            A dict in the shape of OpenAI's API, plus `timings`; or an iterator of chunks.

        Raises:
            InvalidArgument, TemplateError: See `render`.
            ContextOverflow, CacheFull, Cancelled: See `generate`.
        """
        self._check_open()
        chosen = _params(params, overrides)
        needs_generation(self._model)
        if template_args is not None and not isinstance(template_args, Mapping):
            raise InvalidArgument(f"template_args is {shown(template_args)}; it maps names of variables to values")
        if chosen.token_healing:
            raise InvalidArgument("token_healing is for prompts that end inside a word; a chat's prompt never does")
        ids = self._fitting(
            self._chat_format.encode(messages, template=template, tools=tools, **dict(template_args or {}))
        )
        run = self._answer_to(ids, chosen, self._seed_for(chosen))
        head = {"id": f"chatcmpl-{os.urandom(12).hex()}", "created": int(time.time()), "model": self._name}
        if stream:
            return self._chat_chunks(head, self._stream(run))
        done = self._last(self._stream(run))
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": done.text},
            "logprobs": _openai(done.logprobs),
            "finish_reason": done.finish_reason,
        }
        return cast(
            ChatCompletion, {**head, "object": "chat.completion", "choices": [choice], **_usage_and_timings(done)}
        )

    @staticmethod
    def _last(chunks: Iterator[Chunk]) -> Completion:
        for chunk in chunks:
            if chunk.completion is not None:
                return chunk.completion
        raise EdgellmError("the generation ended without a result; please report this")

    @staticmethod
    def _chat_chunks(head: Mapping[str, Any], chunks: Iterator[Chunk]) -> Iterator[dict[str, Any]]:
        def chunk_of(delta: Mapping[str, str], finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
            return {**head, "object": "chat.completion.chunk", "choices": [choice]}

        yield chunk_of({"role": "assistant", "content": ""})
        for chunk in chunks:
            if chunk.text or chunk.logprobs:
                yield chunk_of({"content": chunk.text}, None, _openai(chunk.logprobs))
            if chunk.completion is not None:
                yield chunk_of({}, chunk.finish_reason)
                yield {**chunk_of({}), "choices": [], **_usage_and_timings(chunk.completion)}

    # ---- logits ------------------------------------------------------------------------------------------------------

    @overload
    def logits(
        self, tokens: Sequence[int], *, chunk: int | None = None, source: Sequence[int] | None = None
    ) -> NDArray[np.float32]: ...
    @overload
    def logits(
        self,
        tokens: Sequence[Sequence[int]],
        *,
        chunk: int | None = None,
        source: Sequence[Sequence[int]] | None = None,
    ) -> list[NDArray[np.float32]]: ...

    def logits(
        self, tokens: Any, *, chunk: int | None = None, source: Any = None
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """
        Compute next-token scores after each of *tokens*, or of several sequences in shared steps.

        Args:
            tokens: Vocabulary ids, 1 to `n_ctx` of them; or a list of such lists.
            chunk: Tokens per step; changes speed and memory, not the result. None: up to `n_batch`, as long as a step's
                logits take at most 64 MB.
            source: Of an encoder-decoder model, what the encoder reads, in the shape of *tokens*; None: the same.

        Returns:
            Shape ``(len(tokens), n_vocab)``, float32, not normalised; or a list of such arrays. Copies: valid after
            close.

        Raises:
            InvalidArgument: *tokens* is empty or has an id outside the vocabulary, or *chunk* is less than 1.
            ContextOverflow: More tokens than `n_ctx`. Nothing was computed.
            CacheFull: The cache has no room, and no other call is about to give any back.
            Cancelled: `cancel` was called.
        """
        try:
            import numpy as np
        except ModuleNotFoundError:  # not an import that Ctrl-C cut short
            raise EdgellmError("logits() returns NumPy arrays; run: pip install numpy") from None
        self._check_open()
        needs_text(self._model)
        n_vocab = self.info.n_vocab
        if chunk is None:
            chunk = max(1, MAX_LOGITS // (4 * n_vocab))
        if not isinstance(chunk, int) or chunk < 1:
            raise InvalidArgument(f"chunk is {chunk!r}; it must be a whole number of at least 1")
        single, lists = _as_list(tokens)
        prompts = [_numbered(single, n, functools.partial(self._ids, one)) for n, one in enumerate(lists)]
        results = [np.empty((len(prompt), n_vocab), np.float32) for prompt in prompts]

        def keep(which: int, start: int, rows: memoryview) -> None:
            block = np.frombuffer(rows, np.float32).reshape(-1, n_vocab)
            results[which][start : start + len(block)] = block

        sources = None
        if self.info.has_encoder:
            sources = prompts if source is None else [self._ids(one) for one in ([source] if single else source)]
            if len(sources) != len(prompts):
                raise InvalidArgument(f"there are {len(sources)} sources for {len(prompts)} lists of tokens")
        elif source is not None:
            raise InvalidArgument(f"a {self.info.architecture} model has no encoder that could read a source")
        compute_logits(self._core, prompts, min(chunk, self._core.info.n_batch), keep, sources)
        return results[0] if single else results

    # ---- embeddings --------------------------------------------------------------------------------------------------

    def _embedder(self, pooling: str) -> Embedder:
        with self._making.turn():
            if pooling not in self._embedders:
                made = Embedder(self._model, self.tokenizer, pooling, *self._embedder_options)
                made.core.engine.set_adapters(self._adapters)
                self._embedders[pooling] = made
            return self._embedders[pooling]

    @overload
    def embed(
        self,
        texts: str,
        *,
        pooling: Pooling | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> NDArray[np.float32]: ...
    @overload
    def embed(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        *,
        pooling: Pooling | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]: ...

    def embed(
        self,
        texts: Any,
        *,
        pooling: Pooling | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """
        Turn texts into vectors whose angles say how near their meanings are.

        Texts share steps, the longest first; a text's vector does not depend on what else is in the call.

        Args:
            texts: A text, token ids, or a list of either.
            pooling: How rows become one vector: "mean", "cls" (the first token's), "last"; "none": one vector for each
                token. None: as the file says, "mean" when it does not.
            normalize: Scale each vector to length 1, so that a dot product is the cosine.
            dimensions: Keep only the first so many numbers, for models trained for that (Matryoshka).
            truncate: Cut texts that are too long instead of raising.

        Returns:
            Float32, shape ``(n_embd_out,)`` for one text, ``(len(texts), n_embd_out)`` for a list; with "none" an array
            ``(tokens, n_embd_out)`` for each text.

        Raises:
            Unsupported: It is an encoder-decoder model.
            InvalidArgument: A text is empty, or an option is wrong.
            ContextOverflow: A text has more tokens than the `n_ctx` the LLM was opened with (0: than the model was
                trained for), or than 4096, since all of it has to be in one step. Only a decoder with another pooling
                than "mean", opened with a larger `n_ctx`, reads longer texts, in parts. Nothing was computed.
            Cancelled: `cancel` was called.
        """
        check_numpy()
        import numpy as np

        self._check_open()
        if pooling is not None and pooling not in get_args(Pooling):
            raise InvalidArgument(f"pooling is {pooling!r}; it must be one of {', '.join(get_args(Pooling))}")
        width = self.info.n_embd_out
        if dimensions is not None and not (isinstance(as_number(dimensions), int) and 1 <= dimensions <= width):
            raise InvalidArgument(f"dimensions is {shown(dimensions)}; this model's embeddings have 1 to {width}")
        if not hasattr(texts, "__len__") or isinstance(texts, Mapping):
            raise InvalidArgument(f"texts is {shown(texts)}; give a text, token ids, or a list of either")
        single, many = (
            _as_list(texts) if len(texts) or isinstance(texts, str) or _native.is_bytes(texts) else (False, [])
        )
        embedder = self._embedder(pooling or "model")
        ids = [embedder.fitting(self._embedding_ids(one), number, truncate) for number, one in enumerate(many)]
        rows = [finished(one, normalize, dimensions) for one in embedder.run(ids)]
        if embedder.pooling == "none":
            return rows[0] if single else rows
        if single:
            vector: NDArray[np.float32] = rows[0][0]
            return vector
        return np.concatenate(rows) if rows else np.empty((0, dimensions or width), np.float32)

    def _embedding_ids(self, text: str | bytes | Sequence[int]) -> list[int]:
        if isinstance(text, str) or _native.is_bytes(text):
            return self.tokenizer.encode(text, add_special=True)
        return list(_native.token_array(text))

    def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, truncate: bool = False
    ) -> list[RankedDocument]:
        """
        Order *documents* by how well they answer *query*, with a reranker model.

        Args:
            query: A text.
            documents: Texts.
            top_n: Return only so many.
            truncate: Cut pairs that are too long instead of raising.

        Returns:
            The best first: `RankedDocument.index` is the place in *documents*, `RankedDocument.score` the classifier's
            first number, as it is (a logit for most models, a probability for Qwen 3).

        Raises:
            Unsupported: The model has no classifier.
            InvalidArgument, ContextOverflow, Cancelled: See `embed`.
        """
        check_numpy()
        self._check_open()
        if isinstance(documents, str):
            raise InvalidArgument("documents is one text; give a list of texts")
        embedder = self._embedder("rank")
        metadata = self.metadata
        pairs = [pair_tokens(self.tokenizer, query, one, metadata) for one in documents]
        ids = [embedder.fitting(pair, number, truncate) for number, (pair, _) in enumerate(pairs)]
        scores = embedder.run(ids, [second for _, second in pairs])
        return ranked([float(rows[0, 0]) for rows in scores], documents, top_n)


def _resolve(model: str | os.PathLike[str]) -> tuple[Path, str]:
    """The file of a model, and what to call it; the store is only looked at for what is no file."""
    if not isinstance(model, (str, os.PathLike)):
        raise InvalidArgument(f"model is {shown(model)}; give a file, or the name of a model in the store")
    path = Path(model)
    if path.is_file():
        return path, path.stem
    from edgellm import store

    found: Path = store.resolve(os.fspath(model))
    return found, os.fspath(model)


def _params(params: SamplingParams | None, overrides: Mapping[str, Any]) -> SamplingParams:
    if params is not None and not isinstance(params, SamplingParams):
        raise InvalidArgument(
            f"params is {shown(params)}; give SamplingParams, or settings by name, like temperature=0"
        )
    return (params or _DEFAULTS).with_overrides(overrides)


def _numbered(single: bool, number: int, make: Callable[[], T]) -> T:
    """What *make* makes of a prompt; an error says which one of a list it is about."""
    try:
        return make()
    except (InvalidArgument, ContextOverflow) as error:
        if single:
            raise
        raise type(error)(f"prompt {number} of the list: {error}") from None


def _as_list(prompt: Any) -> tuple[bool, list[Any]]:
    """Whether it is a single prompt, and the prompts."""
    if isinstance(prompt, str) or _native.is_bytes(prompt):
        return True, [prompt]
    ordered = hasattr(prompt, "__len__") and hasattr(prompt, "__getitem__") and not isinstance(prompt, Mapping)
    if not ordered or getattr(prompt, "shape", None) == ():  # a number of NumPy's
        raise InvalidArgument(f"a prompt is text or a list of token ids, not {type(prompt).__name__}")
    if len(prompt) and hasattr(prompt[0], "__len__"):
        return False, list(prompt)
    return True, [prompt]


def _openai(logprobs: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    """Log-probabilities in the shape of OpenAI's API."""
    if logprobs is None:
        return None

    def entry(item: TokenLogprob) -> dict[str, Any]:
        return {"token": item.token, "logprob": item.logprob, "bytes": list(item.bytes)}

    return {"content": [{**entry(item), "top_logprobs": [entry(top) for top in item.top]} for item in logprobs]}


def _usage_and_timings(done: Completion) -> dict[str, Any]:
    usage = {
        "prompt_tokens": done.n_prompt,
        "completion_tokens": done.n_generated,
        "total_tokens": done.n_prompt + done.n_generated,
    }
    return {"usage": usage, "timings": asdict(done.timings)}
