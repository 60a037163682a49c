"""The ruler's arithmetic, on data whose answers can be worked out by hand; nothing is measured here."""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from pathlib import Path

import pytest

from bench import compare, gguf_header, models, process, report
from bench.peer import Peer, Runner, Worker, WorkerFailed
from bench.peers.flat import FlatBatch
from bench.peers.worker import Measure
from bench.roofline import Roofline
from bench.rounds import FIGURES, Result, Sample
from tests.support.gguf_writer import TENSOR_Q8_0, Tensor, write_gguf

WIDTH, FFN, VOCAB = 64, 128, 96


def q8_0(*shape: int) -> Tensor:
    n = 1
    for size in shape:
        n *= size
    return Tensor(shape, TENSOR_Q8_0, bytes(n // 32 * 34))


def write_model(path: Path, *, tied: bool, **extra: object) -> Path:
    """Two layers, 4 heads of 16, 2 key heads; shapes as NumPy has them (slowest first)."""
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.embedding_length": WIDTH,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": ["a", "bc"],
        **extra,
    }
    tensors = {"token_embd.weight": q8_0(VOCAB, WIDTH)}
    for i in range(2):
        tensors[f"blk.{i}.attn_q.weight"] = q8_0(WIDTH, WIDTH)
        tensors[f"blk.{i}.ffn_up.weight"] = q8_0(FFN, WIDTH)
    if not tied:
        tensors["output.weight"] = q8_0(VOCAB, WIDTH)
    return write_gguf(path, metadata, tensors)


def bytes_of(n: int) -> int:
    return n // 32 * 34


# ---- header and roofline


def test_header_reads_what_the_writer_wrote(tmp_path: Path) -> None:
    header = gguf_header.read_header(write_model(tmp_path / "m.gguf", tied=True))
    assert header.get("block_count") == 2
    assert header.metadata["tokenizer.ggml.tokens"] == 2
    assert [t.shape for t in header.tensors[:2]] == [(WIDTH, VOCAB), (WIDTH, WIDTH)]
    assert header.tensors[0].n_bytes == bytes_of(VOCAB * WIDTH)
    assert header.type_mix() == "Q8_0 100 %"
    assert header.raw["tokenizer.ggml.tokens"].endswith(b"bc")


def test_header_refuses_what_is_not_gguf(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGML" + bytes(60))
    with pytest.raises(ValueError, match="not a GGUF file"):
        gguf_header.read_header(path)


def test_header_agrees_with_edgellm(tmp_path: Path) -> None:
    ffi, lib = pytest.importorskip("edgellm._native").load()
    path = write_model(tmp_path / "m.gguf", tied=False)
    out, size = ffi.new("char **"), ffi.new("size_t *")
    assert lib.edgellm_inspect(os.fsencode(path), 8, out, size) == 0
    try:
        theirs = json.loads(ffi.string(out[0]))["tensors"]
    finally:
        lib.edgellm_free(out[0])
    ours = gguf_header.read_header(path).tensors
    assert [(t.name, list(t.shape), t.type, t.n_bytes) for t in ours] == [
        (t["name"], t["shape"], t["type"], t["n_bytes"]) for t in theirs
    ]


BLOCKS = 2 * bytes_of(WIDTH * WIDTH + WIDTH * FFN)


def test_a_tied_embedding_counts_whole(tmp_path: Path) -> None:
    roofline = Roofline(gguf_header.read_header(write_model(tmp_path / "m.gguf", tied=True)))
    assert roofline.weight_bytes(1) == roofline.weight_bytes(8) == BLOCKS + bytes_of(VOCAB * WIDTH)


def test_an_untied_embedding_counts_a_row_a_token(tmp_path: Path) -> None:
    roofline = Roofline(gguf_header.read_header(write_model(tmp_path / "m.gguf", tied=False)))
    head, row = bytes_of(VOCAB * WIDTH), bytes_of(WIDTH)
    assert roofline.weight_bytes(1) == BLOCKS + head + row
    assert roofline.weight_bytes(8) == BLOCKS + head + 8 * row


def test_visible_keys_and_values_count(tmp_path: Path) -> None:
    roofline = Roofline(gguf_header.read_header(write_model(tmp_path / "m.gguf", tied=True)))
    one = 2 * 2 * (16 + 16) * 2  # layers, key heads, key and value size, f16
    assert roofline.kv_bytes(0) == one
    assert roofline.kv_bytes(99) == 100 * one
    assert roofline.decode_bytes(10, 3) == roofline.weight_bytes(1) + 12 * one  # positions 10, 11, 12 see 11 to 13
    assert roofline.decode_bytes(10, 3, seqs=8) == roofline.weight_bytes(8) + 8 * 12 * one


def test_a_sliding_window_limits_what_is_visible(tmp_path: Path) -> None:
    extra = {"llama.attention.sliding_window": 4, "llama.attention.sliding_window_pattern": [True, False]}
    roofline = Roofline(gguf_header.read_header(write_model(tmp_path / "m.gguf", tied=True, **extra)))
    assert [layer.window for layer in roofline.layers] == [4, 0]
    one = 2 * (16 + 16) * 2
    assert roofline.kv_bytes(9) == (4 + 10) * one
    assert roofline.attention_macs(6) == 4 * 32 * ((1 + 2 + 3 + 4 + 4 + 4) + (1 + 2 + 3 + 4 + 5 + 6))


def test_prefill_counts_the_head_once(tmp_path: Path) -> None:
    roofline = Roofline(gguf_header.read_header(write_model(tmp_path / "m.gguf", tied=True)))
    assert roofline.linear_macs(5) == 5 * 2 * (WIDTH * WIDTH + WIDTH * FFN) + VOCAB * WIDTH
    seconds = roofline.prefill_seconds(5, 1e9, 1e6)
    assert seconds == pytest.approx(roofline.linear_macs(5) / 1e9 + roofline.attention_macs(5) / 1e6)


def test_experts_count_as_far_as_they_are_used(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "m.gguf",
        {"general.architecture": "llama", "llama.expert_count": 4, "llama.expert_used_count": 1, "llama.block_count": 1,
         "llama.attention.head_count": 1, "llama.embedding_length": 32},
        {"token_embd.weight": q8_0(32, 32), "blk.0.ffn_up_exps.weight": q8_0(4, 32, 32)},
    )  # fmt: skip
    roofline = Roofline(gguf_header.read_header(path))
    expert = bytes_of(4 * 32 * 32)
    assert roofline.weight_bytes(1) == bytes_of(32 * 32) + expert // 4
    assert roofline.weight_bytes(1000) == bytes_of(32 * 32) + expert
    assert roofline.linear_macs(2) == 2 * 32 * 32 + 32 * 32


# ---- workers


class FakeEngine:
    """Keeps what it was told; its logits are the tokens of the last step."""

    version, flags, n_vocab = "1", "", 4096

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []
        self.lengths: dict[int, int] = {}
        self.last: list[bytes] = []

    def shape(self, n_seqs: int, n_ctx: int) -> None:
        self.shapes.append((n_seqs, n_ctx))
        self.clear()

    def clear(self) -> None:
        self.lengths = {}

    def step(self, items: list[tuple[int, list[int]]]) -> None:
        self.last = [repr(list(tokens)).encode() for _, tokens in items]
        for seq, tokens in items:
            self.lengths[seq] = self.lengths.get(seq, 0) + len(tokens)

    def logits(self, i: int) -> bytes:
        return self.last[i]


def test_decode_runs_its_steps_at_its_depth() -> None:
    engine = FakeEngine()
    measure = Measure(engine)
    measure.prepare("decode", n=5, depth=100, seqs=8, seed=1)
    assert engine.lengths == {0: 100}
    answer = measure.go(limit=0)
    assert (answer["tokens"], answer["steps"], engine.lengths) == (5, 5, {0: 105})
    assert engine.shapes == [(1, 256)]


def test_the_same_seed_gives_the_same_checksum_and_another_one_another() -> None:
    measure = Measure(FakeEngine())
    sums = []
    for seed in (1, 1, 2):
        measure.prepare("together", n=2, depth=3, seqs=4, seed=seed)
        answer = measure.go(limit=0)
        assert answer["tokens"] == 8
        sums.append(answer["checksum"])
    assert sums[0] == sums[1] != sums[2]


def test_a_limit_ends_between_two_steps() -> None:
    engine = FakeEngine()
    measure = Measure(engine)
    measure.prepare("decode", n=1000, depth=0, seqs=1, seed=1)
    step = engine.step
    engine.step = lambda items: (time.sleep(0.02), step(items))  # type: ignore[assignment,func-returns-value]
    assert 1 <= measure.go(limit=0.05)["tokens"] < 10


def test_flat_batches_know_positions_and_wanted_rows() -> None:
    batch = FlatBatch(2)
    list(batch.parts([(0, [5, 6, 7])], 10))
    ((n, tokens, seqs, positions, want),) = batch.parts([(0, [8]), (1, [9, 9])], 10)
    assert (n, list(tokens), list(seqs), list(positions), list(want)) == (3, [8, 9, 9], [0, 1, 1], [3, 0, 1], [1, 0, 1])
    assert batch.rows == [0, 2]
    parts = list(batch.parts([(1, list(range(7)))], 3))
    assert [part[0] for part in parts] == [3, 3, 1]
    assert list(parts[-1][3]) == [8]


FAKE_WORKER = """
import json, sys, time
from bench.peers.worker import serve
class E:
    version, n_vocab = "7", 10
    def __init__(self, model, threads, variant):
        self.variant = self.flags = variant
        if variant == "bad": raise RuntimeError("no such setting")
    def shape(self, n_seqs, n_ctx): pass
    def clear(self): pass
    def step(self, items):
        print("noise on standard output")
        time.sleep(0.002 if self.variant == "fast" else 0.1)
        if self.variant == "dies" and len(items) > 1: sys.exit(3)
    def logits(self, i): return b""
serve(E)
"""


@pytest.fixture
def fake_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Peer:
    (tmp_path / "fake_worker.py").write_text(FAKE_WORKER)
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/fake_worker.py"\n')
    script.chmod(0o755)
    monkeypatch.setenv("EDGELLM_CACHE", str(tmp_path / "cache"))
    return Peer("fake", "fake_worker", ("", "fast", "bad"), lambda: script)


def test_the_fastest_setting_is_chosen_and_a_failing_one_dropped(fake_peer: Peer) -> None:
    runner = Runner(fake_peer, Path("model"), 2)
    try:
        runner.probe(4, 3)
        assert runner.best("prefill") == runner.best("decode") == "fast"
        assert "no such setting" in runner.dropped["bad"]
        worker, answer = runner.run("decode", lambda w: w.ask(do="go", limit=0))
        assert worker.version == "7" and answer["tokens"] == 3
    finally:
        runner.close()


def test_an_error_is_an_answer_and_the_worker_lives_on(fake_peer: Peer) -> None:
    worker = Worker(fake_peer, "fast", Path("model"), 2)
    try:
        with pytest.raises(WorkerFailed, match="AttributeError"):
            worker.ask(do="nonsense")
        worker.ask(do="prepare", figure="decode", n=2, depth=0, seqs=1, seed=1)
    finally:
        worker.close()


@pytest.mark.unsanitized("freed memory is kept for a while, and the test measures memory")
def test_private_memory_of_this_process() -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("no smaps_rollup here")
    before = process.private_bytes(os.getpid())["private"]
    block = mmap.mmap(-1, 50_000_000)  # pages that no one has freed before
    block.write(b"x" * 50_000_000)
    assert process.private_bytes(os.getpid())["private"] > before + 45_000_000
    del block


def test_first_byte_and_a_program_that_says_nothing() -> None:
    slow = "import time; time.sleep(0.2); print('x', flush=True); time.sleep(0.3)"
    assert 0.2 <= process.first_byte([sys.executable, "-S", "-c", slow]) < 60
    with pytest.raises(WorkerFailed, match="wrote nothing and ended with 3"):
        process.first_byte([sys.executable, "-S", "-c", "raise SystemExit(3)"])


# ---- models


def test_groups_expand() -> None:
    assert models.expand("smollm2:all")[:2] == ["smollm2", "smollm2:Q4_0"]
    assert models.expand("1b:all") == [f"1b:{t}" for t in models.LARGE_TYPES]
    assert len(models.expand("all")) == 18
    assert models.expand("x.gguf") == ["x.gguf"]


def test_the_synthetic_model_has_the_published_size() -> None:
    total = sum(models._count(shape) for _, shape, _ in models.tensor_list())
    assert total == 1_235_814_400  # the published parameter count, tied embeddings counted once


def test_random_weights_are_written_as_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = write_gguf(
        tmp_path / "v.gguf",
        {"general.architecture": "llama", "tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.model": "gpt2"},
    )
    monkeypatch.setattr(models, "VOCAB", 2)
    tensors = [
        ("token_embd.weight", (32, 2), 0.02),
        ("output_norm.weight", (33,), 0.0),
        ("blk.0.attn_q.weight", (32, 32), 0.1),
    ]
    path = tmp_path / "r.gguf"
    models.write_random(path, vocabulary, tensors)
    header = gguf_header.read_header(path)
    assert [(t.name, t.shape, t.type) for t in header.tensors] == [
        ("token_embd.weight", (32, 2), "F16"),
        ("output_norm.weight", (33,), "F32"),
        ("blk.0.attn_q.weight", (32, 32), "F16"),
    ]
    assert header.metadata["tokenizer.ggml.model"] == "gpt2"
    assert header.get("rope.freq_base") == 500_000.0
    data = 32 * 2 * 2 + 160 + 32 * 32 * 2  # the norm's 132 bytes padded to 160
    assert (path.stat().st_size - data) % 32 == 0


# ---- report


def sample(figure: str, beside: int, peer: str, number: int, rate: float, **more: object) -> Sample:
    return Sample(figure, beside, peer, "", number, rate, **more)  # type: ignore[arg-type]


def result(*samples: Sample, fair: dict[int, list[float]] | None = None, n_params: int = 135_000_000) -> Result:
    return Result("m", "/m", "Q8_0 100 %", n_params, 1e8, list(samples), fair or {})


def test_ratios_are_taken_in_each_round() -> None:
    # Ours is twice the peer's in every round, though the machine's speed changes tenfold between them.
    samples = [sample("decode", 0, "edgellm", r, 2 * s) for r, s in enumerate((10, 100, 50))]
    samples += [sample("decode", 0, "llama.cpp", r, s) for r, s in enumerate((10, 100, 50))]
    summary = report.Summary(result(*samples), FIGURES)
    assert summary.ratio("decode", 0, "llama.cpp") == 2
    assert summary.ratio("decode", 0, "xllamacpp") is None
    assert summary.rate("decode", 0, "edgellm") == 100


def test_the_fair_share_is_that_of_the_round() -> None:
    samples = [sample("decode", 0, "edgellm", r, 100) for r in range(2)]
    samples += [sample("decode", 1, "edgellm", 0, 60), sample("decode", 1, "edgellm", 1, 30)]
    summary = report.Summary(result(*samples, fair={1: [0.6, 0.5]}), FIGURES)
    assert summary.of_fair("decode", 1, "edgellm") == pytest.approx((1.0 + 0.6) / 2)


def test_verdicts_name_what_is_missed() -> None:
    samples = [sample("decode", 0, "edgellm", 0, 160, share=0.5), sample("decode", 0, "llama.cpp", 0, 100)]
    samples += [sample("start", 0, "edgellm", 0, 0.3), sample("start", 0, "llama.cpp", 0, 0.5)]
    found = {text: met for text, _, _, met in report.verdicts(report.Summary(result(*samples), FIGURES))}
    assert found == {"decode / llama.cpp": True, "start / llama-completion": False}
    large = report.Summary(result(*samples, n_params=1_200_000_000), FIGURES)
    assert {text: target for text, _, target, _ in report.verdicts(large)}["decode / llama.cpp"] == 1.3
    assert "decode, share of bandwidth" in {text for text, *_ in report.verdicts(large)}


@pytest.mark.parametrize(("second", "words"), [("aa", "equal"), ("bb", "DIFFER in decode")])
def test_checksums_of_the_same_tokens_are_compared(second: str, words: str) -> None:
    samples = [sample("decode", 0, "edgellm", 0, 1, tokens=64, checksum="aa")]
    samples += [sample("decode", 1, "edgellm", 0, 1, tokens=64, checksum=second)]
    samples += [sample("decode", 3, "edgellm", 0, 1, tokens=7, checksum="cc")]  # stopped early: another token's logits
    assert words in report.Summary(result(*samples), FIGURES).checksums()


def test_a_page_has_every_table() -> None:
    samples = [
        sample(f, b, p, 0, 10.0, share=0.4, tokens=64)
        for f in FIGURES
        for b in (0, 1)
        for p in ("edgellm", "llama.cpp")
    ]
    samples += [sample("start", 0, "edgellm", 0, 0.2)]
    samples += [
        sample(
            "memory",
            0,
            "edgellm",
            0,
            0,
            memory=dict.fromkeys(("private", "peak_private", "private_dirty", "anonymous", "peak_resident"), 10**7),
        )
    ]
    text = report.page(result(*samples, fair={1: [0.67]}), quick=False)
    for words in (
        "prefill 512",
        "decode 64 at depth 2048",
        "8 sequences together",
        "fair share 67 %",
        "200 ms",
        "| 40 % |",
        "**missed**",
    ):
        assert words in text


# ---- command line


def test_options_become_a_plan() -> None:
    options = compare.parser().parse_args(["m.gguf", "--only", "decode,start", "--beside", "3,0", "--quick"])
    plan = compare.plan_of(options)
    assert (list(plan.figures), plan.process_figures, plan.beside, plan.rounds) == (["decode"], ("start",), (0, 3), 2)


@pytest.mark.parametrize("words", [["--only", "speed"], ["--beside", "x"], ["--rounds", "-1"], ["--threads", "0"]])
def test_senseless_options_end_in_one_sentence(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        compare.plan_of(compare.parser().parse_args(["m.gguf", *words]))
    assert isinstance(stop.value.code, str)
