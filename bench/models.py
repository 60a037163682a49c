"""
The files that are measured. ``python -m bench.models SPEC...`` makes them and prints each one's type mix.

A SPEC is a path; or ``smollm2`` or ``gemma3``, the file as it comes (``edgellm pull NAME`` fetches it); or PATH:TYPE,
``smollm2:TYPE`` and ``gemma3:TYPE``, that file requantized; or ``1b:TYPE``, random weights in the shape of Llama-3.2
1B; or a group: ``smollm2:all``, ``gemma3:all``, ``1b:all``, ``all``. TYPE as llama-quantize spells it, in any case,
or MXFP4: all layers in it, embeddings and head in Q8_0.

Widths of 576 and 640 are no multiples of 256, so K-quants of the two small models are mostly Q8_0, Q5_0 and Q4_0
inside; the 1.2B judges the K-quants. Speed does not depend on the values of weights, so random ones do.
Generated files lie in EDGELLM_CACHE/bench/models and are kept.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import native
from bench.folders import cache, edgellm_folder
from bench.gguf_header import read_header

BASES = {"smollm2": "smollm2", "gemma3": "gemma3:270m"}  # here -> in edgellm's catalog
SMALL_TYPES = ["Q4_0", "Q8_0", "Q4_K_M", "Q6_K", "Q2_K"]
LARGE_TYPES = ["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0"]

# Llama-3.2 1B: published in its config.json.
LAYERS, WIDTH, FFN, HEADS, HEADS_KV, HEAD, VOCAB, ROPE_BASE = 16, 2048, 8192, 32, 8, 64, 128_256, 500_000.0


def expand(spec: str) -> list[str]:
    """The specs a group stands for; anything else stands for itself."""
    if spec == "all":
        return [one for group in ("smollm2:all", "gemma3:all", "1b:all") for one in expand(group)]
    base, _, kind = spec.partition(":")
    if kind == "all" and base in BASES:
        return [base] + [f"{base}:{name}" for name in SMALL_TYPES]
    if kind == "all" and base == "1b":
        return [f"1b:{name}" for name in LARGE_TYPES]
    return [spec]


def resolve(spec: str) -> Path:
    """
    The file of one spec, made if it is not there.

    Raises:
        SystemExit: The base file is not on this machine, or a tool fails; the text says what to do.
    """
    if Path(spec).is_file():
        return Path(spec)
    base, _, kind = spec.rpartition(":") if ":" in spec else (spec, "", "")
    kind = kind.upper()
    if base in BASES and not kind:
        return _base(base)
    own = Path(base).is_file()
    if not kind or not (own or base in BASES or base == "1b"):
        raise SystemExit(f"{spec} is no file and no known name: smollm2, gemma3, either with :TYPE, 1b:TYPE, or all")
    target = cache() / "models" / f"{Path(base).stem if own else base}-{kind.lower()}.gguf"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        source = Path(base) if own else _random_1b() if base == "1b" else _base(base)
        if kind == "F16" and base == "1b":
            return source
        quantize(source, target, kind)
    return target


def _base(name: str) -> Path:
    edgellm_folder()
    from edgellm.store import resolve as find

    try:
        return Path(find(BASES[name]))
    except Exception as error:
        raise SystemExit(f"{name} is not here ({error}): edgellm pull {BASES[name]}") from error


def quantize(source: Path, target: Path, kind: str) -> None:
    part = target.with_name(f"{target.name}.{os.getpid()}")
    command = [str(native.llama().tool("llama-quantize")), "--allow-requantize"]
    if kind == "MXFP4":  # llama-quantize's own recipe has it for experts only, with the rest in Q8_0
        command += ["--tensor-type", "attn|ffn=mxfp4"]
    command += [str(source), str(part), "Q8_0" if kind == "MXFP4" else kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        part.unlink(missing_ok=True)
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    part.replace(target)


# ---- the synthetic 1.2B ----------------------------------------------------------------------------------------------


def tensor_list() -> list[tuple[str, tuple[int, ...], float]]:
    """Names, shapes (fastest first) and spreads; a spread of 0 means a norm's weights, all 1, in F32."""
    tensors: list[tuple[str, tuple[int, ...], float]] = [("token_embd.weight", (WIDTH, VOCAB), 0.02)]
    kv = HEADS_KV * HEAD
    inner, deep = WIDTH**-0.5, (2 * LAYERS * WIDTH) ** -0.5  # residual branches are kept small, as training does
    for i in range(LAYERS):
        tensors += [
            (f"blk.{i}.attn_norm.weight", (WIDTH,), 0.0),
            (f"blk.{i}.attn_q.weight", (WIDTH, HEADS * HEAD), inner),
            (f"blk.{i}.attn_k.weight", (WIDTH, kv), inner),
            (f"blk.{i}.attn_v.weight", (WIDTH, kv), inner),
            (f"blk.{i}.attn_output.weight", (HEADS * HEAD, WIDTH), deep),
            (f"blk.{i}.ffn_norm.weight", (WIDTH,), 0.0),
            (f"blk.{i}.ffn_gate.weight", (WIDTH, FFN), inner),
            (f"blk.{i}.ffn_up.weight", (WIDTH, FFN), inner),
            (f"blk.{i}.ffn_down.weight", (FFN, WIDTH), deep),
        ]
    return [*tensors, ("output_norm.weight", (WIDTH,), 0.0)]


