"""
What can be wrong with a model of a family: the cases of family_damage.py, which runs them.

A case is a tiny model with one thing changed, or a few: a tensor taken out, of another shape or type, one too many; a
number of the metadata that no real file has; and sizes that file and weights agree on but that no kernel was made for,
which is what reaches the deepest.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edgellm.testing as tiny
from edgellm.testing.families import SHAPES, sizes, tensor_shapes
from edgellm.testing.gguf_writer import (
    F32,
    F64,
    I32,
    TYPE_F32,
    TYPE_I32,
    TYPE_STR,
    U64,
    Arr,
    Bool,
    Str,
    Tensor,
    tensor,
)  # fmt: skip
from edgellm.testing.table import FAMILIES
from edgellm.testing.vocabulary import dummy_vocabulary

ROOT = Path(__file__).parents[2]
# Elements and bytes of a block, by number of the type: the sources in gguf_writer.py, and types that do not exist.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 9: (32, 36), 12: (256, 144), 15: (256, 292),
    16: (256, 66), 19: (256, 50), 20: (32, 18), 23: (256, 136), 24: (1, 1), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36),
}  # fmt: skip
NO_TYPES = (4, 31, 36, 41, 100, 2**31, 2**32 - 1)

Keys = dict[str, Any]
Tensors = dict[str, Any]
Content = tuple[Keys, Tensors]


@dataclass(frozen=True)
class Case:
    """A change by name; *make* gets copies of the sound model's metadata and tensors, and gives what is written."""

    name: str
    make: Callable[[Keys, Tensors], Content]


# ---- models -----------------------------------------------------------------------------------


def content(arch: str, n_layer: int | None = None, weight_type: str = "Q8_0", **overrides: int) -> Content:
    """Metadata and tensors of a tiny model, every kind of its layers in it."""
    family = FAMILIES[arch]
    n = n_layer or max(2, len(family.layers))
    vocabulary = dummy_vocabulary()
    known = sizes(family, len(vocabulary["tokenizer.ggml.tokens"]), n, overrides)
    keys = tiny._keys(arch, family, known, n) | vocabulary
    values = np.random.default_rng(1)
    tensors = {
        name: tiny._stored(name, tiny._random(name, shape, values), weight_type)
        for name, shape in tiny._shapes(family, known, n)
    }
    return {key: value for key, value in keys.items() if value is not None}, tensors


