"""
The only module that touches the C library: one function or method per C call, no pointer leaves it.

The library is loaded on first use, by cffi or, where that is not installed, by ctypes (`_ctypes_ffi`). `Vocab`, `Model`
and `Engine` own one native object each; it is freed once, when the last use of it ends: a call under way in another
thread keeps its object alive after `close`.

One thread at a time may use an `Engine` (its own lock is the caller's business, see `edgellm.llm`), except for
`Engine.cancel`. Models and vocabularies may be shared.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import json
import os
import sys
import weakref
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from edgellm import __version__, errors
from edgellm.errors import ClosedError, EdgellmError, InvalidArgument, Unsupported
from edgellm.results import ModelInfo
from edgellm.sampling import SamplingParams, as_number, shown

ADD_SPECIAL, PARSE_SPECIAL, KEEP_SPECIAL = 1, 2, 4
OUT_NONE, OUT_LAST, OUT_ALL = 0, 1, 2
FINISH_NONE, FINISH_EOG, FINISH_STOP, FINISH_LENGTH = range(4)
ROLES = ("bos", "eos", "eot", "unk", "sep", "pad", "mask", "eom", "fim_pre", "fim_suf", "fim_mid")
KIND_NORMAL, KIND_CONTROL, KIND_USER, KIND_UNKNOWN, KIND_UNUSED, KIND_BYTE = range(6)
KV_TYPES = {"f16": 0, "f32": 1, "q8_0": 2}
ROPES = {"model": -1, "none": 0, "linear": 1, "yarn": 2, "ntk": 3, "dynamic": 4}
_LIMITS = {"n_ctx": (0, (1 << 31) - 1), "n_seqs": (1, 256), "n_batch": (1, 4096), "n_threads": (0, 256)}
POOLINGS = {"model": -1, "none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}  # "model": as the file says
SLICE_MS = 20  # of computing between two looks at signals: a fifth of what a person notices
_OK, _AGAIN = 0, 1
_ERRORS: dict[int, type[EdgellmError]] = {
    -1: errors.InvalidArgument,
    -2: errors.OutOfMemory,
    -3: errors.FileError,
    -4: errors.FormatError,
    -5: errors.Unsupported,
    -6: errors.CacheFull,
    -7: errors.Cancelled,
    -8: errors.ContextOverflow,
    -9: errors.NumericError,
}
_STRUCTS = (
    "model_info", "engine_options", "engine_info", "activations", "logit_bias", "text", "sampling", "sampled", "item",
)  # fmt: skip
_REINSTALL = "pip install --force-reinstall edgellm"


# ---- the library -----------------------------------------------------------------------------------------------------


def library_path() -> Path:
    """Where the library is: `EDGELLM_LIBRARY`, or the package's ``lib`` folder."""
    override = os.environ.get("EDGELLM_LIBRARY")
    if override:
        return Path(override)
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    return Path(__file__).parent / "lib" / f"libedgellm.{suffix}"


@functools.cache
def load() -> tuple[Any, Any]:
    """
    The library's ``(ffi, lib)``, loaded and checked once.

    Raises:
        EdgellmError: It is missing, or not the one these declarations were made for.
    """
    path = library_path()
    ffi = _binding()
    if not path.is_file():
        raise EdgellmError(f"the edgellm library is missing: {path}; run: {_REINSTALL}")
    try:
        lib = ffi.dlopen(str(path))
        _check_library(ffi, lib, path)
    except (OSError, AttributeError) as error:
        raise EdgellmError(f"the edgellm library cannot be loaded: {error}; run: {_REINSTALL}") from None
    os.register_at_fork(after_in_child=_after_fork) if hasattr(os, "register_at_fork") else None
    atexit.register(_close_all)
    return ffi, lib


def _binding() -> Any:
    """The binding: cffi where it is installed, ctypes elsewhere; EDGELLM_FFI names one."""
    choice = os.environ.get("EDGELLM_FFI", "")
    if choice not in ("", "cffi", "ctypes"):
        raise EdgellmError(f"EDGELLM_FFI is {choice!r}; it must be cffi or ctypes")
    try:
        if choice != "ctypes" and (choice == "cffi" or importlib.util.find_spec("_cffi_backend")):
            from edgellm._edgellm_ffi import ffi

            return ffi
        from edgellm import _ctypes_ffi
    except ImportError as error:
        raise EdgellmError(f"edgellm is not built completely ({error}); run: {_REINSTALL}") from None
    return _ctypes_ffi.ffi


