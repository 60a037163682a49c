"""
Models of every family whose numbers, shapes and types do not fit together, opened and run in child processes.

A case is a tiny model of a family with one thing changed, or a few: a tensor taken out, of another shape or type, one
too many; a number of the metadata that no real file has; and sizes that file and weights agree on but that no kernel
was made for, which is what reaches the deepest. Each must compute or be refused by one sentence. A child that dies,
hangs or wants too much memory is a failure with the name of its case::

    python -m tests.support.family_damage                       # a sample of each family
    python -m tests.support.family_damage --all                 # every case, many hours
    python -m tests.support.family_damage jamba --only size:    # those of one family whose names contain that

With ``--refusals`` the different sentences are listed at the end, numbers left out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgellm import _native
from edgellm.errors import EdgellmError
from edgellm.results import ModelInfo
from edgellm.sampling import SamplingParams
from edgellm.testing.gguf_writer import tensor, write_gguf
from tests.support.family_cases import Case, Tensors, cases, content, families, sample

CPU_SECONDS, WALL_SECONDS = 8.0, 90.0  # of one case
MEMORY = 6 << 30  # address space of a child


class Outcome(NamedTuple):
    """What a case did: "" and how many steps ran, the sentence of a refusal, or how the child died."""

    arch: str
    case: str
    refusal: str
    died: str


# ---- what is done with a model that opens -------------------------------------------------------


def step(engine: _native.Engine, items: list[Any], encode: bool = False) -> None:
    engine.begin(items, encode)
    while not engine.run():
        pass


def generate(engine: _native.Engine, info: ModelInfo) -> None:
    """40 tokens in chunks, in two sequences, with and without outputs; tokens one by one, taken back and cancelled."""
    has_encoder = info.has_encoder
    ids = [(7 * i + 3) % info.n_vocab for i in range(40)]
    a, b = engine.open_seq(), engine.open_seq()
    if not info.causal:  # read at once
        step(engine, [(a, ids, _native.OUT_ALL, False), (b, ids[:7], _native.OUT_LAST, False)])
        return
    if has_encoder:
        step(engine, [(a, ids[:9], _native.OUT_NONE, False), (b, ids[:3], _native.OUT_NONE, False)], encode=True)
    step(engine, [(a, ids[:17], _native.OUT_NONE, False)])
    step(engine, [(a, ids[17:18], _native.OUT_LAST, False), (b, ids[:22], _native.OUT_ALL, False)])
    engine.checkpoint(a)
    step(engine, [(b, ids[22:], _native.OUT_NONE, False), (a, ids[18:], _native.OUT_NONE, False)])
    engine.truncate(b, 30)
    engine.truncate(a, 18)
    for seq in (a, b):
        engine.sample(seq, SamplingParams(max_tokens=4, temperature=0), 1, [])
    for token in ids[:3]:
        step(engine, [(a, [token], _native.OUT_LAST, True), (b, [token], _native.OUT_LAST, True)])
    step(engine, [(a, ids[:1], _native.OUT_NONE, False)])
    engine.begin([(b, ids[:9], _native.OUT_LAST, False)])
    engine.cancel()
    try:
        while not engine.run():
            pass
    except EdgellmError:
        pass
    step(engine, [(b, ids[:2], _native.OUT_LAST, False)])
    engine.truncate(a, 0)
    if not has_encoder:
        step(engine, [(a, ids[:5], _native.OUT_LAST, False)])


# In names of what is read as it is, or not at all.
NO_PRODUCTS = (
    "norm", "conv1d", "conv.weight", "lerp", "time_mix_first", "indexer", "blk.0.time_mix_v1", "blk.0.time_mix_v2",
    "position_embd", "token_types", "attn_rel_b",
)  # fmt: skip


def adapter_of(arch: str, tensors: Tensors, path: Path) -> Path:
    """A LoRA of rank 3 for every matrix of a model."""
    matrices: Tensors = {}
    for name, stored in tensors.items():
        shape = tensor(stored).shape
        if len(shape) < 2 or not name.endswith(".weight") or any(part in name for part in NO_PRODUCTS):
            continue
        *experts, n_out, n_in = shape
        table = name == "token_embd.weight"  # stored the other way round: rows of it are looked up
        a, b = ((n_out, 3), (n_in, 3)) if table else ((*experts, 3, n_in), (*experts, n_out, 3))
        matrices |= {f"{name}.lora_{part}": np.full(size, 0.01, np.float32) for part, size in (("a", a), ("b", b))}
    keys = {"general.type": "adapter", "adapter.type": "lora", "general.architecture": arch, "adapter.lora.alpha": 6.0}
    return write_gguf(path, keys, matrices)


def adapted(path: Path, arch: str, tensors: Tensors) -> str:
    """Eight adapters at once, and steps of many shapes; what a model or an adapter refuses."""
    lora = adapter_of(arch, tensors, path.with_suffix(".lora"))
    try:
        with _native.Model(path) as model:
            pooling = None if model.info.gives_logits else "mean"
            adapter = _native.Adapter(model, lora)
            with model.engine(n_ctx=256, n_seqs=2, n_batch=64, n_threads=1, pooling=pooling) as engine:
                engine.set_adapters([(adapter, 0.5)] * 8)
                if pooling:
                    embed(engine, model.info.n_vocab)
                    return ""
                generate(engine, model.info)
                engine.set_adapters([])
                if model.info.causal and not model.info.has_encoder:
                    shapes(engine, model.info.n_vocab)
            adapter.close()
        return ""
    except EdgellmError as error:
        return str(error)
    finally:
        lora.unlink()


def shapes(engine: _native.Engine, n_vocab: int) -> None:
    """More shapes of steps than plans are kept for, and sequences taken back to every length."""
    for seq in range(2):
        engine.close_seq(seq)
    a, b = engine.open_seq(), engine.open_seq()
    ids = [(5 * i + 1) % n_vocab for i in range(40)]
    for n in range(1, 21):
        outputs = (_native.OUT_NONE, _native.OUT_LAST, _native.OUT_ALL)[n % 3]
        step(engine, [(a, ids[:n], outputs, False), (b, ids[: n % 4 + 1], _native.OUT_LAST, False)])
        if n % 5 == 0:
            engine.checkpoint(a)
    for n in (200, 150, 77, 40, 31, 1, 0):
        engine.truncate(a, min(n, engine.length(a)))
        step(engine, [(a, ids[:2], _native.OUT_LAST, False)])


def embed(engine: _native.Engine, n_vocab: int) -> None:
    ids = [(7 * i + 3) % n_vocab for i in range(40)]
    for n in (1, 23):
        a, b = engine.open_seq(), engine.open_seq()
        step(engine, [(a, ids[:n], _native.OUT_ALL, False), (b, ids[: 40 - n], _native.OUT_ALL, False)])
        engine.embeddings(0)
        engine.close_seq(a)
        engine.close_seq(b)


KINDS = (("f32", None), ("f16", "mean"), ("q8_0", None), ("f32", "none"), ("f16", "rank"), ("f16", None))


def use(path: Path, turn: int) -> str:
    """Open, run in one or two of the KINDS (turn 0: in all); the sentence of the last refusal, or ""."""
    try:
        model = _native.Model(path)
    except EdgellmError as error:
        return str(error)
    refusal = ""
    info = model.info
    kinds = KINDS if turn == 0 else {KINDS[0] if info.gives_logits else KINDS[1], KINDS[turn % len(KINDS)]}
    options = {"n_ctx": 96, "n_seqs": 2, "n_batch": 64, "n_threads": 1 + (turn % 8 == 0)}
    for kv_type, pooling in kinds:
        try:
            engine = model.engine(**options, kv_type=kv_type, pooling=pooling)
            try:
                if pooling is None:
                    generate(engine, info)
                else:
                    embed(engine, info.n_vocab)
            finally:
                engine.close()
        except EdgellmError as error:
            refusal = str(error)
    model.close()
    return refusal


# ---- children ---------------------------------------------------------------------------------


def _work(arch: str, chosen: Sequence[Case], first: int, out: int, folder: Path) -> None:
    """What a child does: a line with the number before each case, one with the answer after it."""
    sanitized = bool(os.environ.get("EDGELLM_SANITIZED"))
    if not sanitized:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    keys, tensors = content(arch)
    path = folder / f"{arch}-{os.getpid()}.gguf"
    try:
        for i in range(first, len(chosen)):
            os.write(out, f"{i}\n".encode())
            write_gguf(path, *chosen[i].make(dict(keys), dict(tensors)))
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS * (10 if sanitized else 1))
            refusal = use(path, i)
            if chosen[i].name == "sound":
                refusal = adapted(path, arch, tensors)
            signal.setitimer(signal.ITIMER_PROF, 0)
            os.write(out, json.dumps(refusal).encode() + b"\n")
    finally:
        path.unlink(missing_ok=True)


def _follow(pid: int, reader: int) -> tuple[list[str], str]:
    """Lines of a child, and how it ended when it did not end well."""
    data = b""
    while True:
        if not select.select([reader], [], [], WALL_SECONDS)[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return data.decode().splitlines(), f"hung for {WALL_SECONDS:.0f} s"
        more = os.read(reader, 1 << 16)
        if not more:
            break
        data += more
    status = os.waitpid(pid, 0)[1]
    died = ""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        died = f"over {CPU_SECONDS:.0f} s of CPU" if number == signal.SIGPROF else signal.Signals(number).name
    elif os.WEXITSTATUS(status):
        died = f"exit code {os.WEXITSTATUS(status)}"
    return data.decode().splitlines(), died


def run(arch: str, chosen: Sequence[Case], folder: Path) -> list[Outcome]:
    """All of *chosen*, each in a child that goes on with the next."""
    outcomes: list[Outcome] = []
    first = 0
    while first < len(chosen):
        reader, writer = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                os.close(reader)
                _work(arch, chosen, first, writer, folder)
                code = 0
            except BaseException as error:  # noqa: BLE001 - whatever it is, the child must end here
                print(f"{arch}: {type(error).__name__}: {error}", file=sys.stderr)
            finally:
                os._exit(code)
        os.close(writer)
        lines, died = _follow(pid, reader)
        os.close(reader)
        for number, answer in zip(lines[::2], lines[1::2], strict=False):
            outcomes.append(Outcome(arch, chosen[int(number)].name, json.loads(answer), ""))
            first = int(number) + 1
        if len(lines) % 2:
            outcomes.append(Outcome(arch, chosen[int(lines[-1])].name, "", died or "ended without an answer"))
            first = int(lines[-1]) + 1
        elif died:
            outcomes.append(Outcome(arch, "after the last case", "", died))
            break
    return outcomes


def fault(outcome: Outcome) -> str:
    """What is wrong with it: it died, or its sentence is none. "" when nothing is."""
    text = outcome.refusal
    if outcome.died:
        return outcome.died
    if outcome.case == "sound" and text:
        return f"the sound model is refused: {text}"
    if "do not fit together" in text:
        return f"ggml had to be stopped: {text}"
    if text and not (20 < len(text) <= 600 and text.isprintable() and "(null)" not in text and "GGML" not in text):
        return f"no sentence: {text!r}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("arch", nargs="*", help="families; all by default")
    parser.add_argument("--all", action="store_true", help="every case")
    parser.add_argument("-n", type=int, default=60, help="cases of each family")
    parser.add_argument("--part", default="1/1", help="k/n: every n-th family from the k-th on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose names contain this")
    parser.add_argument("--refusals", action="store_true", help="list the different sentences")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="family-damage-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    sentences: dict[str, Outcome] = {}
    n_cases = n_faults = 0
    try:
        k, n = map(int, args.part.split("/"))
        for arch in (args.arch or families())[k - 1 :: n]:
            began = time.monotonic()
            chosen = cases(arch) if args.all else sample(arch, args.n, args.seed, args.only)
            outcomes = run(arch, [case for case in chosen if args.only in case.name], folder)
            for outcome in outcomes:
                n_cases += 1
                if fault(outcome):
                    n_faults += 1
                    print(f"FAULT {outcome.arch} {outcome.case}: {fault(outcome)}", flush=True)
                sentences.setdefault(re.sub(r"-?\d[\d.e+-]*", "#", outcome.refusal.replace(arch, "ARCH")), outcome)
            refused = sum(bool(outcome.refusal) for outcome in outcomes)
            print(f"{arch}: {len(outcomes)} cases, {refused} refused, {time.monotonic() - began:.1f} s", flush=True)
    finally:
        shutil.rmtree(folder)
    if args.refusals:
        for _, outcome in sorted(sentences.items()):
            print(f"  {outcome.refusal}\n      {outcome.arch} {outcome.case}")
    print(f"{n_cases} cases, {n_faults} faults")
    return n_faults > 0


if __name__ == "__main__":
    sys.exit(main())
