"""
A folder's tokenizer as GGUF keys: byte-level BPE, SentencePiece-style BPE, and WordPiece.

Sources: the files as Hugging Face tokenizers and SentencePiece write them; which keys GGUF has and what their values
mean, from the `gguf` package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gguf

from edgellm.errors import FileError, FormatError, Unsupported
from edgellm.tools.convert import pretokenizers, sentencepiece
from edgellm.tools.convert.folder import Folder
from edgellm.tools.convert.sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

SPACE = "\u2581"  # what stands for a space in SentencePiece's pieces
_BERT_SPECIAL = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
_ADDED_SCORE, _PAD_SCORE = -1000.0, -10000.0


@dataclass
class Vocabulary:
    """
    Tokens as GGUF wants them: as many as the embedding has rows, those nobody names called ``[PAD0]`` and so on.

    Attributes:
        n_vocab: How many.
        model: tokenizer.ggml.model.
        pre: tokenizer.ggml.pre.
        has_scores: Whether it is a SentencePiece vocabulary.
        tokens: Text by id.
        types: Token types by id.
        scores: By id; empty without them.
        flags: Further boolean keys, by what follows ``tokenizer.ggml.``.
        special: Ids of special tokens, used where the folder's other files name none.
        beyond: Added tokens whose id the embedding does not have.
    """

    n_vocab: int
    model: str
    pre: str
    has_scores: bool = False
    flags: dict[str, bool] = field(default_factory=dict)
    special: dict[str, int] = field(default_factory=dict)
    beyond: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = [f"[PAD{i}]" for i in range(self.n_vocab)]
        self.types = [UNUSED] * self.n_vocab
        self.scores = [_PAD_SCORE] * self.n_vocab if self.has_scores else []

    def put(self, number: Any, text: Any, kind: int, score: float = 0.0) -> None:
        """
        Set a token.

        Raises:
            FormatError: It has no text, or an id that cannot be.
        """
        if type(number) is not int or not isinstance(text, str) or number < 0:
            raise FormatError(f"the tokenizer gives token {text!r} the id {number!r}")
        if number >= self.n_vocab:
            raise FormatError(
                f"the tokenizer gives token {text!r} the id {number}, the embedding has {self.n_vocab} rows"
            )
        self.tokens[number], self.types[number] = text, kind
        if self.has_scores:
            self.scores[number] = score


def write(
    folder: Folder, writer: gguf.GGUFWriter, n_vocab: int, warnings: list[str], *, word_piece: bool, pre: str | None
) -> str:
    """
    Add the keys of the folder's tokenizer.

    Args:
        folder: The model folder.
        writer: Where to.
        n_vocab: Rows of the embedding.
        warnings: Gets what is left out.
        word_piece: The model is a BERT.
        pre: A pre-tokenizer's name, instead of the one that is recognised.

    Returns:
        A few words on what was found.

    Raises:
        FileError, FormatError, Unsupported: There is no tokenizer, or none that GGUF can say.
    """
    vocabulary = _read(folder, n_vocab, word_piece, pre)
    if vocabulary.beyond:  # Gemma 3's tokenizer names images to models that see none
        first = vocabulary.beyond[0]
        warnings.append(f"tokens beyond the embedding are left out: {len(vocabulary.beyond)}, like {first!r}")
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.has_scores:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    for name, value in vocabulary.flags.items():
        writer.add_bool(f"tokenizer.ggml.{name}", value)
    special = gguf.SpecialVocab(folder.path, load_merges=vocabulary.model == "gpt2", n_vocab=n_vocab)
    if vocabulary.model == "gpt2" and not special.merges:
        raise FormatError("the tokenizer has no merges: neither in tokenizer.json nor in merges.txt")
    for name, number in vocabulary.special.items():
        if 0 <= number < n_vocab:
            special.special_token_ids.setdefault(name, number)
    special.special_token_ids.pop("cls", None)  # GGUF has no such key: a BERT's is its BOS
    if vocabulary.pre in pretokenizers.BOS_BY_DEFAULT:
        special.add_special_token.setdefault("bos", False)
    special.add_to_gguf(writer, quiet=True)
    return f"{vocabulary.model} ({vocabulary.pre}), {n_vocab} tokens"


def _read(folder: Folder, n_vocab: int, word_piece: bool, pre: str | None) -> Vocabulary:
    tokenizer = folder.json("tokenizer.json")
    if word_piece:
        return _word_piece(folder, n_vocab, tokenizer)
    if (folder.path / "tokenizer.model").is_file():
        return _sentencepiece(folder, n_vocab, tokenizer)
    if tokenizer is None:
        raise FileError(f"{folder.path} has no tokenizer: neither tokenizer.json nor tokenizer.model")
    model = tokenizer.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if kind != "BPE" or not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise Unsupported(f"tokenizer.json has a tokenizer of type {kind}; for this model convert reads BPE")
    if model.get("byte_fallback"):
        return _spm_from_json(folder, n_vocab, tokenizer)
    vocabulary = Vocabulary(n_vocab, "gpt2", pre or pretokenizers.recognise(tokenizer))
    for text, number in model["vocab"].items():
        vocabulary.put(number, text, NORMAL)
    _add_tokens(vocabulary, folder, tokenizer)
    return vocabulary


def looks_special(text: str) -> bool:
    """Whether a token is a control token by its looks: some folders do not mark theirs."""
    pairs = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
    return text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or any(
        text.startswith(left) and text.endswith(right) for left, right in pairs
    )


def _add_tokens(vocabulary: Vocabulary, folder: Folder, tokenizer: dict[str, Any] | None) -> None:
    """Tokens that were added to the trained ones, from every file that may name some."""
    added: dict[int, tuple[str, bool]] = {}
    for text, number in (folder.json("added_tokens.json") or {}).items():
        added[number] = (text, False)
    decoder = (folder.json("tokenizer_config.json") or {}).get("added_tokens_decoder") or {}
    entries = [{"id": number, **entry} for number, entry in decoder.items() if isinstance(entry, dict)]
    for entry in [*entries, *((tokenizer or {}).get("added_tokens") or [])]:
        if (
            not isinstance(entry, dict)
            or not str(entry.get("id")).isdecimal()
            or not isinstance(entry.get("content"), str)
        ):
            raise FormatError(f"the tokenizer has a damaged entry of an added token: {str(entry)[:100]}")
        added[int(entry["id"])] = (entry["content"], bool(entry.get("special")))
    for number, (text, special) in added.items():
        if special or looks_special(text):
            kind = CONTROL
        else:
            kind, text = USER_DEFINED, text.replace(SPACE, " ")  # these are matched in the text as it comes
        if type(number) is int and number >= vocabulary.n_vocab:
            vocabulary.beyond.append(text)
            continue
        if type(number) is int and vocabulary.types[number] == UNKNOWN:
            kind = UNKNOWN
        vocabulary.put(number, text, kind, _ADDED_SCORE)


def _sentencepiece(folder: Folder, n_vocab: int, tokenizer: dict[str, Any] | None) -> Vocabulary:
    model = sentencepiece.parse((folder.path / "tokenizer.model").read_bytes())
    if model.model_type != sentencepiece.BPE:
        raise Unsupported("tokenizer.model is a Unigram tokenizer; for this model convert reads BPE")
    vocabulary = Vocabulary(n_vocab, "llama", "default", has_scores=True, special=model.special)
    for number, (text, score, kind) in enumerate(model.pieces):
        vocabulary.put(number, text.replace(SPACE, " ") if kind == USER_DEFINED else text, kind, score)
    _add_tokens(vocabulary, folder, tokenizer)
    config = folder.json("tokenizer_config.json") or {}
    prefix = config.get("add_prefix_space")
    vocabulary.flags["add_space_prefix"] = prefix if isinstance(prefix, bool) else model.add_dummy_prefix
    return vocabulary


def _spm_from_json(folder: Folder, n_vocab: int, tokenizer: dict[str, Any]) -> Vocabulary:
    """
    A SentencePiece BPE that only tokenizer.json describes, with merges where the other has scores.

    A merge's rank is the score's rank: the pair whose result has the highest score goes first in both.
    """
    model = tokenizer["model"]
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model.get("merges") or []):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2:
            raise FormatError(f"tokenizer.json: merge {rank} is damaged: {str(merge)[:60]}")
        ranks.setdefault("".join(pair), rank)
    last = -float(len(ranks) + 1)
    vocabulary = Vocabulary(n_vocab, "llama", "default", has_scores=True)
    for text, number in model["vocab"].items():
        is_byte = len(text) == 6 and text.startswith("<0x") and text.endswith(">")
        kind = BYTE if is_byte else UNKNOWN if text == model.get("unk_token") else NORMAL
        vocabulary.put(number, text, kind, -float(ranks[text]) if text in ranks else 0.0 if kind != NORMAL else last)
    _add_tokens(vocabulary, folder, tokenizer)
    vocabulary.flags["add_space_prefix"] = _puts_space_first(tokenizer)
    return vocabulary


def _puts_space_first(tokenizer: dict[str, Any]) -> bool:
    def walk(step: Any) -> bool:
        if not isinstance(step, dict):
            return False
        parts = step.get("normalizers") or step.get("pretokenizers") or []
        if step.get("type") == "Prepend":
            return True
        if step.get("type") == "Metaspace":
            scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
            return bool(scheme != "never")
        return any(walk(part) for part in parts)

    return walk(tokenizer.get("normalizer")) or walk(tokenizer.get("pre_tokenizer"))


def _word_piece(folder: Folder, n_vocab: int, tokenizer: dict[str, Any] | None) -> Vocabulary:
    """WordPiece: GGUF marks the beginning of a word with U+2581 where BERT marks its continuation with ``##``."""
    vocabulary = Vocabulary(n_vocab, "bert", "bert-bge")
    names = _word_piece_names(folder, tokenizer)
    for text, number in names.items():
        vocabulary.put(number, text, NORMAL)
    config = folder.json("tokenizer_config.json") or {}
    _add_tokens(vocabulary, folder, tokenizer)
    for number, piece in enumerate(vocabulary.tokens):
        if piece in _BERT_SPECIAL.values():
            vocabulary.types[number] = CONTROL
        if vocabulary.types[number] != CONTROL:
            vocabulary.tokens[number] = piece[2:] if piece.startswith("##") else SPACE + piece
    vocabulary.special = {kind: names[text] for kind, text in _BERT_SPECIAL.items() if text in names}
    vocabulary.special |= {"bos": vocabulary.special.get("cls", -1), "eos": vocabulary.special.get("sep", -1)}
    _normalizer(vocabulary, config, tokenizer)
    return vocabulary