def _check_library(ffi: Any, lib: Any, path: Path) -> None:
    version = ffi.string(lib.edgellm_version()).decode()
    if version != __version__:
        raise EdgellmError(f"{path} is edgellm {version}, this package is {__version__}; run: {_REINSTALL}")
    for name in (f"edgellm_{struct}" for struct in _STRUCTS):
        theirs, ours = lib.edgellm_struct_size(name.encode()), ffi.sizeof(name)
        if theirs != ours:
            raise EdgellmError(f"{path} has a {name} of {theirs} bytes, this package of {ours}; run: {_REINSTALL}")


def check(status: int) -> None:
    """Raise the exception for *status*, with the text the library wrote."""
    if status != _OK:
        ffi, lib = load()
        text = ffi.string(lib.edgellm_last_error()).decode("utf-8", "replace")
        pass_on_log()
        raise _ERRORS.get(status, EdgellmError)(text or f"edgellm failed with status {status}")


_LEVELS = {0: 100, 1: 40, 2: 30, 3: 20, 4: 10}  # ours: logging's
_log_level = 0


def follow_log_level() -> None:
    """Have the library keep the messages that ``logging.getLogger("edgellm")`` would show; none without logging."""
    global _log_level
    logging = sys.modules.get("logging")
    if logging is None:
        return  # nobody can have set up a handler, and importing it costs as much as the rest of edgellm
    logger = logging.getLogger("edgellm")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    wanted = max((ours for ours, theirs in _LEVELS.items() if ours and logger.isEnabledFor(theirs)), default=0)
    if not logger.hasHandlers() or all(isinstance(handler, logging.NullHandler) for handler in _handlers(logger)):
        wanted = 0
    if wanted != _log_level:
        load()[1].edgellm_log_set_level(wanted)
        _log_level = wanted


def _handlers(logger: Any) -> Iterable[Any]:
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def pass_on_log() -> None:
    """Hand the messages the library kept to ``logging.getLogger("edgellm")``."""
    if not _log_level:
        return
    ffi, lib = load()
    logger = sys.modules["logging"].getLogger("edgellm")
    text, level = ffi.new("char[]", 1024), ffi.new("int *")
    while lib.edgellm_log_take(text, 1024, level):
        logger.log(_LEVELS.get(level[0], 20), "%s", ffi.string(text).decode("utf-8", "replace"))


def system_info() -> dict[str, Any]:
    """What the library found: CPU, instruction sets, cores, affinity, quota, memory, default thread count."""
    ffi, lib = load()
    room = lib.edgellm_system_json(ffi.NULL, 0) + 1
    text = ffi.new("char[]", room)
    lib.edgellm_system_json(text, room)
    found: dict[str, Any] = json.loads(ffi.string(text))
    return found


def inspect(path: str | os.PathLike[str], max_array: int = 16) -> dict[str, Any]:
    """
    The header of a GGUF file as plain data.

    Args:
        path: The file.
        max_array: Arrays longer than this become ``{"items": [...], "count": n}``.

    Returns:
        ``{"version", "alignment", "metadata": {...}, "tensors": [{"name", "shape", "type", "offset", "n_bytes"}]}``.

    Raises:
        FileError, FormatError, Unsupported: The file cannot be read, or is damaged.
    """
    ffi, lib = load()
    out, size = ffi.new("char **"), ffi.new("size_t *")
    check(lib.edgellm_inspect(_path(path), max_array, out, size))
    try:
        found: dict[str, Any] = json.loads(bytes(ffi.buffer(out[0], size[0])))
    finally:
        lib.edgellm_free(out[0])
    return found


def _path(path: str | os.PathLike[str]) -> bytes:
    name = os.fsencode(path)
    if b"\0" in name:
        raise InvalidArgument(f"the path {os.fspath(path)!r} has a NUL character")
    return name


# ---- native objects --------------------------------------------------------------------------------------------------

_generation = 0  # of processes: a fork makes a new one, in which nothing opened before works
_engines_started = False
_handles: weakref.WeakSet[Handle] = weakref.WeakSet()


