"""
Record what llama.cpp answers greedily, and what exact arithmetic would say, to compare ours with both.

    python -m pip install xllamacpp==2026.10.11549 gguf==0.19.0 numpy
    python tests/data/greedy/record.py smollm2 SmolLM2-135M-Instruct.Q4_1.gguf
    python tests/data/greedy/record.py gemma3-270m gemma-3-270m-q4_k_m.gguf

NAME.json holds for each prompt its text and ids, the ids of up to 64 answer tokens, and for each of these how far the
best logit was above the second (null where llama.cpp does not tell). One sequence at a time, f16 KV, llama.cpp's
defaults otherwise. NAME.npz holds for each answer token the ids llama.cpp found most likely (``ids_N`` of shape
(n_tokens, 8) for run N), their log-probabilities (``llama_cpp_N``), and those of a forward pass in float64 over the
same weights dequantized (``exact_N``, tests/support/reference.py): llama.cpp rounds activations to 8 bits, exact
arithmetic does not.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp
from gguf import GGUFReader
from gguf.quants import dequantize

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from tests.support.reference import Reference  # needs the line above

N_TOKENS = 64
N_TOP = 8
QUESTIONS = [
    "Why is the sky blue?",
    "Name three colours.",
    "Write a Python function that reverses a string.",
    "Translate to French: The weather is nice today.",
    "What is 17 + 25? Explain step by step.",
    "Write a haiku about the sea.",
    "Who wrote Romeo and Juliet, and when?",
    "List the planets of the solar system in order.",
    "Give me a short recipe for pancakes.",
    "Explain what a computer virus is to a child.",
]
TEXTS = [
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "The three laws of thermodynamics are",
    "Dear Ms Miller,\n\nI am writing to",
    "1, 2, 4, 8, 16,",
    "The capital of France is",
    "Ingredients:\n- 2 eggs\n- 100 g of flour\n-",
    "Die Geschichte der Stadt beginnt im Jahr",
    "Q: How many legs does a spider have?\nA:",
    "She opened the door 😀 and",
]


def start(path: str) -> xllamacpp.Server:
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 2048
    params.n_parallel = 1
    params.cpuparams.n_threads = 2
    params.warmup = False
    params.verbosity = -1
    params.port = 0
    return xllamacpp.Server(params)


def post(server: xllamacpp.Server, path: str, body: dict[str, Any]) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(server.listening_address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def aligned(tokens: list[int], entries: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """The entry of each token; llama.cpp leaves out tokens that end inside a code point."""
    left = list(entries)
    return [left.pop(0) if left and left[0]["id"] == token else None for token in tokens]


def gap(entry: dict[str, Any] | None) -> float | None:
    """Best minus second logit."""
    if entry is None:
        return None
    best, second = (top["logprob"] for top in entry["top_logprobs"][:2])
    return round(best - second, 5)


def exact_reference(path: str) -> Reference:
    reader = GGUFReader(path)
    metadata = {key: field.contents() for key, field in reader.fields.items() if key.split(".")[0] != "tokenizer"}
    tensors = {
        t.name: dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)]) for t in reader.tensors
    }
    return Reference(metadata, tensors)


def log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class Recorder:
    def __init__(self, path: str) -> None:
        self.server = start(path)
        self.reference = exact_reference(path)
        self.runs: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}

    def record(self, kind: str, prompt: str) -> None:
        text = prompt
        if kind == "chat":
            text = post(self.server, "/apply-template", {"messages": [{"role": "user", "content": prompt}]})["prompt"]
        question = {"content": text, "add_special": True, "parse_special": True}
        ids = post(self.server, "/tokenize", question)["tokens"]
        options = {"n_predict": N_TOKENS, "temperature": 0, "n_probs": N_TOP, "cache_prompt": False}
        answer = post(self.server, "/completion", {"prompt": ids, "return_tokens": True, **options})
        entries = aligned(answer["tokens"], answer["completion_probabilities"])
        self.compare(ids, answer["tokens"], entries)
        self.runs.append(
            {
                "kind": kind,
                "prompt": prompt,
                "text": text,
                "prompt_ids": ids,
                "generated_ids": answer["tokens"],
                "generated_text": answer["content"],
                "stop": answer["stop_type"],
                "gaps": [gap(entry) for entry in entries],
            }
        )

    def compare(self, prompt: list[int], answer: list[int], entries: list[dict[str, Any] | None]) -> None:
        """Keep llama.cpp's and the exact log-probabilities of the tokens that llama.cpp found most likely."""
        exact = log_softmax(self.reference.logits(prompt + answer[:-1])[len(prompt) - 1 :])
        ids = np.zeros((len(answer), N_TOP), np.int32)
        theirs = np.full((len(answer), N_TOP), np.nan, np.float32)
        for at, entry in enumerate(entries):
            if entry is not None:
                ids[at] = [top["id"] for top in entry["top_logprobs"]]
                theirs[at] = [top["logprob"] for top in entry["top_logprobs"]]
        number = len(self.runs)
        self.arrays[f"ids_{number}"] = ids
        self.arrays[f"llama_cpp_{number}"] = theirs
        self.arrays[f"exact_{number}"] = np.take_along_axis(exact, ids, axis=1).astype(np.float32)


def main(name: str, path: str) -> None:
    prompts = [("raw", text) for text in TEXTS[:3]]  # the base model; it has no template
    if name.startswith("smollm2"):
        prompts = [("chat", text) for text in QUESTIONS] + [("raw", text) for text in TEXTS]
    recorder = Recorder(path)
    for prompt in prompts:
        recorder.record(*prompt)
    head = {
        "model": Path(path).name,
        "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "made_by": f"tests/data/greedy/record.py {name}, xllamacpp {version('xllamacpp')}, {platform.machine()}",
    }
    lines = [f'"{key}": {json.dumps(value)},' for key, value in head.items()]
    runs = [json.dumps(run, ensure_ascii=False) for run in recorder.runs]
    text = "\n".join(["{", *lines, '"runs": [', ",\n".join(runs), "]", "}", ""])
    json.loads(text)
    target = Path(__file__).with_name(f"{name}.json")
    target.write_text(text, encoding="utf-8")
    np.savez_compressed(target.with_suffix(".npz"), **recorder.arrays)
    print(f"{target}: {len(runs)} runs")


if __name__ == "__main__":
    main(*sys.argv[1:3])
