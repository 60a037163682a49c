"""
Types chosen for a size: where bytes are short they go to the tensors that lose most without them.

The measure. A product y = W x whose weights are off by D is off by D x. With what an importance matrix knows, the mean
squares m of the columns of x, and columns that vary by themselves, the mean square of that is the sum over i and j of
D(i,j)^2 m(j); that of y itself the sum of W(i,j)^2 m(j). The quotient, the noise that quantizing adds to the product's
result relative to the result, is the tensor's sensitivity to a type. It is measured for every candidate type on up to
ROWS rows of each tensor, spread over it, by quantizing them; without an importance matrix all m are 1.

The choice. The noises of all products are added up as if they were independent and counted alike, and that sum is made
small under the limit: every tensor begins with its smallest type, and again and again the step that takes off most
noise for a byte is taken, along each tensor's lower convex hull, until nothing more fits. (Shoham and Gersho 1988 is
the source of that algorithm.) Types that edgellm computes with its own kernels are the candidates.
"""

from __future__ import annotations

import heapq
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edgellm.errors import InvalidArgument
from edgellm.tools.gguf_file import Report, no_report
from edgellm.tools.quantization import mixture
from edgellm.tools.quantization.file_types import TYPES, row_bytes
from edgellm.tools.quantization.imatrix import Imatrix
from edgellm.tools.quantization.source import Source, Weights, tensors_module

ROWS = 16
CANDIDATES = (
    "Q2_K", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K", "Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0", "F16",
)  # fmt: skip
HEADER_SLACK = 4096  # bytes by which the new header may be longer


@dataclass(frozen=True)
class Choice:
    """A type for a tensor: its bytes, and the noise it adds to the product, relative to the product."""

    type: str
    n_bytes: int
    noise: float


def measure(weights: Weights, imatrix: Imatrix | None) -> list[Choice]:
    """
    What each candidate type costs a tensor and does to it, by bytes.

    Raises:
        InvalidArgument: The tensor holds values that are not finite.
    """
    tensors = tensors_module()
    n, rows = weights.n_per_row, min(ROWS, weights.n_rows)
    places = np.linspace(0, weights.n_rows - 1, rows).astype(int)
    raw = np.concatenate([weights.rows(int(place), 1) for place in places])
    exact = tensors.dequantize(raw, weights.info.type.name, (rows, n))
    means = imatrix.means(weights.info.name) if imatrix is not None else None
    means = None if means is None or means.size % n else means.reshape(-1, n)
    matrices = places // weights.rows_per_matrix % (1 if means is None else len(means))
    importance = np.ones((rows, n), np.float32) if means is None else means[matrices]
    power = float(np.sum(importance * np.square(exact), dtype=np.float64)) or 1.0
    found = []
    for name in CANDIDATES:
        kind = TYPES[name]
        if n % kind.elements:
            continue
        made = [
            tensors.quantize(exact[matrices == i], name, None if means is None else means[i])
            for i in np.unique(matrices)
        ]
        off = tensors.dequantize(np.concatenate(made), name, (rows, n)) - exact
        noise = float(np.sum(importance * np.square(off), dtype=np.float64)) / power
        found.append(Choice(name, weights.n_rows * row_bytes(kind, n), noise))
    return found


def hull(choices: list[Choice]) -> list[Choice]:
    """Those on the lower convex hull of noise over bytes: from the smallest on, each step takes off less for a byte."""
    found: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.n_bytes, c.noise)):
        if found and choice.noise >= found[-1].noise:
            continue
        while len(found) > 1 and _gain(found[-1], choice) >= _gain(found[-2], found[-1]):
            found.pop()
        found.append(choice)
    return found


def _gain(a: Choice, b: Choice) -> float:
    return (a.noise - b.noise) / max(1, b.n_bytes - a.n_bytes)


def choose(choices: dict[str, list[Choice]], n_bytes: int) -> dict[str, str]:
    """
    One type for each tensor, together at most *n_bytes*.

    Raises:
        InvalidArgument: Even the smallest types take more.
    """
    hulls = {name: hull(found) for name, found in choices.items()}
    at = dict.fromkeys(hulls, 0)
    used = sum(found[0].n_bytes for found in hulls.values())
    if used > n_bytes:
        raise InvalidArgument(
            f"the smallest types take {used / 1e6:.1f} MB, the size leaves {max(0, n_bytes) / 1e6:.1f} MB: allow more"
        )
    steps = [(-_gain(found[0], found[1]), name) for name, found in hulls.items() if len(found) > 1]
    heapq.heapify(steps)
    while steps:
        _, name = heapq.heappop(steps)
        now, after = hulls[name][at[name] : at[name] + 2]
        if used + after.n_bytes - now.n_bytes > n_bytes:
            continue  # this tensor stays; smaller ones may still have a step that fits
        used += after.n_bytes - now.n_bytes
        at[name] += 1
        if at[name] + 1 < len(hulls[name]):
            heapq.heappush(steps, (-_gain(*hulls[name][at[name] : at[name] + 2]), name))
    return {name: found[at[name]].type for name, found in hulls.items()}


def types_for_size(
    source: Source,
    n_bytes: int,
    fixed: dict[str, str],
    imatrix: Imatrix | None,
    *,
    threads: int = 1,
    report: Report = no_report,
) -> dict[str, str]:
    """
    Types by name, so that the whole file has at most *n_bytes*.

    Args:
        source: The model.
        n_bytes: Of the file.
        fixed: Tensors whose type is decided already.
        imatrix: Importance of the columns.
        threads: That measure.
        report: Told of the tensors measured.

    Raises:
        InvalidArgument: The size cannot be kept, or a tensor holds values that are not finite.
    """
    free = [w for w in source.tensors if mixture.is_quantizable(w.info.name, w.info.shape) and w.info.name not in fixed]
    left = n_bytes - source.header_bytes - HEADER_SLACK
    for weights in source.tensors:
        if weights not in free:
            kind = TYPES[fixed.get(weights.info.name, weights.info.type.name)]
            left -= weights.n_rows * row_bytes(kind, weights.n_per_row) + source.alignment
    left -= len(free) * source.alignment
    found: dict[str, list[Choice]] = {}
    with ThreadPoolExecutor(max(1, threads)) as pool:
        try:
            for weights, choices in zip(free, pool.map(lambda w: measure(w, imatrix), free), strict=True):
                found[weights.info.name] = choices
                report("measuring", len(found), len(free))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return {**choose(found, left), **fixed}
