"""
Record what llama.cpp answers greedily, to compare ours with.

    python -m pip install xllamacpp==2026.10.11549
    python tests/data/greedy/record.py smollm2 SmolLM2-135M-Instruct.Q4_1.gguf
    python tests/data/greedy/record.py gemma3-270m gemma-3-270m-q4_k_m.gguf

writes tests/data/greedy/NAME.json: for each prompt its text and ids, the ids of up to 64 answer tokens, and for each
of these how far the best logit was above the second (null where llama.cpp does not tell). One sequence at a time,
f16 KV, llama.cpp's defaults otherwise.
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

import xllamacpp

N_TOKENS = 64
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


def gaps(tokens: list[int], entries: list[dict[str, Any]]) -> list[float | None]:
    """Best minus second logit per token; llama.cpp leaves out tokens that end inside a code point."""
    left = iter(entries)
    entry = next(left, None)
    result: list[float | None] = []
    for token in tokens:
        if entry is None or entry["id"] != token:
            result.append(None)
            continue
        best, second = (top["logprob"] for top in entry["top_logprobs"])
        result.append(round(best - second, 5))
        entry = next(left, None)
    return result


def record(server: xllamacpp.Server, kind: str, prompt: str) -> dict[str, Any]:
    text = prompt
    if kind == "chat":
        text = post(server, "/apply-template", {"messages": [{"role": "user", "content": prompt}]})["prompt"]
    ids = post(server, "/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
    options = {"n_predict": N_TOKENS, "temperature": 0, "n_probs": 2, "return_tokens": True, "cache_prompt": False}
    answer = post(server, "/completion", {"prompt": ids, **options})
    return {
        "kind": kind,
        "prompt": prompt,
        "text": text,
        "prompt_ids": ids,
        "generated_ids": answer["tokens"],
        "generated_text": answer["content"],
        "stop": answer["stop_type"],
        "gaps": gaps(answer["tokens"], answer["completion_probabilities"]),
    }


def main(name: str, path: str) -> None:
    server = start(path)
    prompts = [("raw", text) for text in TEXTS[:3]]  # the base model; it has no template
    if name.startswith("smollm2"):
        prompts = [("chat", text) for text in QUESTIONS] + [("raw", text) for text in TEXTS]
    head = {
        "model": Path(path).name,
        "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "made_by": f"tests/data/greedy/record.py {name}, xllamacpp {version('xllamacpp')}, {platform.machine()}",
    }
    runs = [json.dumps(record(server, *prompt), ensure_ascii=False) for prompt in prompts]
    lines = [f'"{key}": {json.dumps(value)},' for key, value in head.items()]
    text = "\n".join(["{", *lines, '"runs": [', ",\n".join(runs), "]", "}", ""])
    json.loads(text)
    target = Path(__file__).with_name(f"{name}.json")
    target.write_text(text, encoding="utf-8")
    print(f"{target}: {len(runs)} runs")


if __name__ == "__main__":
    main(*sys.argv[1:3])
