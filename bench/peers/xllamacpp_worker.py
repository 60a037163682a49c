"""llama.cpp as the wheel xllamacpp brings it: its Server object, in process, asked with token ids."""

from __future__ import annotations

import importlib.metadata
import random
import threading
import time
import zlib
from typing import Any

import xllamacpp

from bench.peers.worker import serve


class XllamacppEngine:
    """
    A Server for one shape at a time; it loads the model anew when the shape changes.

    Variants: ``-fa0`` switches flash attention off (the default lets llama.cpp choose).
    """

    def __init__(self, model: str, threads: int, variant: str) -> None:
        self._model = model
        self._threads = threads
        self.variant = variant
        self.version = importlib.metadata.version("xllamacpp")
        self.flags = variant or "default"
        self.server: Any = None
        self.n_vocab = 4096  # ids below this exist in every model compared here; the interface has no count

    def shape(self, n_seqs: int, n_ctx: int) -> None:
        self.server = None
        params = xllamacpp.CommonParams()
        params.model.path = self._model
        params.n_ctx = n_ctx * n_seqs
        params.n_parallel = n_seqs
        params.n_gpu_layers = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        params.cache_ram_mib = 0
        params.fit_params = False
        params.verbosity = 0
        if "-fa0" in self.variant:
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = xllamacpp.Server(params)


class Requests:
    """
    The figures as requests. The server's own clocks are read: its prompt time for prefill, its generation time for
    decode, where the first of n tokens falls to the prompt. Its tokens are its own greedy choice: that costs it the
    sampling, a few microseconds a token, which the other workers do not pay.
    """

    def __init__(self, engine: XllamacppEngine) -> None:
        self.engine = engine
        self._shape = (0, 0)
        self._figure = ""
        self._n = 0
        self._prompts: list[list[int]] = []

    def prepare(self, figure: str, n: int, depth: int, seqs: int, seed: int) -> None:
        """Load for the shape; put *depth* tokens into the server's cache, which the timed request finds again."""
        numbers = random.Random(seed)
        seqs = seqs if figure == "together" else 1
        shape = (seqs, -(-(depth + n + 16) // 256) * 256)
        if shape != self._shape:
            self.engine.shape(*shape)
            self._shape = shape
        self._figure, self._n = figure, n
        length = n if figure == "prefill" else depth + 1
        self._prompts = [[numbers.randrange(256, self.engine.n_vocab) for _ in range(length)] for _ in range(seqs)]
        if figure != "prefill" and depth:
            self._ask(0, 1)

    def go(self, limit: float) -> dict[str, Any]:
        """Ask all sequences at once. A request cannot be stopped in between, so *limit* is not kept."""
        del limit
        if self._figure == "prefill":
            answers = self._ask(0, 1)
            seconds, tokens = answers[0]["timings"]["prompt_ms"] / 1000, answers[0]["timings"]["prompt_n"]
        else:
            began = time.perf_counter()
            answers = self._ask(0, self._n + 1)
            whole = time.perf_counter() - began
            tokens = sum(a["timings"]["predicted_n"] - 1 for a in answers)
            # Together: from the end of the first prompt (one token each) to the last answer, at most the whole time.
            seconds = min(whole, max(a["timings"]["predicted_ms"] for a in answers) / 1000)
        text = "".join(a["choices"][0]["text"] for a in answers)
        return {"tokens": tokens, "steps": self._n, "seconds": seconds, "checksum": f"{zlib.crc32(text.encode()):08x}"}

    def fill(self, tokens: int) -> None:
        """As worker.Measure.fill, by one request."""
        numbers = random.Random(tokens)
        self.engine.shape(1, tokens + 16)
        self._prompts = [[numbers.randrange(256, self.engine.n_vocab) for _ in range(tokens - 16)]]
        self._ask(0, 16)

    def _ask(self, first: int, n_predict: int) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = [{} for _ in self._prompts]

        def ask(i: int) -> None:
            answers[i] = self.engine.server.handle_completions(
                {
                    "prompt": self._prompts[i],
                    "n_predict": n_predict,
                    "temperature": 0,
                    "ignore_eos": True,
                    "cache_prompt": self._figure != "prefill",
                    "id_slot": first + i,
                }
            )

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(self._prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for answer in answers:
            if "timings" not in answer:
                raise RuntimeError(f"xllamacpp answers {str(answer)[:200]}")
        return answers


if __name__ == "__main__":
    serve(XllamacppEngine, Requests)
