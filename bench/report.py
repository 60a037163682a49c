"""Medians, ratios and targets: what was measured, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.rounds import FIGURES, QUICK, Figure, Result, Sample

OURS, NATIVE, IK, XLLAMA = "edgellm", "llama.cpp", "ik_llama.cpp", "xllamacpp"
LARGE = 600e6  # parameters from which the targets of the 1.2B count


@dataclass(frozen=True, slots=True)
class Targets:
    """What edgellm is to reach: ratios to a peer in the same round, and shares."""

    decode: float
    prefill: float
    ik: float
    together_one: float  # against our one sequence
    together: float
    fair: float  # of the fair share beside neighbours
    beside: dict[int, float]  # neighbours -> ratio to llama.cpp there
    start: float
    private_mb: float
    bandwidth: float | None


SMALL_TARGETS = Targets(1.5, 2.0, 1.0, 3.0, 2.0, 0.8, {1: 2.5, 3: 5.0}, 0.5, 100, None)
LARGE_TARGETS = Targets(1.3, 2.0, 1.0, 4.0, 2.0, 0.8, {1: 2.5, 3: 5.0}, 0.5, 200, 0.8)


def median(values: Iterable[float]) -> float | None:
    """The median, or None of nothing."""
    kept = list(values)
    return statistics.median(kept) if kept else None


class Summary:
    """Medians over the rounds of one model's result."""

    def __init__(self, result: Result, figures: dict[str, Figure]) -> None:
        self.result = result
        self.figures = figures
        self.targets = LARGE_TARGETS if result.n_params > LARGE else SMALL_TARGETS
        self._by: dict[tuple[str, int, str], dict[int, Sample]] = {}
        for sample in result.samples:
            self._by.setdefault((sample.figure, sample.beside, sample.peer), {})[sample.round] = sample

    def rounds(self, figure: str, beside: int, peer: str) -> dict[int, Sample]:
        """The samples of one cell by round."""
        return self._by.get((figure, beside, peer), {})

    def rate(self, figure: str, beside: int, peer: str) -> float | None:
        """The median rate."""
        return median(sample.rate for sample in self.rounds(figure, beside, peer).values())

    def share(self, figure: str, beside: int, peer: str) -> float | None:
        """The median of each round's share of what the machine gave then."""
        samples = self.rounds(figure, beside, peer).values()
        return median(sample.share for sample in samples if sample.share is not None)

    def ratio(self, figure: str, beside: int, peer: str, ours: str = OURS) -> float | None:
        """The median over the rounds of our rate by the peer's in the same round."""
        return self._pairs(self.rounds(figure, beside, ours), self.rounds(figure, beside, peer))

    def kept(self, figure: str, beside: int, peer: str) -> float | None:
        """The rate beside neighbours by the quiet one of the same round."""
        return self._pairs(self.rounds(figure, beside, peer), self.rounds(figure, 0, peer))

    def of_fair(self, figure: str, beside: int, peer: str) -> float | None:
        """What was kept, by the fair share that spinning threads got in the same round."""
        fair = self.result.fair.get(beside, [])
        busy, quiet = self.rounds(figure, beside, peer), self.rounds(figure, 0, peer)
        both = [r for r in busy if r in quiet and r < len(fair) and fair[r] > 0]
        return median(busy[r].rate / quiet[r].rate / fair[r] for r in both)

    def gain_together(self, peer: str) -> float | None:
        """All sequences' tokens together by one sequence's, in the same round."""
        return self._pairs(self.rounds("together", 0, peer), self.rounds("decode", 0, peer))

    @staticmethod
    def _pairs(above: dict[int, Sample], below: dict[int, Sample]) -> float | None:
        return median(above[r].rate / below[r].rate for r in above if r in below and below[r].rate > 0)

    def checksums(self) -> str:
        """Whether repetitions on the same tokens gave the same logits, quiet and busy."""
        seen: dict[tuple[str, int], set[str]] = {}
        n = 0
        for sample in self.result.samples:
            # Beside neighbours a timing may stop early, and then ends on another token.
            whole = sample.figure in self.figures and sample.tokens == _tokens(self.figures[sample.figure])
            if sample.peer == OURS and sample.checksum and whole:
                seen.setdefault((sample.figure, sample.round), set()).add(sample.checksum)
                n += 1
        differ = sorted({figure for (figure, _), sums in seen.items() if len(sums) > 1})
        if not n:
            return ""
        return f"{n} logits checksums: " + (
            f"DIFFER in {', '.join(differ)}" if differ else "equal wherever the tokens were"
        )


