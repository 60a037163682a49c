"""
What a proof runs with the target's own Python: load a model, compute, generate, and say all of it as JSON.

    python on_target.py MODEL

Only edgellm and the standard library, so that it runs with either binding and without NumPy. The answer: which kernels
were picked, the sum of all logits' bits, the logits after the last token, and the tokens of a greedy answer.
"""

import hashlib
import json
import sys
from array import array

import edgellm
from edgellm import LLM, _native

TOKENS = [(i * 37 + 11) % 250 + 3 for i in range(40)]


def main(path: str) -> None:
    """Run the model at *path*."""
    sums, last = hashlib.sha256(), array("f")
    with LLM(path, n_ctx=128, threads=1) as llm:
        for chunk in (40, 7):  # a prompt at once, and in pieces: the same bits are promised
            rows = llm.logits(TOKENS, chunk=chunk)
            sums.update(rows.tobytes())
            last = array("f", rows[-1].tobytes())
        done = llm.generate(TOKENS, max_tokens=12, temperature=0)
    system = _native.system_info()
    answer = {
        "kernels": system["kernels"],
        "sha256": sums.hexdigest(),
        "logits": [round(x, 5) for x in last[:32]],
        "tokens": done.token_ids,
    }
    if "--system" in sys.argv:
        answer |= {"system": system, "version": edgellm.__version__, "python": sys.version.split()[0]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
