"""
What can go wrong, as exceptions.

All share `EdgellmError`; each is also the built-in that fits, so that ``except ValueError`` and the like keep working.
The text is one sentence that names what is wrong, the value, the limit and what to do.
"""

# ruff: noqa: N818  # the names say what happened; half of them would not gain from "Error" at the end

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgellm.results import Completion


class EdgellmError(Exception):
    """Base of all errors that edgellm raises on purpose."""


class InvalidArgument(EdgellmError, ValueError):
    """The caller broke a rule of the function."""


class TemplateError(InvalidArgument):
    """A chat template is wrong, refuses the messages, or wants more than its limits."""


class ContextOverflow(EdgellmError, ValueError):
    """More tokens than the context holds; the text has both numbers. Nothing was computed."""


class OutOfMemory(EdgellmError, MemoryError):
    """Memory could not be had; everything is as before the call."""


class FileError(EdgellmError, OSError):
    """A file could not be opened or read."""


class FormatError(EdgellmError, ValueError):
    """The file is not GGUF, or is damaged."""


class Unsupported(EdgellmError, NotImplementedError):
    """The file or the request is sound but needs something edgellm lacks."""


class CacheFull(EdgellmError):
    """No free sequence or no free cache block: try again when another call has ended."""


class Cancelled(EdgellmError):
    """
    `LLM.cancel` was called.

    Attributes:
        partial: What a generation had by then, with ``finish_reason == "cancelled"``; None for other calls.
    """

    partial: Completion | None = None


class NumericError(EdgellmError, ArithmeticError):
    """The model produced NaN or infinity."""


class ClosedError(EdgellmError, ValueError):
    """The object was used after close()."""


class ModelNotFound(EdgellmError, LookupError):
    """Neither a file nor a model in the local store has that name."""
