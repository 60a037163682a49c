"""
edgellm: language models from GGUF files, inside your process, on any CPU.

    from edgellm import LLM

    with LLM("smollm2") as llm:
        print(llm.chat([{"role": "user", "content": "Why is the sky blue?"}])["choices"][0]["message"]["content"])

Importing this package loads nothing native and nothing heavy: each name below is fetched when it is first used.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # type checkers know the name; importing typing takes longer than the rest
if TYPE_CHECKING:
    from edgellm._native import inspect, system_info
    from edgellm.errors import (
        CacheFull,
        Cancelled,
        ClosedError,
        ContextOverflow,
        EdgellmError,
        FileError,
        FormatError,
        InvalidArgument,
        ModelNotFound,
        NumericError,
        OutOfMemory,
        TemplateError,
        Unsupported,
    )
    from edgellm.llm import LLM
    from edgellm.results import ChatCompletion, Chunk, Completion, ModelInfo, RankedDocument, Timings, TokenLogprob
    from edgellm.sampling import SamplingParams
    from edgellm.tokenizer import Tokenizer

__version__ = "0.1.0"  # as in include/edgellm.h; a test compares them, and loading the library does

_MODULES = {
    "_native": ("inspect", "system_info"),
    "errors": (
        "CacheFull",
        "Cancelled",
        "ClosedError",
        "ContextOverflow",
        "EdgellmError",
        "FileError",
        "FormatError",
        "InvalidArgument",
        "ModelNotFound",
        "NumericError",
        "OutOfMemory",
        "TemplateError",
        "Unsupported",
    ),
    "llm": ("LLM",),
    "results": ("ChatCompletion", "Chunk", "Completion", "ModelInfo", "RankedDocument", "Timings", "TokenLogprob"),
    "sampling": ("SamplingParams",),
    "tokenizer": ("Tokenizer",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [  # noqa: RUF022  # what most programs need stands first
    "LLM",
    "SamplingParams",
    "Tokenizer",
    "CacheFull",
    "Cancelled",
    "ChatCompletion",
    "Chunk",
    "ClosedError",
    "Completion",
    "ContextOverflow",
    "EdgellmError",
    "FileError",
    "FormatError",
    "InvalidArgument",
    "ModelInfo",
    "ModelNotFound",
    "NumericError",
    "OutOfMemory",
    "RankedDocument",
    "TemplateError",
    "Timings",
    "TokenLogprob",
    "Unsupported",
    "__version__",
    "inspect",
    "system_info",
]


def __getattr__(name: str) -> object:
    """Fetch a public name from its module (PEP 562)."""
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module 'edgellm' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"edgellm.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
