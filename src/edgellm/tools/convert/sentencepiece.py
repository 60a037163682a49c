"""
Reads a SentencePiece model: its pieces and the settings of its normalizer.

Source: sentencepiece_model.proto (field numbers) and the Protocol Buffers encoding. Only what GGUF takes is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from edgellm.errors import FormatError

BPE = 2  # trainer_spec.model_type; 1 is Unigram
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # the same numbers in GGUF


@dataclass
class Model:
    """
    What a SentencePiece file says.

    Attributes:
        pieces: Text, score and type of each token.
        model_type: BPE, or 1 for Unigram.
        special: Ids of "unk", "bos", "eos" and "pad"; -1: none.
        add_dummy_prefix: Text gets a space in front.
    """

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    model_type: int = 1
    special: dict[str, int] = field(default_factory=lambda: {"unk": 0, "bos": 1, "eos": 2, "pad": -1})
    add_dummy_prefix: bool = True


def parse(data: bytes) -> Model:
    """
    Read a model.

    Raises:
        FormatError: The bytes are not one.
    """
    model = Model()
    try:
        for number, value in _fields(data):
            if number == 1:
                model.pieces.append(_piece(value))
            elif number == 2:
                _trainer(value, model)
            elif number == 3:
                for inner, flag in _fields(value):
                    if inner == 3:
                        model.add_dummy_prefix = bool(flag)
    except (IndexError, struct.error, TypeError, UnicodeDecodeError, ValueError) as error:
        raise FormatError(f"tokenizer.model is not a SentencePiece model, or damaged: {error}") from None
    if not model.pieces:
        raise FormatError("tokenizer.model has no tokens: it is not a SentencePiece model, or damaged")
    return model


def _piece(data: bytes) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1:
            text = value.decode()
        elif number == 2:
            (score,) = struct.unpack("<f", value)
        elif number == 3:
            kind = value
    if not NORMAL <= kind <= BYTE:
        raise ValueError(f"a token has type {kind}")
    return text, score, kind


def _trainer(data: bytes, model: Model) -> None:
    names = {40: "unk", 41: "bos", 42: "eos", 43: "pad"}
    for number, value in _fields(data):
        if number == 3:
            model.model_type = value
        elif number in names:
            model.special[names[number]] = value - (1 << 64) if value >> 63 else value


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Field number and value: an int, or bytes for everything that has a length or is not an int."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        value: int | bytes
        if wire == 0:
            value, at = _varint(data, at)
        else:
            length, at = _varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire] if wire in (1, 5) else -1, at)
            if length < 0 or at + length > len(data):
                raise ValueError(f"a field of kind {wire} at byte {at} goes past the end")
            value, at = data[at : at + length], at + length
        yield tag >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise ValueError(f"a number at byte {at} has more than 10 bytes")
