"""Text to tokens and back, from the vocabulary of a GGUF file alone."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

from edgellm import _native
from edgellm.errors import InvalidArgument, Unsupported
from edgellm.sampling import shown


class Tokenizer:
    """
    The vocabulary of a GGUF file. Threads may share it.

    Args:
        path: The file, which may hold no tensors at all; or the name of a model in the store.

    Raises:
        ModelNotFound: The store has no model of that name.
        FileError, FormatError, Unsupported: The file cannot be read, is damaged, or has an unknown tokenizer.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            raise InvalidArgument(f"path is {shown(path)}; give a file, or the name of a model in the store")
        if isinstance(path, str) and not os.path.isfile(path):  # noqa: PTH113 - most are paths: no detour
            from edgellm.store.shelf import looks_like_path, resolve

            if path and "\0" not in path and not looks_like_path(path):
                path = resolve(path)
        self._vocab = _native.Vocab(path)

    @classmethod
    def _of(cls, vocab: _native.Vocab) -> Tokenizer:
        self = cls.__new__(cls)
        self._vocab = vocab
        return self

    def __enter__(self) -> Tokenizer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the vocabulary. Closing twice is fine; any other use then raises ClosedError."""
        self._vocab.close()

    def encode(self, text: str | bytes, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """
        Cut *text* into tokens.

        No text fails: bytes that are not UTF-8 become what the vocabulary has for them, and nothing where it lacks
        them, as SmolLM2's does.

        Args:
            text: Any length, also empty.
            add_special: Put the tokens around it that the file asks for, like a beginning-of-text token.
            parse_special: Text that spells a control token becomes that token. Leave it off for text of users.

        Raises:
            Unsupported: The vocabulary has no text, like the dummy tokenizer "test".
        """
        flags = _native.ADD_SPECIAL * add_special | _native.PARSE_SPECIAL * parse_special
        return self._vocab.tokenize(text, flags)

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> bytes:
        """
        Turn tokens back into bytes; cut in the middle of a character they are not valid UTF-8.

        Args:
            ids: Tokens.
            keep_special: Write control tokens out instead of dropping them.

        Raises:
            InvalidArgument: An id is outside the vocabulary.
            Unsupported: The vocabulary has no text.
        """
        return self._vocab.detokenize(ids, _native.KEEP_SPECIAL * keep_special)

    def decode_text(self, ids: Sequence[int], keep_special: bool = False) -> str:
        """Turn tokens into text; what is not UTF-8 becomes U+FFFD. Otherwise as `decode`."""
        return self.decode(ids, keep_special).decode("utf-8", "replace")

    def token(self, token_id: int) -> bytes:
        """
        The token as the file spells it.

        Raises:
            InvalidArgument: The id is outside the vocabulary.
        """
        return self._vocab.piece(token_id)

    def is_eog(self, token_id: int) -> bool:
        """Whether that token ends a generation."""
        return self._vocab.is_eog(token_id)

    def is_control(self, token_id: int) -> bool:
        """Whether that token is one that text only becomes with ``parse_special``."""
        return self._vocab.kind(token_id) in (_native.KIND_CONTROL, _native.KIND_UNKNOWN)

    @functools.cached_property
    def has_text(self) -> bool:
        """False for a vocabulary that only numbers its tokens, like the dummy tokenizer "test"."""
        try:
            self.decode([])
        except Unsupported:
            return False
        return True

    def has_spelling(self, token_id: int) -> bool:
        """Whether that token stands for text of its own, at most 1024 bytes: what token healing can take back."""
        if not 0 <= token_id < self.n_tokens or self.is_control(token_id):
            return False
        return self.has_text and 0 < len(self.token(token_id)) <= 1024

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return self._vocab.size()

    @property
    def bos(self) -> int | None:
        """Beginning of a text."""
        return self._vocab.special("bos")

    @property
    def eos(self) -> int | None:
        """End of a text."""
        return self._vocab.special("eos")

    @property
    def eot(self) -> int | None:
        """End of a turn."""
        return self._vocab.special("eot")

    @property
    def eom(self) -> int | None:
        """End of a message, where a tool is called."""
        return self._vocab.special("eom")

    @property
    def unk(self) -> int | None:
        """Stands for what the vocabulary lacks."""
        return self._vocab.special("unk")

    @property
    def sep(self) -> int | None:
        """Between two texts."""
        return self._vocab.special("sep")

    @property
    def pad(self) -> int | None:
        """Fills up."""
        return self._vocab.special("pad")

    @property
    def mask(self) -> int | None:
        """Stands for a hidden token."""
        return self._vocab.special("mask")

    @property
    def fim_pre(self) -> int | None:
        """Before the text in front of a gap."""
        return self._vocab.special("fim_pre")

    @property
    def fim_suf(self) -> int | None:
        """Before the text behind a gap."""
        return self._vocab.special("fim_suf")

    @property
    def fim_mid(self) -> int | None:
        """Before what fills a gap."""
        return self._vocab.special("fim_mid")

    @property
    def adds_bos(self) -> bool:
        """Whether the file asks for `bos` in front of a text."""
        return self._vocab.adds("bos")

    @property
    def adds_eos(self) -> bool:
        """Whether the file asks for `eos` after a text."""
        return self._vocab.adds("eos")

    @functools.cached_property
    def control_tokens(self) -> dict[str, int]:
        """Spellings that only control tokens have. Takes up to 0.2 s for a large vocabulary, once."""
        kinds = (_native.KIND_CONTROL, _native.KIND_UNKNOWN)
        spelled = (
            (token, self._vocab.piece(token)) for token in range(self.n_tokens) if self._vocab.kind(token) in kinds
        )
        return {piece.decode("utf-8", "replace"): token for token, piece in spelled if piece}
