"""
The peers' programs: a native llama.cpp built from the llama-cpp-python source distribution, the worker's shim to it,
and a virtual environment with the wheels. ``python -m bench.native`` makes them all; what is there is kept.

Environment: EDGELLM_BENCH_LLAMA_CPP, a build folder of llama.cpp to use instead of building one (its source folder is
read from CMakeCache.txt); EDGELLM_BENCH_PYTHON, a Python that has the wheels; EDGELLM_BENCH_JOBS, compilers at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from bench.folders import ROOT, cache

SDIST = "llama_cpp_python"
VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
WHEELS = ["xllamacpp==2026.10.11549", "ik-llama-cpp-python==0.1.5"]
TARGETS = [
    "llama-bench",
    "llama-completion",
    "llama-quantize",
    "llama-batched-bench",
    "llama-perplexity",
    "llama-imatrix",
]
OPTIONS = [
    "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=ON", "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_BUILD_MTMD=OFF",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Llama:
    """One llama.cpp: its source and build folders; *omp* the folder with an OpenMP libggml-cpu, if there is one."""

    source: Path
    build: Path
    omp: Path | None
    version: str

    def tool(self, name: str) -> Path:
        """One of its programs; a missing one is named together with what makes it."""
        path = self.build / "bin" / name
        if not path.exists():
            raise SystemExit(
                f"{path} is missing: python -m bench.native, or cmake --build {self.build} --target {name}"
            )
        return path

    def environment(self, variant: str) -> dict[str, str]:
        """Variables for a run: with the word ``omp`` the OpenMP build of ggml's CPU backend comes first."""
        if "omp" in variant.split() and self.omp:
            return {"LD_LIBRARY_PATH": str(self.omp / "bin")}
        return {}

    def shim(self) -> Path:
        """llama_shim.c compiled against this llama.cpp."""
        code = ROOT / "bench" / "peers" / "llama_shim.c"
        name = hashlib.sha256(code.read_bytes() + str(self.build).encode() + self.version.encode()).hexdigest()[:12]
        target = cache() / f"llama_shim-{name}.so"
        if not target.exists():
            include = [f"-I{self.source / 'include'}", f"-I{self.source / 'ggml' / 'include'}"]
            libraries = [f"-L{self.build / 'bin'}", "-lllama", "-lggml", "-lggml-base"]
            run = f"-Wl,--enable-new-dtags,-rpath,{self.build / 'bin'}"
            part = target.with_name(f"{target.name}.{os.getpid()}")
            call(["cc", "-O2", "-fPIC", "-shared", *include, str(code), *libraries, run, "-o", str(part)])
            part.replace(target)
        return target


def call(command: list[str], **options: str) -> None:
    """Run it, its words on standard error; stop with the command when it fails."""
    print("+ " + " ".join(command), file=sys.stderr)
    if subprocess.run(command, stdout=sys.stderr, check=False, cwd=options.get("cwd")).returncode:
        raise SystemExit(f"this failed: {' '.join(command)}")


def source_folder() -> Path:
    """llama.cpp's sources, fetched by pip and checked by hash on first use."""
    folder = cache() / f"{SDIST}-{VERSION}"
    source = folder / "vendor" / "llama.cpp"
    if source.exists():
        return source
    archive = cache() / f"{SDIST}-{VERSION}.tar.gz"
    if not archive.exists():
        fetch(archive)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{archive} has sha256 {digest} instead of {SHA256}: remove it and try again")
    part = folder.with_name(f"{folder.name}.{os.getpid()}")
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(part, filter="data")
        else:
            tar.extractall(part)  # older Pythons; the hash was checked above
    next(part.iterdir()).rename(folder)
    shutil.rmtree(part)
    return source


def fetch(archive: Path) -> None:
    """The source distribution by pip, without building anything for it."""
    download = archive.parent / "download"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    call([*command, "-d", str(download), f"{SDIST}=={VERSION}"])
    found = sorted(download.glob(f"{SDIST}-{VERSION}*.tar.gz"))
    if not found:
        raise SystemExit(f"pip put no {SDIST}-{VERSION}.tar.gz into {download}")
    found[0].replace(archive)


def llama() -> Llama:
    """The native llama.cpp, built on first use (some ten minutes on two cores)."""
    given = os.environ.get("EDGELLM_BENCH_LLAMA_CPP")
    if given:
        build = Path(given).resolve()
        omp = build.with_name(build.name + "-omp")
        return Llama(_source_of(build), build, omp if omp.exists() else None, f"from {build}")
    source = source_folder()
    build, omp = source.parent / "build", source.parent / "build-omp"
    if not (build / "done").exists():
        _build(source, build, "OFF", TARGETS)
    if not (omp / "done").exists():
        _build(source, omp, "ON", ["ggml-cpu"])  # this library alone differs; its programs are the others'
    return Llama(source, build, omp, f"{SDIST} {VERSION}")


def _build(source: Path, build: Path, openmp: str, targets: list[str]) -> None:
    jobs = os.environ.get("EDGELLM_BENCH_JOBS") or str(os.cpu_count() or 1)
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    call(["cmake", *generator, "-S", str(source), "-B", str(build), *OPTIONS, f"-DGGML_OPENMP={openmp}"])
    call(["cmake", "--build", str(build), "-j", jobs, "--target", *targets])
    (build / "done").write_text(" ".join(targets) + "\n")


def _source_of(build: Path) -> Path:
    cached = build / "CMakeCache.txt"
    if not cached.exists():
        raise SystemExit(f"EDGELLM_BENCH_LLAMA_CPP: {build} is no CMake build folder (no CMakeCache.txt)")
    for line in cached.read_text().splitlines():
        if line.startswith("CMAKE_HOME_DIRECTORY:INTERNAL="):
            return Path(line.split("=", 1)[1])
    raise SystemExit(f"{cached} does not say where its sources are")


def python() -> Path:
    """A Python that has xllamacpp and ik_llama_cpp."""
    given = os.environ.get("EDGELLM_BENCH_PYTHON")
    if given:
        return Path(given)
    folder = cache() / "venv"
    interpreter = folder / "bin" / "python"
    done = folder / "done"
    if not done.exists() or done.read_text() != "\n".join(WHEELS):
        call([sys.executable, "-m", "venv", "--clear", str(folder)])
        call([str(interpreter), "-m", "pip", "install", "-q", "--no-deps", *WHEELS])
        done.write_text("\n".join(WHEELS))
    return interpreter


if __name__ == "__main__":
    print(llama(), llama().shim(), python(), sep="\n")
