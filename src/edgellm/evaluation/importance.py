"""An importance matrix from a text: the model reads it, and the engine sums what goes into each product."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.evaluation.chunks import Reader
from edgellm.tools.gguf_file import Report, no_report
from edgellm.tools.quantization.imatrix import Imatrix, from_activations


def importance(
    reader: Reader,
    chunks: Sequence[Sequence[int]],
    dataset: str,
    *,
    head: bool = False,
    report: Report = no_report,
) -> Imatrix:
    """
    Read *chunks* and collect.

    Args:
        reader: The model; it reads these chunks with ggml's own backend and is left without what it collected.
        chunks: The text.
        dataset: Its name, which goes into the file.
        head: Also of ``output.weight``, which quantizers do well without.
        report: Told of the chunks read.

    Raises:
        NumericError, EdgellmError: The model produced NaN or infinity.
    """
    reader.engine.collect(True)
    try:
        for number, chunk in enumerate(chunks):
            report("reading", number, len(chunks))
            reader.read(chunk)
        report("reading", len(chunks), len(chunks))
        found = from_activations(reader.engine.activations(), {"output.weight": head})
    finally:
        reader.engine.collect(False)
    found.datasets, found.chunk_count, found.chunk_size = [dataset], len(chunks), reader.n_ctx
    return found