def raw(shape: Sequence[int], kind: int) -> Tensor:
    """Small numbers of that type; of a shape whose rows are no whole blocks, of an unknown type or a huge one: some."""
    per, n_bytes = BLOCKS.get(kind, (1, 1))
    size = min(max(0, math.prod(shape)), 1 << 20)
    return Tensor(tuple(shape), kind, bytes((size // per + 1) * n_bytes if size % per else size // per * n_bytes))


# ---- cases: tensors ---------------------------------------------------------------------------


def _without(name: str) -> Callable[[Keys, Tensors], Content]:
    return lambda keys, tensors: (keys, {key: value for key, value in tensors.items() if key != name})


def _with(name: str, shape: Sequence[int], kind: int) -> Callable[[Keys, Tensors], Content]:
    return lambda keys, tensors: (keys, {**tensors, name: raw(shape, kind)})  # made when it is written: some are large


def other_shapes(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """As NumPy has them, slowest first."""
    first, last = shape[0], shape[-1]
    yield shape[::-1]
    yield (*shape[:-1], last + 1)
    yield (*shape[:-1], last - 1)
    yield (*shape[:-1], last + 32)
    yield (*shape[:-1], last * 2)
    yield (*shape[:-1], max(1, last // 2))
    yield (first + 1, *shape[1:])
    yield (first - 1, *shape[1:])
    yield (first * 2, *shape[1:])
    yield (max(1, first // 2), *shape[1:])
    yield (math.prod(shape),)
    yield (1,)
    yield (2, *shape)
    yield (1, 1, *shape)
    yield (0, *shape[1:])
    yield (*shape[:-1], 0)
    yield (*shape[:-1], 1)
    yield (1, *shape[1:])
    yield (*shape[:-1], 2**31)
    yield (2**40, *shape[1:])
    yield (2**33, 2**31)
    yield (2, 2, 2, 2)


def tensor_cases(arch: str) -> Iterator[Case]:
    """Each tensor taken out, of other shapes and types."""
    for name, stored in content(arch)[1].items():
        sound = tensor(stored)
        yield Case(f"remove:{name}", _without(name))
        for shape in other_shapes(sound.shape):
            if shape != sound.shape:
                yield Case(f"shape:{name}:{'x'.join(map(str, shape))}", _with(name, shape, sound.type))
                yield Case(f"shape:{name}:{'x'.join(map(str, shape))}:f32", _with(name, shape, 0))
        for kind in (*BLOCKS, *NO_TYPES):
            if kind != sound.type:
                yield Case(f"type:{name}:{kind}", _with(name, sound.shape, kind))


def more_tensors(arch: str) -> Iterator[Case]:
    """One more tensor: of those that other families have, biases, scales and tables that some files have."""
    keys, tensors = content(arch)
    family = FAMILIES[arch]
    known = sizes(family, 128, keys[f"{arch}.block_count"], {})
    prefixes = ["", "blk.0.", "blk.1.", *(f"{stack}0." for stack in family.stacks)]
    plain = {name: shape for word in SHAPES for name, shape in tensor_shapes(word, "", known)}
    for prefix in prefixes:
        for name, shape in plain.items():
            if prefix + name not in tensors:
                yield Case(f"more:{prefix}{name}", _with(prefix + name, shape[::-1], 0))
    for name, stored in tensors.items():
        if name.endswith(".weight"):
            shape = tensor(stored).shape
            for part in ("bias", "scale"):
                other = f"{name.removesuffix('weight')}{part}"
                for wanted in (shape[:-1] or shape, (1,), (known["expert"],), shape):
                    if other not in tensors:
                        yield Case(f"more:{other}:{'x'.join(map(str, wanted))}", _with(other, wanted, 0))
    for name in ("rope_freqs", "rope_factors_long", "rope_factors_short", "position_embd", "token_types", "cls",
                 "cls.output", "output", "cls.norm", "dense_2", "dense_3"):  # fmt: skip
        for prefix in ("", "blk.0."):
            for wanted in ((8,), (16,), (3,), (1,), (known["embd"], known["embd"]), (1, known["embd"]), (700,)):
                yield Case(
                    f"more:{prefix}{name}.weight:{'x'.join(map(str, wanted))}",
                    _with(f"{prefix}{name}.weight", wanted, 0),
                )


# ---- cases: numbers ---------------------------------------------------------------------------

INTEGERS = (0, 1, 2, 3, 7, 31, 33, 100, 1000, 4095, 4097, 65535, 1 << 20, 1 << 24, 2**31 - 1, 2**31, 2**32 - 1)
WRONG = (I32(-1), I32(-(2**31)), U64(2**64 - 1), F32(1.5), F32(math.nan), F64(1e300), Bool(True), Str("x"))
FLOATS = (0.0, -1.0, 1e-38, 1e-12, 1e-6, 0.5, 1.0, 100.0, 1e6, 3e38, math.inf, -math.inf, math.nan)


def known_keys() -> list[str]:
    """Every key that some family asks for, as the sources have them."""
    call = re.compile(r'el_key_\w+\([^;]*?"([a-z0-9_.]+)"')
    files = [*(ROOT / "csrc" / "models").rglob("*.c")]
    return sorted({key for path in files for key in call.findall(path.read_text(encoding="utf-8"))})


def other_numbers(value: Any, n_layer: int) -> Iterator[Any]:
    """Values for a key that has, or might have, *value*."""
    if isinstance(value, float):
        yield from (F32(x) for x in FLOATS)
        yield from (I32(5), Str("x"), Bool(True), Arr(TYPE_F32, []), Arr(TYPE_F32, [1.0] * n_layer), F64(1e300))
        yield Arr(TYPE_F32, [math.nan] * n_layer)
        return
    yield from INTEGERS
    if isinstance(value, int) and not isinstance(value, bool):
        yield from sorted({value - 1, value + 1, value // 2, value * 2, value + 32} - {-1, *INTEGERS})
    yield from WRONG
    yield from (Bool(False), F32(0.0), F32(-1.0), F32(3e38))
    yield from (Arr(TYPE_I32, []), Arr(TYPE_I32, [1]))
    for items in ([0], [1], [2], [3], [4], [1000], [0, 1], [1, 0], [2, 4], [-1], [2**31 - 1]):
        yield Arr(TYPE_I32, items * n_layer)
    yield Arr(TYPE_STR, ["x"] * n_layer)
    yield Arr(TYPE_F32, [1.0] * n_layer)


def _key(changes: Mapping[str, Any]) -> Callable[[Keys, Tensors], Content]:
    def make(keys: Keys, tensors: Tensors) -> Content:
        return {key: value for key, value in {**keys, **changes}.items() if value is not None}, tensors

    return make


def _shown(value: Any) -> str:
    value = value.value if hasattr(value, "value") else value
    return f"[{len(value)}]{value[:2]}" if isinstance(value, list) else str(value)[:24]


def key_cases(arch: str) -> Iterator[Case]:
    """Each key of the file missing and of every odd value, and every key that some other family knows."""
    keys = content(arch)[0]
    n_layer = keys[f"{arch}.block_count"]
    own = [key for key in keys if not key.startswith("tokenizer.") or key.endswith("count")]
    for key in own:
        yield Case(f"key:{key}:missing", _key({key: None}))
        for value in other_numbers(keys[key], n_layer):
            yield Case(f"key:{key}:{_shown(value)}", _key({key: value}))
    for name in known_keys():
        if f"{arch}.{name}" not in keys:
            sample = 1.0 if re.search(r"scale|factor|base|bias|clamp|softcap|eps|beta|attn_temp", name) else 1
            for value in other_numbers(sample, n_layer):
                yield Case(f"key+:{name}:{_shown(value)}", _key({f"{arch}.{name}": value}))


def mixed_keys(arch: str, n: int) -> Iterator[Case]:
    """Two to four keys at once."""
    keys = content(arch)[0]
    n_layer = keys[f"{arch}.block_count"]
    names = [f"{arch}.{name}" for name in known_keys()]
    names += [key for key in keys if key.startswith(arch)] * 3
    for seed in range(n):
        rng = random.Random(f"{arch}{seed}")
        changes: Keys = {}
        for key in rng.sample(names, rng.choice((2, 2, 3, 4))):
            value = keys.get(key, 1.0 if "scal" in key or "base" in key else 1)
            changes[key] = rng.choice([v for v in other_numbers(value, n_layer) if getattr(v, "value", v) != "x"])
        yield Case("keys:" + ",".join(f"{key.removeprefix(arch)[1:]}={_shown(v)}" for key, v in changes.items()),
                   _key(changes))  # fmt: skip


# ---- cases: sizes that file and weights agree on ------------------------------------------------

SIZE_VALUES = (1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 31, 33, 48, 64, 96, 100, 128, 130, 160, 256, 257, 300, 512)
SIZES = """
embd head kv size ff ctx expert used expert_ff shared_ff rank kv_rank nope rope value inner state heads groups conv
shortconv mix buckets per_layer altup laurel
""".split()  # noqa: SIM905 - as edgellm.testing.families has its words


def _sized(arch: str, weight_type: str, n_layer: int | None, overrides: Mapping[str, int]) -> Case:
    def make(keys: Keys, tensors: Tensors) -> Content:
        return content(arch, n_layer, weight_type, **overrides)

    named = ",".join(f"{name}={value}" for name, value in overrides.items())
    return Case(f"size:{named}:{weight_type}:{n_layer or ''}", make)


def used_sizes(arch: str) -> list[str]:
    """The names of sizes that make a difference to a family's file."""
    keys, tensors = content(arch)
    shapes = {name: tensor(value).shape for name, value in tensors.items()}
    found = []
    for name in SIZES:
        other_keys, other = content(arch, **{name: 96})
        if other_keys != keys or {key: tensor(value).shape for key, value in other.items()} != shapes:
            found.append(name)
    return found


def size_cases(arch: str, n_mixed: int) -> Iterator[Case]:
    names = used_sizes(arch)
    for name in names:
        for value in SIZE_VALUES:
            yield _sized(arch, "Q8_0" if value % 32 == 0 else "F32", None, {name: value})
    for n_layer in (1, 3, 4, 5, 7):
        yield _sized(arch, "Q8_0", n_layer, {})
    for seed in range(n_mixed):
        rng = random.Random(f"{arch}{seed}")
        chosen = rng.sample(names, min(len(names), rng.choice((2, 2, 3, 5))))
        overrides = {name: rng.choice(SIZE_VALUES) for name in chosen}
        yield _sized(arch, rng.choice(("F32", "Q8_0", "F16", "BF16")), rng.choice((None, None, 1, 3)), overrides)


def families() -> list[str]:
    """Those the library has and a tiny model can be made of."""
    files = sorted((ROOT / "csrc" / "models" / "families").glob("*.c"))
    names = {name for path in files for name in re.findall(r'\.name = "([^"]+)"', path.read_text(encoding="utf-8"))}
    return sorted(names & set(tiny.ARCHITECTURES))


def cases(arch: str) -> list[Case]:
    """All of a family, always in the same order."""
    found = [Case("sound", lambda keys, tensors: (keys, tensors))]
    found += [
        *tensor_cases(arch),
        *more_tensors(arch),
        *key_cases(arch),
        *mixed_keys(arch, 300),
        *size_cases(arch, 200),
    ]
    return found


def sample(arch: str, n: int, seed: int = 0, only: str = "") -> list[Case]:
    """The sound model and *n* other cases whose names contain *only*; as many of sizes as of everything else."""
    every = cases(arch)
    wanted = [case for case in every[1:] if only in case.name]
    rng = random.Random(f"{arch}{seed}")
    sized = [case for case in wanted if case.name.startswith("size:")]
    rest = [case for case in wanted if not case.name.startswith("size:")]
    n_rest = min(n // 2, len(rest))
    return [every[0], *rng.sample(sized, min(n - n_rest, len(sized))), *rng.sample(rest, n_rest)]