def _tokens(figure: Figure) -> int:
    return figure.n * (figure.seqs if figure.kind == "together" else 1)


# ---- the page --------------------------------------------------------------------------------------------------------


def page(result: Result, *, quick: bool) -> str:
    """One model's tables in Markdown."""
    summary = Summary(result, QUICK if quick else FIGURES)
    parts = [_head(summary), _speeds(summary), _beside(summary), _starts(summary), _memory(summary), _verdict(summary)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(summary: Summary) -> str:
    result = summary.result
    lines = [
        f"### {result.model}",
        "",
        f"{result.mix}; {result.n_params / 1e6:.0f} M parameters, {result.bytes_per_token / 1e6:.0f} MB a token.",
    ]
    measured = [sample.machine for sample in result.samples if sample.machine]
    if measured:
        low, high = min(m["read"] for m in measured), max(m["read"] for m in measured)
        lines.append(
            f"This machine gave {_mid(measured, 'read_1') / 1e9:.1f} GB/s to one thread and "
            f"{_mid(measured, 'read') / 1e9:.1f} to all ({low / 1e9:.1f} to {high / 1e9:.1f}), "
            f"{_mid(measured, 'int8') / 1e9:.0f} G 8-bit and "
            f"{_mid(measured, 'f32') / 1e9:.0f} G float multiply-adds a second."
        )
    lines += [f"{name}: {text}." for name, text in result.flags.items()]
    checks = summary.checksums()
    if checks:
        lines.append(f"edgellm: {checks}.")
    lines += [f"Note: {note}" for note in result.notes]
    return "\n".join(line if i < 2 else line + "  " for i, line in enumerate(lines))


def _mid(measured: list[dict[str, float]], key: str) -> float:
    return median(m[key] for m in measured) or 0.0


def _table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def _speeds(summary: Summary) -> str:
    peers = _peers(summary)
    head = ["quiet, tokens/s", *peers, "edgellm's share", *[f"edgellm / {peer}" for peer in peers if peer != OURS]]
    rows = []
    for figure in summary.figures.values():
        if not any(summary.rounds(figure.name, 0, peer) for peer in peers):
            continue
        row = [figure.title, *[_rate(summary, figure.name, 0, peer) for peer in peers]]
        row.append(_percent(summary.share(figure.name, 0, OURS)))
        row += [_times(summary.ratio(figure.name, 0, peer)) for peer in peers if peer != OURS]
        rows.append(row)
    return _table(head, rows)


def _beside(summary: Summary) -> str:
    peers = _peers(summary)
    head = ["beside", "tokens/s", *peers, *[f"{peer}, of the fair share" for peer in peers], "edgellm / llama.cpp"]
    rows = []
    for beside in sorted(summary.result.fair):
        fair = _percent(median(summary.result.fair[beside]))
        for figure in summary.figures.values():
            if not any(summary.rounds(figure.name, beside, peer) for peer in peers):
                continue
            row = [f"{beside} (fair share {fair})", figure.title]
            row += [_rate(summary, figure.name, beside, peer) for peer in peers]
            row += [_percent(summary.of_fair(figure.name, beside, peer)) for peer in peers]
            rows.append([*row, _times(summary.ratio(figure.name, beside, NATIVE))])
    return _table(head, rows)


def _starts(summary: Summary) -> str:
    names = [OURS, NATIVE, f"{NATIVE} -nw"]
    rows = []
    for beside in sorted({sample.beside for sample in summary.result.samples if sample.figure == "start"}):
        cells = [summary.rate("start", beside, name) for name in names]
        times = [f"{1000 * seconds:.0f} ms" if seconds else "-" for seconds in cells]
        ratios = [_times(summary.ratio("start", beside, name)) for name in names[1:]]
        rows.append([str(beside), *times, *ratios])
    head = [
        "start to first byte, beside",
        OURS,
        "llama-completion",
        "with --no-warmup",
        "edgellm / first",
        "edgellm / second",
    ]
    return _table(head, rows)


def _memory(summary: Summary) -> str:
    rows = []
    for sample in summary.result.samples:
        if sample.figure == "memory":
            names = ("private", "peak_private", "private_dirty", "anonymous", "peak_resident")
            rows.append([sample.peer, *[f"{sample.memory[name] / 1e6:.0f}" for name in names]])
    return _table(["memory, MB", "private", "peak private", "Private_Dirty", "Anonymous", "peak resident"], rows)


def verdicts(summary: Summary) -> list[tuple[str, float, float, bool]]:
    """(what, measured, target, met) for every target that was measured."""
    wanted = summary.targets
    found: list[tuple[str, float | None, float, Callable[[float, float], bool]]] = []

    def at_least(text: str, value: float | None, target: float) -> None:
        found.append((text, value, target, lambda a, b: a >= b))

    def at_most(text: str, value: float | None, target: float) -> None:
        found.append((text, value, target, lambda a, b: a <= b))

    at_least("decode / llama.cpp", summary.ratio("decode", 0, NATIVE), wanted.decode)
    at_least("decode at depth / llama.cpp", summary.ratio("deep", 0, NATIVE), wanted.decode)
    at_least("prefill / llama.cpp", summary.ratio("prefill", 0, NATIVE), wanted.prefill)
    at_least("decode / ik_llama.cpp", summary.ratio("decode", 0, IK), wanted.ik)
    at_least("prefill / ik_llama.cpp", summary.ratio("prefill", 0, IK), wanted.ik)
    at_least("together / our one", summary.gain_together(OURS), wanted.together_one)
    at_least("together / llama.cpp together", summary.ratio("together", 0, NATIVE), wanted.together)
    if wanted.bandwidth:
        at_least("decode, share of bandwidth", summary.share("decode", 0, OURS), wanted.bandwidth)
    for beside, ratio in wanted.beside.items():
        for figure in ("decode", "deep", "prefill", "together"):
            at_least(f"{figure} beside {beside}, of the fair share", summary.of_fair(figure, beside, OURS), wanted.fair)
            at_least(f"{figure} beside {beside} / llama.cpp", summary.ratio(figure, beside, NATIVE), ratio)
    at_most("start / llama-completion", summary.ratio("start", 0, NATIVE), wanted.start)
    at_most("start / llama-completion --no-warmup", summary.ratio("start", 0, f"{NATIVE} -nw"), wanted.start)
    private = summary.rounds("memory", 0, OURS)
    at_most("private memory, MB", private[0].memory["private"] / 1e6 if private else None, wanted.private_mb)
    return [(text, value, target, met(value, target)) for text, value, target, met in found if value is not None]


def _verdict(summary: Summary) -> str:
    rows = [
        [text, f"{value:.2f}", f"{target:g}", "met" if met else "**missed**"]
        for text, value, target, met in verdicts(summary)
    ]
    return _table(["target", "measured", "wanted", ""], rows)


def overview(results: list[Result], *, quick: bool) -> str:
    """All models' targets side by side: what was measured, in bold where the target was missed."""
    columns = [(result.model, verdicts(Summary(result, QUICK if quick else FIGURES))) for result in results]
    names = list(dict.fromkeys(text for _, found in columns for text, *_ in found))
    rows = []
    for name in names:
        row = [name]
        for _, found in columns:
            cell = next((entry for entry in found if entry[0] == name), None)
            row.append("-" if cell is None else _cell(cell[1], cell[2], cell[3]))
        rows.append(row)
    return _table(["measured (wanted)", *(model for model, _ in columns)], rows)


def _cell(value: float, target: float, met: bool) -> str:
    text = f"{value:.0f}" if value >= 20 else f"{value:.2f}"
    return f"{text} ({target:g})" if met else f"**{text}** ({target:g})"


def _peers(summary: Summary) -> list[str]:
    seen = {sample.peer for sample in summary.result.samples if sample.figure in summary.figures}
    return [peer for peer in (OURS, NATIVE, IK, XLLAMA) if peer in seen]


def _rate(summary: Summary, figure: str, beside: int, peer: str) -> str:
    rates = [sample.rate for sample in summary.rounds(figure, beside, peer).values()]
    if not rates:
        return "-"
    middle = statistics.median(rates)
    form = ".0f" if middle >= 100 else ".1f"
    return f"{middle:{form}} ({min(rates):{form}}-{max(rates):{form}})" if len(rates) > 1 else f"{middle:{form}}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