def metadata(tokenizer: Path) -> list[bytes]:
    """The header's keys, encoded; the vocabulary is copied from the file *tokenizer*."""
    scalars: list[tuple[str, Any]] = [
        ("general.architecture", "llama"),
        ("general.name", "random weights in the shape of Llama-3.2 1B"),
        ("general.file_type", 1),
        ("llama.block_count", LAYERS),
        ("llama.context_length", 131_072),
        ("llama.embedding_length", WIDTH),
        ("llama.feed_forward_length", FFN),
        ("llama.attention.head_count", HEADS),
        ("llama.attention.head_count_kv", HEADS_KV),
        ("llama.attention.key_length", HEAD),
        ("llama.attention.value_length", HEAD),
        ("llama.attention.layer_norm_rms_epsilon", 1e-5),
        ("llama.rope.freq_base", ROPE_BASE),
        ("llama.rope.dimension_count", HEAD),
        ("llama.vocab_size", VOCAB),
    ]
    header = read_header(tokenizer)
    if header.metadata.get("tokenizer.ggml.tokens") != VOCAB:
        raise SystemExit(f"{tokenizer} has {header.metadata.get('tokenizer.ggml.tokens')} tokens instead of {VOCAB}")
    return [_key(key, value) for key, value in scalars] + [
        raw for key, raw in header.raw.items() if key.startswith("tokenizer.")
    ]


def _key(key: str, value: Any) -> bytes:
    head = struct.pack("<Q", len(key)) + key.encode()
    if isinstance(value, str):
        data = value.encode()
        return head + struct.pack("<IQ", 8, len(data)) + data
    if isinstance(value, float):
        return head + struct.pack("<If", 6, value)
    return head + struct.pack("<II", 4, value)


def write_random(path: Path, tokenizer: Path, tensors: list[tuple[str, tuple[int, ...], float]]) -> None:
    """Write F16 weights (norms in F32) block by block: memory stays under 100 MB whatever the size."""
    keys = metadata(tokenizer)
    infos, offset = [], 0
    for name, shape, spread in tensors:
        n_bytes = (2 if spread else 4) * _count(shape)
        kind = 1 if spread else 0
        infos.append(
            struct.pack("<Q", len(name))
            + name.encode()
            + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        )
        offset += -(-n_bytes // 32) * 32
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys)) + b"".join(keys) + b"".join(infos)
    with path.open("wb") as out:
        out.write(head + bytes(-len(head) % 32))
        for index, (_, shape, spread) in enumerate(tensors):
            n_bytes = 0
            for block in _numbers(index, _count(shape), spread):
                out.write(block)
                n_bytes += len(block)
            out.write(bytes(-n_bytes % 32))


def _numbers(seed: int, n: int, spread: float) -> Iterator[bytes]:
    import numpy as np

    make: Callable[[int], Any]
    if spread:
        random = np.random.default_rng(seed)
        make = lambda size: (random.standard_normal(size, np.float32) * np.float32(spread)).astype(np.float16)  # noqa: E731
    else:
        make = lambda size: np.ones(size, np.float32)  # noqa: E731
    for at in range(0, n, 1 << 22):
        yield make(min(1 << 22, n - at)).tobytes()


def _count(shape: tuple[int, ...]) -> int:
    n = 1
    for size in shape:
        n *= size
    return n


def _random_1b() -> Path:
    target = cache() / "models" / "1b-f16.gguf"
    if not target.exists():
        tokenizer = native.llama().source / "models" / "ggml-vocab-llama-bpe.gguf"
        part = target.with_name(f"{target.name}.{os.getpid()}")
        print(f"writing {target} (2.5 GB of random weights)", file=sys.stderr)
        write_random(part, tokenizer, tensor_list())
        part.replace(target)
    return target


def main() -> None:
    """Make the files and say what is in them."""
    for spec in [one for word in sys.argv[1:] or ["all"] for one in expand(word)]:
        path = resolve(spec)
        print(f"{spec:16} {path.stat().st_size / 1e6:8.1f} MB  {read_header(path).type_mix()}  {path}", flush=True)


if __name__ == "__main__":
    main()