def _after_fork() -> None:
    global _generation
    _generation += 1


def _close_all() -> None:
    """Free in order before the interpreter takes modules apart."""
    for handle in sorted(_handles, key=lambda handle: not isinstance(handle, Engine)):
        with contextlib.suppress(KeyboardInterrupt):  # the process is ending already
            handle.close()


_interrupts: list[bool] = []  # Ctrl-C seen where it could not be passed on


def _pass_on_interrupt() -> None:
    if _interrupts:
        _interrupts.clear()
        raise KeyboardInterrupt


class Handle:
    """Owns one native object; freed once, by close(), ``with``, or collection."""

    called = ""  # by users, in messages; else the class's name

    def __init__(self, pointer: Any, free: Callable[[Any], None], parent: Any = None) -> None:
        generation = _generation

        def release(pointer: Any, parent: Any = parent) -> None:  # parent: what the object lives on, freed after it
            if generation != _generation:
                return  # in a forked child its threads are gone; memory goes with the process
            try:
                free(pointer)
            except KeyboardInterrupt:  # a Ctrl-C while that took its time: nobody could catch it from here
                _interrupts.append(True)

        self._pointer = load()[0].gc(pointer, release)
        self._generation = generation
        _handles.add(self)

    @property
    def pointer(self) -> Any:
        """The native object. Whoever holds it keeps it alive."""
        _pass_on_interrupt()
        pointer = self._pointer
        if pointer is None:
            raise ClosedError(f"this {self.called or type(self).__name__.lower()} is closed")
        if self._generation != _generation:
            raise EdgellmError(
                f"this {type(self).__name__.lower()} was opened before the process forked; open it in the child, "
                "started with multiprocessing's 'spawn' method"
            )
        return pointer

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._pointer is None

    def close(self) -> None:
        """Free it, as soon as no other thread is using it. Closing twice is fine."""
        self._pointer = None
        _pass_on_interrupt()

    def __reduce__(self) -> Any:
        raise Unsupported("an LLM or a Tokenizer cannot be pickled or copied: open it in each process that needs it")

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def token_array(tokens: Sequence[int]) -> array[int]:
    """
    *tokens* as C integers.

    Raises:
        InvalidArgument: One of them is not a whole number of 32 bits; the text names it.
    """
    try:
        if is_bytes(tokens):  # array() would take four of them for a token
            raise TypeError
        return array("i", tokens)
    except (TypeError, OverflowError):
        for place, token in enumerate(tokens if isinstance(tokens, Iterable) and not is_bytes(tokens) else ()):
            if not isinstance(as_number(token), int) or not -(1 << 31) <= token < 1 << 31:
                raise InvalidArgument(f"token {place} is {shown(token)}; token ids are whole numbers") from None
        raise InvalidArgument(f"tokens must be a list of token ids, not {type(tokens).__name__}") from None


def is_bytes(value: object) -> TypeGuard[bytes]:
    """Whether *value* is text as bytes: bytes, bytearray, or a memoryview of such, not one of numbers."""
    return isinstance(value, (bytes, bytearray)) or (isinstance(value, memoryview) and value.itemsize == 1)


