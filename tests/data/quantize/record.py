"""
Record what llama.cpp's llama-quantize makes of the tiny models, for test_quantization.py:

    PYTHONPATH=src:. python tests/data/quantize/record.py PATH-OF-llama-quantize

For each model, file type, and with and without an importance matrix: the types of the tensors, sorted by name, and for
the small model ("one") a digest of their bytes; null where llama-quantize refuses. The tool came from
llama-cpp-python 0.3.36. Two of its file types are not ours, and IQ1_M is searched for in another order of summation by
the newer ggml it has, so its bytes are left out.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgellm.tools.gguf_file import GgufFile
from edgellm.tools.quantization import imatrix as matrices
from edgellm.tools.quantization.file_types import FILE_TYPES
from tests.data.quantize.models import MODELS, importance, make

OURS = ("MXFP4", "NVFP4")  # file types that the tool does not have


def tensors(path: Path) -> tuple[str, str]:
    """Types by name, and a digest of names, types and bytes."""
    digest = hashlib.sha256()
    with GgufFile(path) as file:
        infos = sorted(file.tensors, key=lambda info: info.name)
        for info in infos:
            digest.update(
                f"{info.name} {info.type.name} ".encode() + file.read(file.data_start + info.offset, info.n_bytes)
            )
        return " ".join(info.type.name for info in infos), digest.hexdigest()


def main() -> None:
    tool = sys.argv[1]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in MODELS:
            path = make(model, folder)
            matrices.write(folder / "imatrix.gguf", importance(path), force=True)
            for kind in FILE_TYPES:
                if kind in OURS:
                    continue
                for option in ([], ["--imatrix", str(folder / "imatrix.gguf")]):
                    command = [tool, *option, str(path), str(folder / "out.gguf"), kind, "1"]
                    done = subprocess.run(command, capture_output=True, check=False)
                    types, digest = tensors(folder / "out.gguf") if done.returncode == 0 else (None, None)
                    keep = model == "one" and kind != "IQ1_M" and digest
                    found[f"{model} {kind}{' imatrix' if option else ''}"] = [types, digest if keep else None]
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items())
    Path(__file__).with_name("llama_quantize.json").write_text(f"{{\n{lines}\n}}\n")
    print(len(found), sum(types is None for types, _ in found.values()), "refused")


if __name__ == "__main__":
    main()
