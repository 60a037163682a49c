"""
Embeddings and reranking: texts through the model in shared steps, longest first, and what comes out as arrays.

An embedding engine is made when it is first wanted, one for each pooling; an encoder's LLM has no other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgellm import _native
from edgellm.chat import Guard, Span
from edgellm.errors import ContextOverflow, EdgellmError, InvalidArgument, Unsupported
from edgellm.generation import Core, close_all
from edgellm.results import RankedDocument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgellm.tokenizer import Tokenizer

MAX_TOKENS = 4096  # of one step, and so of one text where a model reads it at once
N_SEQS = 64  # texts in one step
RERANK_TEMPLATE = "tokenizer.chat_template.rerank"


class Embedder:
    """A core that computes embeddings with one pooling."""

    def __init__(
        self, model: _native.Model, tokenizer: Tokenizer, pooling: str, n_ctx: int, threads: int, rope: _native.Rope
    ) -> None:
        if model.info.has_encoder and model.info.gives_logits:
            raise Unsupported(
                f"{model.info.path.name} is a {model.info.architecture} model whose encoder works for its decoder: it "
                "gives no embeddings; use an embedding model (there are files with the encoder alone)"
            )
        self.model = model
        self.pooling = pooling if pooling != "model" else model.info.pooling or "mean"
        whole = not model.info.causal or self.pooling == "mean"
        n_ctx = n_ctx or min(model.info.n_ctx_train or MAX_TOKENS, MAX_TOKENS)
        engine = model.engine(
            n_ctx=n_ctx,
            n_seqs=N_SEQS,
            n_batch=min(MAX_TOKENS, max(512, n_ctx)) if whole else 512,
            n_threads=threads,
            kv_type="f32" if model.info.type in ("F32", "F16", "BF16") else "f16",
            pooling=pooling,
            rope=rope,
        )
        self.core = Core(engine, tokenizer)
        self.limit = min(self.core.info.n_ctx, self.core.info.n_batch) if whole else self.core.info.n_ctx

    def fitting(self, ids: list[int], number: int, truncate: bool) -> list[int]:
        """*ids* of text *number*, if they fit; with *truncate* as many as do, the last token kept."""
        if not ids:
            raise InvalidArgument(f"text {number} is empty and this vocabulary puts no token around it")
        if len(ids) <= self.limit:
            return ids
        if truncate:
            return [*ids[: self.limit - 1], ids[-1]]
        raise ContextOverflow(
            f"text {number} has {len(ids)} tokens, and this model takes {self.limit} at once; shorten it, "
            "or use truncate=True"
        )

    def run(self, texts: Sequence[Sequence[int]], seconds: Sequence[int] = ()) -> list[NDArray[np.float32]]:
        """
        Rows of each text: shape (1, width), or (tokens, width) with pooling "none". In the order of *texts*.

        *seconds*: where in each text its second part begins, for models that mark it.
        """
        import numpy as np

        results: list[NDArray[np.float32]] = [np.empty((0, 0), np.float32)] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        core = self.core
        epoch = core.epoch
        while order:
            with core.turns.turn():
                core.check(epoch)
                self._step(texts, seconds, order, results, epoch)
        return results

    def _step(
        self,
        texts: Sequence[Sequence[int]],
        seconds: Sequence[int],
        order: list[int],
        results: list[NDArray[np.float32]],
        epoch: int,
    ) -> None:
        """The longest texts that go into one step together; one that is longer than a step goes alone, in parts."""
        import numpy as np

        core, room = self.core, self.core.info.n_batch
        seqs: list[int] = []
        chosen: list[int] = []
        n_blocks = core.engine.info().n_blocks_free
        while order and len(chosen) < core.info.n_seqs:
            tokens = texts[order[0]]
            if chosen and (len(tokens) > room or (len(tokens) + 31) // 32 > n_blocks):
                break
            chosen.append(order.pop(0))
            room -= len(tokens)
            n_blocks -= (len(tokens) + 31) // 32
        try:
            seqs = [core.engine.open_seq() for _ in chosen]
            ids = [texts[i] for i in chosen]
            marks = [seconds[i] for i in chosen] if seconds else ()
            if len(ids) == 1:
                while len(ids[0]) > core.info.n_batch:
                    part, ids[0] = ids[0][: core.info.n_batch], ids[0][core.info.n_batch :]
                    core.step([(seqs[0], part, _native.OUT_ALL, False)], epoch, type_from=marks)
                    if self.pooling == "none":
                        results[chosen[0]] = np.concatenate(
                            [results[chosen[0]].reshape(-1, self._width()), self._rows(0)]
                        )
            items = [(seq, one, _native.OUT_ALL, False) for seq, one in zip(seqs, ids, strict=True)]
            core.step(items, epoch, type_from=marks)
            for number, which in enumerate(chosen):
                rows = self._rows(number)
                before = results[which]
                results[which] = np.concatenate([before, rows]) if self.pooling == "none" and before.size else rows
        finally:
            close_all(core, seqs)

    def _width(self) -> int:
        return self.core.engine.embeddings(0)[1]

    def _rows(self, number: int) -> NDArray[np.float32]:
        import numpy as np

        rows, width = self.core.engine.embeddings(number)
        block: NDArray[np.float32] = np.frombuffer(rows, np.float32).reshape(-1, width).copy()
        return block

    def close(self) -> None:
        """Give the engine back; calls under way end with ClosedError."""
        self.core.close()


def check_numpy() -> None:
    """Arrays need NumPy, which small installations leave out."""
    try:
        import numpy  # noqa: F401
    except ModuleNotFoundError:  # not an import that Ctrl-C cut short
        raise EdgellmError("embeddings are NumPy arrays; run: pip install numpy") from None


def finished(rows: NDArray[np.float32], normalize: bool, dimensions: int | None) -> NDArray[np.float32]:
    """The first *dimensions* of each row (Kusupati et al. 2022, Matryoshka), then to length 1."""
    import numpy as np

    if dimensions is not None:
        rows = rows[..., :dimensions]
    if normalize:
        rows = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.float32(1e-12))
    return np.ascontiguousarray(rows, np.float32)


def pair_tokens(tokenizer: Tokenizer, query: str, document: str, metadata: Mapping[str, Any]) -> tuple[list[int], int]:
    """
    What a reranker reads, and where in it the document begins.

    The file's own template, with {query} and {document}; else BERT's form, [CLS] query [SEP] document [SEP], or
    RoBERTa's, <s> query </s></s> document </s>.
    """
    if template := metadata.get(RERANK_TEMPLATE):
        return _from_template(tokenizer, str(template), query, document), 0
    end = tokenizer.sep if tokenizer.eos is None else tokenizer.eos
    after = [] if end is None else [end]
    first = [*([] if tokenizer.bos is None else [tokenizer.bos]), *tokenizer.encode(query), *after]
    if _separates_twice(tokenizer, metadata):
        first += after
    return [*first, *tokenizer.encode(document), *after], len(first)


def _from_template(tokenizer: Tokenizer, template: str, query: str, document: str) -> list[int]:
    """The template's control tokens count, those that the texts spell do not, as in a chat."""
    guard, texts = Guard(tokenizer), [query, document]
    marks: dict[str, str] = {}
    if guard.is_suspicious(texts):
        marks = guard.marks_for([*texts, template])
        texts = [guard.mark(text, marks) for text in texts]
    values = dict(zip(("{query}", "{document}"), texts, strict=True))
    text = re.sub("{query}|{document}", lambda match: values[match[0]], template)
    ids = [] if tokenizer.bos is None or not tokenizer.adds_bos else [tokenizer.bos]
    for span in guard.spans(text, marks) if marks else [Span(text, special=True)]:
        ids += tokenizer.encode(span.text, parse_special=span.special)
    return ids if tokenizer.eos is None or not tokenizer.adds_eos else [*ids, tokenizer.eos]