def _encoded(text: str | bytes) -> bytes:
    if is_bytes(text):
        return bytes(text)
    if not isinstance(text, str):
        raise InvalidArgument(f"text must be str or bytes, not {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates: the bytes they stand for, if they came from the command line
        try:
            return text.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            return text.encode(errors="surrogatepass")


class Vocab(Handle):
    """A vocabulary; of a file, or of a model (which it then keeps open)."""

    def __init__(self, path: str | os.PathLike[str] | None = None, *, model: Model | None = None) -> None:
        ffi, lib = load()
        follow_log_level()
        if model is not None:
            super().__init__(lib.edgellm_model_vocab(model.pointer), lambda pointer: None, model.pointer)
            return
        assert path is not None
        out = ffi.new("edgellm_vocab **")
        check(lib.edgellm_vocab_open(out, _path(path)))
        super().__init__(out[0], lib.edgellm_vocab_free)
        pass_on_log()

    def size(self) -> int:
        """Number of tokens."""
        return int(load()[1].edgellm_vocab_size(self.pointer))

    def special(self, role: str) -> int | None:
        """The token with that role, if there is one."""
        token = load()[1].edgellm_vocab_special(self.pointer, ROLES.index(role))
        return token if token >= 0 else None

    def adds(self, role: str) -> bool:
        """Whether the file asks for that token around a text."""
        return bool(load()[1].edgellm_vocab_adds(self.pointer, ROLES.index(role)))

    def is_eog(self, token: int) -> bool:
        """Whether that token ends a generation."""
        return bool(load()[1].edgellm_vocab_is_eog(self.pointer, token))

    def kind(self, token: int) -> int:
        """KIND_*; -1 for an id outside the vocabulary."""
        return int(load()[1].edgellm_vocab_kind(self.pointer, token))

    def piece(self, token: int) -> bytes:
        """The token as the file spells it."""
        ffi, lib = load()
        vocab = self.pointer  # held while the bytes are copied
        out, size = ffi.new("const char **"), ffi.new("size_t *")
        check(lib.edgellm_vocab_piece(vocab, token, out, size))
        return bytes(ffi.buffer(out[0], size[0]))

    def tokenize(self, text: str | bytes, flags: int) -> list[int]:
        """The ids of *text*."""
        ffi, lib = load()
        data = _encoded(text)
        vocab = self.pointer
        n = ffi.new("size_t *")
        room = len(data) // 3 + 64  # most text takes fewer tokens; the second round knows
        while True:
            ids = ffi.new("int32_t[]", room)
            check(lib.edgellm_tokenize(vocab, data, len(data), flags, ids, room, n))
            if n[0] <= room:
                return list(ffi.unpack(ids, n[0])) if n[0] else []
            room = n[0]

    def detokenize(self, tokens: Sequence[int], flags: int) -> bytes:
        """The bytes of *tokens*."""
        ffi, lib = load()
        ids = token_array(tokens)
        vocab = self.pointer
        n = ffi.new("size_t *")
        room = 8 * len(ids) + 64
        while True:
            text = ffi.new("char[]", room)
            check(lib.edgellm_detokenize(vocab, ffi.from_buffer("int32_t[]", ids), len(ids), flags, text, room, n))
            if n[0] <= room:
                return bytes(ffi.buffer(text, n[0]))
            room = n[0]


class Model(Handle):
    """Mapped weights."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        ffi, lib = load()
        follow_log_level()
        out = ffi.new("edgellm_model **")
        check(lib.edgellm_model_open(out, _path(path)))
        super().__init__(out[0], lib.edgellm_model_free)
        self.info = self._read_info(Path(path))
        pass_on_log()

    def _read_info(self, path: Path) -> ModelInfo:
        ffi, lib = load()
        info = ffi.new("edgellm_model_info *", {"struct_size": ffi.sizeof("edgellm_model_info")})
        check(lib.edgellm_model_get_info(self.pointer, info))
        numbers = {
            name: getattr(info, name)
            for name in ModelInfo.__dataclass_fields__
            if name not in ("path", "architecture", "type", "gives_logits", "has_encoder", "causal", "pooling")
        }
        for name in ("gives_logits", "has_encoder", "causal"):
            numbers[name] = bool(getattr(info, name))
        names_of = {number: name for name, number in POOLINGS.items() if number >= 0}
        pooling = names_of.get(info.pooling)
        names = {name: ffi.string(getattr(info, name)).decode() for name in ("architecture", "type")}
        return ModelInfo(path=path, pooling=pooling, **names, **numbers)

    def vocab(self) -> Vocab:
        """The model's vocabulary."""
        return Vocab(model=self)

    def engine(
        self,
        *,
        n_ctx: int = 0,
        n_seqs: int = 8,
        n_batch: int = 512,
        n_threads: int = 0,
        kv_type: str = "f16",
        pooling: str | None = None,
        rope: Rope | None = None,
    ) -> Engine:
        """An engine for this model; 0 leaves a choice to the library. *pooling*: it computes embeddings (POOLINGS)."""
        return Engine(
            self,
            n_ctx=n_ctx,
            n_seqs=n_seqs,
            n_batch=n_batch,
            n_threads=n_threads,
            kv_type=kv_type,
            pooling=pooling,
            rope=rope,
        )


class Adapter(Handle):
    """A LoRA adapter of a model, mapped."""

    def __init__(self, model: Model, path: str | os.PathLike[str]) -> None:
        ffi, lib = load()
        out = ffi.new("edgellm_adapter **")
        check(lib.edgellm_adapter_open(out, model.pointer, _path(path)))
        super().__init__(out[0], lib.edgellm_adapter_free, model.pointer)
        self.path = Path(path)


class Rope(NamedTuple):
    """Settings of rope for an engine: one of ROPES, and numbers of which 0 leaves what the file says."""

    scaling: str = "model"
    factor: float = 0.0
    base: float = 0.0
    original_ctx: int = 0

    def checked(self) -> Rope:
        """
        The same, in numbers of Python.

        Raises:
            InvalidArgument: A setting is outside its limits; the text names it as LLM does.
        """
        if self.scaling not in tuple(ROPES):
            raise InvalidArgument(f"rope_scaling is {shown(self.scaling)}; it must be one of {', '.join(ROPES)}")
        found: dict[str, Any] = {}
        for name, low, high in (("factor", 0.001, 10000), ("base", 1, 1e15), ("original_ctx", 1, (1 << 31) - 1)):
            value = getattr(self, name)
            found[name] = number = as_number(value)
            whole = name == "original_ctx"
            if number is None or not (number == 0 or low <= number <= high) or (whole and not isinstance(number, int)):
                raise InvalidArgument(
                    f"rope_{name} is {shown(value)}; it must be a {'whole ' if whole else ''}number "
                    f"from {low:.10g} to {high:.10g}, or 0 for what the file says"
                )
        return self._replace(**found)


class EngineInfo(NamedTuple):
    """What an engine settled on, and what of it is free."""

    n_ctx: int
    n_seqs: int
    n_batch: int
    n_threads: int
    n_blocks: int
    n_blocks_free: int
    n_plans: int
    kv_bytes: int
    state_bytes: int
    scratch_bytes: int
    isa: str


class Activations(NamedTuple):
    """What went into the products with one tensor: float64 [n_matrices, n_in] and int64 [n_matrices], as bytes."""

    name: str
    n_in: int
    n_matrices: int
    sums: bytes
    rows: bytes


class Sampled(NamedTuple):
    """A chosen token; *logprob* and *top* only mean something when they were asked for."""

    token: int
    finish: int
    logprob: float
    top: list[tuple[int, float]]


Item = tuple[int, Sequence[int], int, bool]  # sequence, tokens to append, OUT_*, whether to choose a token


class Engine(Handle):
    """Cache, scratch memory and threads of a model. One thread at a time."""

    called = "LLM"  # what a call meets first when another thread closes that

    def __init__(self, model: Model, **options: Any) -> None:
        global _engines_started
        ffi, lib = load()
        if _engines_started and _generation:
            raise EdgellmError(
                "edgellm was already running when this process forked; start it with multiprocessing's 'spawn' method"
            )
        settings = ffi.new("edgellm_engine_options *")
        lib.edgellm_engine_options_init(settings)
        kv_type = options.pop("kv_type")
        if kv_type not in KV_TYPES:
            raise InvalidArgument(f"kv_type is {kv_type!r}; it must be one of {', '.join(KV_TYPES)}")
        settings.kv_type = KV_TYPES[kv_type]
        pooling = options.pop("pooling", None)
        if pooling is not None:
            if pooling not in POOLINGS:
                raise InvalidArgument(f"pooling is {pooling!r}; it must be one of {', '.join(POOLINGS)}")
            settings.embeddings = 1
            settings.pooling = POOLINGS[pooling]
        rope = options.pop("rope", None)
        if rope is not None:
            rope = rope.checked()
            settings.rope = ROPES[rope.scaling]
            settings.rope_factor, settings.rope_base = rope.factor, rope.base
            settings.rope_original_ctx = rope.original_ctx
        for name, value in options.items():
            low, high = _LIMITS.get(name, (0, (1 << 63) - 1))
            number = as_number(value)
            if not isinstance(number, int) or not low <= number <= high:
                name = "threads" if name == "n_threads" else name  # as LLM calls it
                raise InvalidArgument(f"{name} is {shown(value)}; it must be a whole number from {low} to {high}")
            setattr(settings, name, number)
        out = ffi.new("edgellm_engine **")
        check(lib.edgellm_engine_new(out, model.pointer, settings))
        _engines_started = True
        super().__init__(out[0], lib.edgellm_engine_free, model.pointer)
        self.n_vocab = model.info.n_vocab
        self._size = ffi.new("size_t *")
        pass_on_log()

    def info(self) -> EngineInfo:
        """What the engine settled on, now."""
        ffi, lib = load()
        info = ffi.new("edgellm_engine_info *", {"struct_size": ffi.sizeof("edgellm_engine_info")})
        check(lib.edgellm_engine_get_info(self.pointer, info))
        numbers = [getattr(info, name) for name in EngineInfo._fields if name != "isa"]
        return EngineInfo._make([*numbers, ffi.string(info.isa).decode()])

    def cancel(self) -> None:
        """Make the running step, or the next one, end with Cancelled. Any thread."""
        load()[1].edgellm_engine_cancel(self.pointer)

    def collect(self, on: bool) -> None:
        """Sum the squares of what goes into each product from now on, or stop. Abandons a step."""
        check(load()[1].edgellm_engine_collect(self.pointer, int(on)))

    def activations(self) -> list[Activations]:
        """What was collected, one entry for each tensor of weights."""
        ffi, lib = load()
        engine = self.pointer
        out = ffi.new("edgellm_activations *", {"struct_size": ffi.sizeof("edgellm_activations")})
        found: list[Activations] = []
        while True:
            check(lib.edgellm_engine_activations(engine, len(found), out))
            if out.name == ffi.NULL:
                return found
            n = out.n_matrices
            sums, rows = bytes(ffi.buffer(out.sums, 8 * n * out.n_in)), bytes(ffi.buffer(out.rows, 8 * n))
            found.append(Activations(ffi.string(out.name).decode(), out.n_in, n, sums, rows))

    def set_adapters(self, adapters: Sequence[tuple[Adapter, float]]) -> None:
        """What later steps apply, instead of what they did before."""
        ffi, lib = load()
        pointers = ffi.new("const edgellm_adapter *[]", [adapter.pointer for adapter, _ in adapters])
        scales = ffi.new("float[]", [scale for _, scale in adapters])
        check(lib.edgellm_engine_set_adapters(self.pointer, pointers, scales, len(adapters)))

    def open_seq(self) -> int:
        """A new, empty sequence."""
        ffi, lib = load()
        seq = ffi.new("int32_t *")
        check(lib.edgellm_seq_open(self.pointer, seq))
        return int(seq[0])

    def close_seq(self, seq: int) -> None:
        """Give a sequence back. Abandons a step that has not finished."""
        check(load()[1].edgellm_seq_close(self.pointer, seq))

    def length(self, seq: int) -> int:
        """Tokens computed."""
        return int(load()[1].edgellm_seq_length(self.pointer, seq))

    def truncate(self, seq: int, n_tokens: int) -> int:
        """
        Forget the tokens from *n_tokens* on. Abandons a step that has not finished.

        Returns:
            How many tokens are left: *n_tokens*, or fewer where the model cannot undo them and has no checkpoint there.
        """
        check(load()[1].edgellm_seq_truncate(self.pointer, seq, n_tokens))
        return self.length(seq)

    def checkpoint(self, seq: int) -> None:
        """Make the sequence's present length one that `truncate` can come back to, if it is not one anyhow."""
        check(load()[1].edgellm_seq_checkpoint(self.pointer, seq))

    def sample(self, seq: int, params: SamplingParams, seed: int, history: Sequence[int], heal_token: int = -1) -> None:
        """Start a generation on a sequence; *history* is what the penalties count from the start."""
        ffi, lib = load()
        settings = ffi.new("edgellm_sampling *")
        lib.edgellm_sampling_init(settings)
        for name in (
            "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty",
            "frequency_penalty", "penalty_last_n", "ignore_eog", "keep_special",
        ):  # fmt: skip
            setattr(settings, name, getattr(params, name))
        settings.seed = seed
        settings.heal_token = heal_token
        settings.n_logprobs = -1 if params.logprobs is None else params.logprobs
        settings.max_tokens = -1 if params.max_tokens is None else params.max_tokens
        bias = ffi.new(
            "edgellm_logit_bias[]", [(int(token), float(n)) for token, n in (params.logit_bias or {}).items()]
        )
        stop_tokens = token_array(params.stop_tokens or ())
        texts = [_encoded(text) for text in params.stop_strings]
        buffers = [ffi.from_buffer("char[]", text) for text in texts]  # the struct does not keep them alive
        stops = ffi.new("edgellm_text[]", [(data, len(text)) for data, text in zip(buffers, texts, strict=True)])
        settings.bias, settings.n_bias = bias, len(bias)
        stop_ids = ffi.from_buffer("int32_t[]", stop_tokens)
        settings.stop_tokens, settings.n_stop_tokens = stop_ids, len(stop_tokens)
        settings.stop_strings, settings.n_stop_strings = stops, len(stops)
        ids = token_array(history)
        check(lib.edgellm_seq_sample(self.pointer, seq, settings, ffi.from_buffer("int32_t[]", ids), len(ids)))

    def take_text(self, seq: int) -> str:
        """The text that is ready since the last time: whole characters."""
        ffi, lib = load()
        engine = self.pointer
        parts: list[bytes] = []
        text, n = ffi.new("char[]", 256), self._size
        while True:
            check(lib.edgellm_seq_take_text(engine, seq, text, 256, n))
            if n[0] == 0:
                return b"".join(parts).decode("utf-8", "replace")
            parts.append(bytes(ffi.buffer(text, n[0])))

    def begin(self, items: Sequence[Item], encode: bool = False, type_from: Sequence[int] = ()) -> None:
        """
        Prepare a step; on failure nothing has changed.

        Args:
            items: What each sequence computes.
            encode: The items are source texts for the encoder.
            type_from: Where each item's second text begins, 0 for none; empty: nowhere.
        """
        ffi, lib = load()
        natives = ffi.new("edgellm_item[]", len(items))
        keep = []
        for native, (seq, tokens, outputs, sample) in zip(natives, items, strict=True):
            ids = ffi.from_buffer("int32_t[]", token_array(tokens))
            keep.append(ids)
            native.seq, native.n_tokens, native.tokens = seq, len(ids), ids
            native.outputs, native.sample, native.encode = outputs, sample, encode
        for native, position in zip(natives, type_from, strict=False):
            native.type_from = position
        check(lib.edgellm_step_begin(self.pointer, natives, len(items)))

    def run(self, budget_ms: int = SLICE_MS) -> bool:
        """Compute for about that long; True when the step is done. After an error it is as if it had not begun."""
        status = load()[1].edgellm_step_run(self.pointer, budget_ms)
        if status == _AGAIN:
            return False
        check(status)
        return True

    def step(self, items: Sequence[Item]) -> None:
        """
        One whole step.

        Python runs every SLICE_MS in between, so Ctrl-C arrives; the step is then taken back by the next change of a
        sequence.
        """
        self.begin(items)
        while not self.run():
            pass

    def sampled(self, item: int) -> Sampled:
        """The token chosen for item number *item* of the last step."""
        ffi, lib = load()
        out = ffi.new("edgellm_sampled *")
        check(lib.edgellm_step_sampled(self.pointer, item, out))
        top = [(out.top_tokens[i], out.top_logprobs[i]) for i in range(out.n_top)]
        return Sampled(out.token, out.finish, out.logprob, top)

    def embeddings(self, item: int) -> tuple[memoryview, int]:
        """(rows of float32, their width) of item number *item* of the last step; the engine's until its next step."""
        ffi, lib = load()
        out, rows, width = ffi.new("const float **"), ffi.new("int32_t *"), ffi.new("int32_t *")
        check(lib.edgellm_step_embeddings(self.pointer, item, out, rows, width))
        return memoryview(ffi.buffer(out[0], rows[0] * width[0] * 4)), width[0]

    def logits(self, item: int) -> memoryview:
        """Logits of item number *item* of the last step: rows of n_vocab float32, the engine's until its next step."""
        ffi, lib = load()
        out, rows = ffi.new("const float **"), ffi.new("int32_t *")
        check(lib.edgellm_step_logits(self.pointer, item, out, rows))
        return memoryview(ffi.buffer(out[0], rows[0] * self.n_vocab * 4))