def _word_piece_names(folder: Folder, tokenizer: dict[str, Any] | None) -> dict[str, int]:
    model = (tokenizer or {}).get("model")
    if isinstance(model, dict):
        if model.get("type", "WordPiece") != "WordPiece" or not isinstance(model.get("vocab"), dict):
            raise Unsupported(f"tokenizer.json has a tokenizer of type {model.get('type')}; a BERT needs WordPiece")
        return dict(model["vocab"])
    file = folder.path / "vocab.txt"
    if not file.is_file():
        raise FileError(f"{folder.path} has no tokenizer: neither tokenizer.json nor vocab.txt")
    return {line: number for number, line in enumerate(file.read_text("utf-8").split("\n")) if line}


def _normalizer(vocabulary: Vocabulary, config: dict[str, Any], tokenizer: dict[str, Any] | None) -> None:
    """Keys for a vocabulary that keeps capitals; without them the runtime makes all letters small."""
    normalizer = (tokenizer or {}).get("normalizer") or {}
    lower = normalizer.get("lowercase", config.get("do_lower_case", True))
    strip = normalizer.get("strip_accents", config.get("strip_accents"))
    if lower is False:
        vocabulary.flags["normalizer.lowercase"] = False
    if isinstance(strip, bool) and strip != bool(lower):
        vocabulary.flags["normalizer.strip_accents"] = strip