def _separates_twice(tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> bool:
    """
    Whether two texts have two separators between them.

    A WordPiece file's add_sep_token is about the end of one text. Others mean this by it; those made before it was
    written tell by the separator's spelling.
    """
    if metadata.get("tokenizer.ggml.model") == "bert" or tokenizer.sep is None:
        return False
    flag = metadata.get("tokenizer.ggml.add_sep_token")
    return tokenizer.token(tokenizer.sep) == b"</s>" if flag is None else bool(flag)


def ranked(scores: Sequence[float], documents: Sequence[str], top_n: int | None) -> list[RankedDocument]:
    """Best first; equal scores in the order of the documents."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return [RankedDocument(index=i, score=scores[i], document=documents[i]) for i in order[:top_n]]


def needs_text(model: _native.Model) -> None:
    """
    Refuse to generate with an encoder.

    Raises:
        Unsupported: It gives embeddings alone.
    """
    if not model.info.gives_logits:
        raise Unsupported(
            f"{model.info.path.name} is a {model.info.architecture} model: it gives embeddings, not text; "
            "use LLM.embed or edgellm embed"
        )


def needs_generation(model: _native.Model) -> None:
    """
    Refuse to generate with an encoder, or with a model whose tokens see those after them.

    Raises:
        Unsupported: It cannot continue a text token by token.
    """
    needs_text(model)
    if not model.info.causal:
        raise Unsupported(
            f"{model.info.path.name} is a {model.info.architecture} model: it fills in a whole text at once "
            "(diffusion), which this version cannot do; LLM.logits gives its scores"
        )
