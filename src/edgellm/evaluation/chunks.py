"""
A text cut into chunks of one context, and a model that reads them.

Chunks are those of llama.cpp's tools, so that figures compare: the text is tokenized whole, with what the vocabulary
puts around texts, and cut every n_ctx tokens; where the vocabulary begins texts with BOS, each chunk's first token is
replaced by it. The second half of a chunk is scored, so that every token has some text before it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgellm import _native
from edgellm.errors import FileError, InvalidArgument, Unsupported

Logits = NDArray[np.float32]
_LOGITS_BYTES = 64 << 20  # of one step


def read_text(path: Path) -> str:
    """
    A file of UTF-8 text, without a line end at its end.

    Raises:
        FileError: It cannot be read.
        InvalidArgument: It is not UTF-8.
    """
    try:
        return path.read_text("utf-8").removesuffix("\n")
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{path} is not UTF-8 text: byte {error.start}") from None


def needs_one_stack(model: _native.Model) -> None:
    """
    Refuse an encoder-decoder model where a text is read and continued by the same layers.

    Raises:
        Unsupported: It is one.
    """
    if model.info.has_encoder:
        raise Unsupported(
            f"a {model.info.architecture} model answers one text with another, so it cannot be measured on a text alone"
        )


class Reader:
    """
    A model with one sequence, for chunks of one length.

    Args:
        path: The model.
        n_ctx: Tokens of a chunk.
        threads: To compute with; 0: the library's choice.

    Raises:
        InvalidArgument: *n_ctx* is less than 8.
        Unsupported: The model gives embeddings alone, or has an encoder beside its decoder.
    """

    def __init__(self, path: str | os.PathLike[str], n_ctx: int, threads: int = 0) -> None:
        if n_ctx < 8:
            raise InvalidArgument(f"a context of {n_ctx} tokens scores next to nothing: use at least 8")
        self.n_ctx = n_ctx
        self.model = _native.Model(path)
        needs_one_stack(self.model)
        self.n_vocab = self.model.info.n_vocab
        self.vocab = self.model.vocab()
        self.engine = self.model.engine(n_ctx=n_ctx, n_seqs=1, n_batch=min(512, n_ctx), n_threads=threads)
        self._seq = self.engine.open_seq()
        self._rows = max(16, min(128, _LOGITS_BYTES // (4 * self.n_vocab)))

    def chunks(self, text: str, limit: int | None = None) -> list[list[int]]:
        """
        *text* as chunks of n_ctx tokens, at most *limit* of them; what is left over is not used.

        Raises:
            InvalidArgument: The text is too short for one.
        """
        tokens = self.vocab.tokenize(text, _native.ADD_SPECIAL)
        count = len(tokens) // self.n_ctx
        if count == 0:
            raise InvalidArgument(f"the text has {len(tokens)} tokens, one chunk takes {self.n_ctx}: use a longer one")
        count = count if limit is None else min(count, limit)
        return [tokens[i * self.n_ctx : (i + 1) * self.n_ctx] for i in range(count)]

    def _begin(self, chunk: Sequence[int]) -> list[int]:
        self.engine.truncate(self._seq, 0)
        bos = self.vocab.special("bos")
        return [bos, *chunk[1:]] if self.vocab.adds("bos") and bos is not None else list(chunk)

    def scored(self, chunk: Sequence[int]) -> Iterator[tuple[Logits, NDArray[np.int64]]]:
        """
        Logits of the second half, in pieces.

        Yields:
            float32 [n, n_vocab], valid until the next piece, and the tokens that follow: int64 [n].
        """
        tokens, first, end = self._begin(chunk), self.n_ctx // 2, self.n_ctx - 1
        for at in range(0, first, 512):
            self.engine.step([(self._seq, tokens[at : min(first, at + 512)], _native.OUT_NONE, False)])
        for at in range(first, end, self._rows):
            part = tokens[at : min(end, at + self._rows)]
            self.engine.step([(self._seq, part, _native.OUT_ALL, False)])
            rows = np.frombuffer(self.engine.logits(0), np.float32).reshape(len(part), self.n_vocab)
            yield rows, np.array(chunk[at + 1 : at + 1 + len(part)], np.int64)

    def read(self, chunk: Sequence[int]) -> None:
        """Compute a whole chunk, every row through every layer."""
        tokens = self._begin(chunk)
        for at in range(0, len(tokens), self._rows):
            self.engine.step([(self._seq, tokens[at : at + self._rows], _native.OUT_ALL, False)])

    def close(self) -> None:
        """Free the model."""
        for handle in (self.engine, self.vocab, self.model):
            handle.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
