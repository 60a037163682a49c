"""
What was built: the header, the declarations generated from it, the library files; and how a build fails.

The library is looked for where the package looks for it. Failing builds are marked slow: each configures once.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.tiny import tiny_model

ROOT = Path(__file__).parents[2]
HEADER = ROOT / "include" / "edgellm.h"


def library_folder() -> Path:
    """The installed package's lib folder; beside the sources when the package is used from there."""
    import edgellm

    folder = Path(os.environ.get("EDGELLM_LIBRARY", Path(edgellm.__file__).parent / "lib" / "x")).parent
    if not list(folder.glob("libedgellm.*")):
        pytest.skip(f"no library in {folder}: run `make build`")
    return folder


def tool(name: str) -> str:
    """Path of a program, or skip."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*args: str | Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=600, **kwargs)  # type: ignore[call-overload,no-any-return]


# ---- header and declarations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        ("cc", ["-std=c99", "-xc"]),
        ("cc", ["-std=c11", "-xc"]),
        ("c++", ["-std=c++11", "-xc++"]),
        ("clang", ["-std=c99", "-xc"]),
    ],
)
def test_header_compiles_alone(compiler: str, flags: list[str], tmp_path: Path) -> None:
    source = tmp_path / "only.c"
    source.write_text('#include "edgellm.h"\n')
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Wstrict-prototypes", "-Werror"]
    if "++" in compiler:
        strict.remove("-Wstrict-prototypes")
    done = run(tool(compiler), *flags, *strict, f"-I{HEADER.parent}", "-fsyntax-only", source)
    assert done.returncode == 0, done.stderr


def declarations() -> str:
    done = run(
        sys.executable,
        "-c",
        "import sys; sys.path.insert(0, sys.argv[1]); import make_ffi; "
        "print(make_ffi.declarations(open(sys.argv[2], encoding='utf-8').read()))",
        ROOT / "cmake",
        HEADER,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_declarations_agree_with_header(tmp_path: Path) -> None:
    """Each declaration again after the header: a compiler refuses two that differ."""
    functions = re.findall(r"^[a-z][\w *]*\bedgellm_\w+\([^;]*\);", declarations(), re.M)
    assert len(functions) > 30
    source = tmp_path / "twice.c"
    source.write_text('#include "edgellm.h"\n' + "\n".join(functions) + "\n")
    done = run(tool("cc"), "-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{HEADER.parent}", "-fsyntax-only", source)
    assert done.returncode == 0, done.stderr


def test_every_public_function_is_declared_for_python() -> None:
    in_header = set(re.findall(r"EDGELLM_API [\w *]*?\b(edgellm_\w+)\(", HEADER.read_text()))
    in_python = set(re.findall(r"\b(edgellm_\w+)\(", declarations()))
    assert in_header
    assert in_header <= in_python


# ---- the installed files -------------------------------------------------------------------------------------------


def test_version_is_the_same_everywhere() -> None:
    from edgellm._edgellm_ffi import ffi

    [wanted] = re.findall(r'^#define EDGELLM_VERSION "(.*)"', HEADER.read_text(), re.M)
    lib = ffi.dlopen(str(next(library_folder().glob("libedgellm.*"))))
    assert ffi.string(lib.edgellm_version()).decode() == wanted
    with contextlib.suppress(metadata.PackageNotFoundError):  # raised when used from the source folder
        assert metadata.version("edgellm") == wanted


def test_struct_sizes() -> None:
    """The library's idea of every public struct is also cffi's."""
    from edgellm._edgellm_ffi import ffi

    lib = ffi.dlopen(str(next(library_folder().glob("libedgellm.*"))))
    structs = re.findall(r"^}\s*(edgellm_\w+);", re.sub(r"enum \w+ \{.*?\} \w+;", "", declarations(), flags=re.S), re.M)
    assert len(structs) >= 8
    for name in structs:
        assert lib.edgellm_struct_size(name.encode()) == ffi.sizeof(name), name


def test_system_json() -> None:
    from edgellm._edgellm_ffi import ffi

    lib = ffi.dlopen(str(next(library_folder().glob("libedgellm.*"))))
    buffer = ffi.new("char[]", 16384)
    assert lib.edgellm_system_json(buffer, len(buffer)) < len(buffer)
    system = json.loads(ffi.string(buffer))
    assert 1 <= system["threads"] <= system["cores"] <= system["cpus_allowed"] <= system["cpus_online"]
    assert set(system["features_used"]) <= set(system["features_found"])
    assert system["ggml"]["isa"]


@pytest.mark.parametrize("binding", ["cffi", "ctypes"])
def test_process_that_unloads_the_library_ends_well(binding: str) -> None:
    """C++ destructors must not run on unmapped code: the file is linked with -z nodelete."""
    path = next(library_folder().glob("libedgellm.*"))
    code = {
        "cffi": "from edgellm._edgellm_ffi import ffi; lib = ffi.dlopen(P); lib.edgellm_system_json(ffi.NULL, 0); "
        "ffi.dlclose(lib)",
        "ctypes": "import ctypes, _ctypes; lib = ctypes.CDLL(P); lib.edgellm_system_json(None, ctypes.c_size_t(0)); "
        "_ctypes.dlclose(lib._handle)",
    }[binding]
    done = run(sys.executable, "-c", f"P = {str(path)!r}; {code}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.unsanitized("its runtime is one more library")
@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")
def test_library_files_are_closed() -> None:
    """Exports, needed libraries, unloading, build paths, symbols: what CROSS-building relies on too."""
    objdump = tool("objdump")
    files = sorted(library_folder().glob("*.so"))
    modules = {"edgellm_ggml_x64.so", "edgellm_ggml_avx2.so"} if platform.machine() == "x86_64" else set()
    assert {f.name for f in files} == {"libedgellm.so"} | modules
    allowed = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"}
    for file in files:
        head = run(objdump, "-p", file).stdout
        needed = set(re.findall(r"NEEDED\s+(\S+)", head))
        assert {n for n in needed if not n.startswith("ld-linux")} <= allowed, (file.name, needed)
        assert re.search(r"FLAGS_1\s+0x\w*[89a-f]\b", head), f"{file.name} is not NODELETE"
        exported = {
            line.split()[-1]
            for line in run(objdump, "-T", file).stdout.splitlines()
            if " g " in line and "*UND*" not in line and "\t" in line
        }
        assert exported, file.name
        if file.name == "libedgellm.so":
            assert all(name.startswith("edgellm_") for name in exported), exported
        else:
            assert exported == {"edgellm_ggml_cpu"}
        content = file.read_bytes()
        assert str(ROOT).encode() not in content, f"{file.name} names the build folder"
        assert b".symtab" not in content, f"{file.name} is not stripped"
        assert file.stat().st_size < 4 << 20


@pytest.mark.unsanitized("its runtime is one more library")
@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")
def test_the_tensors_module_is_closed() -> None:
    files = sorted((library_folder().parent / "tensors").glob("_tensors.*.so"))
    if not files:
        pytest.skip("built without edgellm.tensors")
    for file in files:
        head, symbols = run(tool("objdump"), "-p", file).stdout, run(tool("objdump"), "-T", file).stdout
        needed = {n for n in re.findall(r"NEEDED\s+(\S+)", head) if not n.startswith("ld-linux")}
        assert needed <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"}
        exported = {line.split()[-1] for line in symbols.splitlines() if " g " in line and "*UND*" not in line}
        assert exported == {"PyInit__tensors"}
        content = file.read_bytes()
        assert str(ROOT).encode() not in content
        assert b".symtab" not in content
        assert file.stat().st_size < 1 << 20


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 modules")
def test_instruction_sets_are_the_named_ones() -> None:
    """
    No AVX in the baseline module, much of it in the other: VEX mnemonics start with v, SSE ones never do.

    libedgellm.so holds kernels of several instruction sets; the next test shows that it picks among them.
    """
    objdump = tool("objdump")
    for name, wanted in (("edgellm_ggml_x64.so", 0), ("edgellm_ggml_avx2.so", 5000)):
        code = run(objdump, "-d", "--no-show-raw-insn", library_folder() / name).stdout
        found = len(re.findall(r"^\s+[0-9a-f]+:\s+v[a-z0-9]+\s", code, re.M))
        assert (found > wanted) if wanted else (found == 0), (name, found)


@pytest.mark.slow
@pytest.mark.unsanitized("it reserves more address space than qemu gives")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates x86-64 CPUs")
@pytest.mark.parametrize(("cpu", "isa"), [("Nehalem", "x64"), ("qemu64", "x64"), ("Haswell", "avx2")])
def test_python_on_an_emulated_cpu(cpu: str, isa: str) -> None:
    """Loading the library from Python runs no instruction that the CPU lacks, and takes the right module."""
    code = (
        "import ctypes; lib = ctypes.CDLL(P); b = ctypes.create_string_buffer(16384); "
        "lib.edgellm_system_json(b, ctypes.c_size_t(len(b))); print(b.value.decode())"
    )
    path = str(next(library_folder().glob("libedgellm.*")))
    done = run(tool("qemu-x86_64-static"), "-cpu", cpu, os.path.realpath(sys.executable), "-c", f"P = {path!r}; {code}")
    assert done.returncode == 0, done.stderr
    system = json.loads(done.stdout)
    assert system["ggml"]["isa"] == isa
    assert ("avx2" in system["features_used"]) == (isa == "avx2")


@pytest.mark.slow
@pytest.mark.unsanitized("it reserves more address space than qemu gives")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates x86-64 CPUs")
def test_run_without_avx(tmp_path: Path) -> None:
    """`edgellm run` on a CPU of 2008 says what the plain C kernels say here."""
    model = tiny_model(tmp_path / "tiny.gguf", "llama")
    command = ["-m", "edgellm", "run", model, "The sky", "--raw", "--temp", "0", "-n", "12", "--json"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "NO_COLOR": "1"}
    emulated = [tool("qemu-x86_64-static"), "-cpu", "Nehalem", os.path.realpath(sys.executable)]
    answers = []
    for python, disable in ((emulated, ""), ([sys.executable], "avx2")):
        done = run(*python, *command, env={**env, "EDGELLM_CPU_DISABLE": disable})
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    assert answers[0]["text"] == answers[1]["text"]


def test_licences_travel_along() -> None:
    import edgellm

    folder = Path(edgellm.__file__).parent / "licenses"
    if not folder.exists():
        pytest.skip("edgellm is used from its source folder")
    assert "ggml" in (folder / "ggml.txt").read_text()
    assert "edgellm" in (folder / "edgellm.txt").read_text()
    names = [str(f) for f in metadata.files("edgellm") or []]
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert any(n.endswith("licenses/THIRD_PARTY.md") for n in names)


# ---- builds that fail ------------------------------------------------------------------------------------------------


def configure(tmp_path: Path, *options: str, **environment: str) -> str:
    """Configure and give back what CMake printed on failure, on one line."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CMAKE", "SKBUILD", "CC", "CXX"))}
    env.update(environment)
    done = run(
        tool("cmake"), "-S", ROOT, "-B", tmp_path / "build", f"-DPython_EXECUTABLE={sys.executable}", *options, env=env
    )
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    return re.sub(r"\s+", " ", done.stderr)


def archive_name() -> tuple[str, str]:
    pin = (ROOT / "cmake" / "ggml.txt").read_text()
    [version] = re.findall(r"libggml-python==(\S+)", pin)
    [digest] = re.findall(r"sha256:(\w+)", pin)
    return f"libggml_python-{version}.tar.gz", digest


@pytest.mark.slow
def test_wrong_ggml_source(tmp_path: Path) -> None:
    said = configure(tmp_path, f"-DEDGELLM_GGML_SOURCE={tmp_path}")
    assert str(tmp_path) in said
    assert "include/ggml.h" in said
    assert "-U EDGELLM_GGML_SOURCE" in said


@pytest.mark.slow
def test_no_compiler(tmp_path: Path) -> None:
    said = configure(tmp_path, CC="/nowhere/cc", CXX="/nowhere/c++")
    assert "apt-get install build-essential" in said


@pytest.mark.slow
@pytest.mark.skipif((ROOT / "third_party").exists(), reason="the archive in third_party/ would be taken")
def test_index_out_of_reach(tmp_path: Path) -> None:
    said = configure(
        tmp_path, EDGELLM_CACHE=str(tmp_path / "cache"), PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_EXTRA_INDEX_URL=""
    )
    assert "pip download" in said
    assert "EDGELLM_GGML_SOURCE" in said
    assert "third_party" in said


@pytest.mark.slow
@pytest.mark.skipif((ROOT / "third_party").exists(), reason="the archive in third_party/ would be taken")
def test_offline(tmp_path: Path) -> None:
    said = configure(tmp_path, EDGELLM_CACHE=str(tmp_path / "cache"), EDGELLM_OFFLINE="1")
    assert "env -u EDGELLM_OFFLINE" in said


@pytest.mark.slow
@pytest.mark.skipif((ROOT / "third_party").exists(), reason="the archive in third_party/ would be taken")
def test_index_sends_another_file(tmp_path: Path) -> None:
    """A folder that serves a package of the right name and the wrong bytes."""
    name, _ = archive_name()
    links = tmp_path / "links"
    links.mkdir()
    (links / name).write_bytes(b"not what was asked for")
    said = configure(tmp_path, EDGELLM_CACHE=str(tmp_path / "cache"), PIP_NO_INDEX="1", PIP_FIND_LINKS=str(links))
    assert "not the one edgellm was written against" in said
    assert "pip cache remove" in said


@pytest.mark.slow
@pytest.mark.skipif((ROOT / "third_party").exists(), reason="the archive in third_party/ would be taken")
def test_damaged_cache(tmp_path: Path) -> None:
    name, digest = archive_name()
    cached = tmp_path / "cache" / "ggml" / digest / name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"half a download")
    said = configure(tmp_path, EDGELLM_CACHE=str(tmp_path / "cache"))
    assert f"cmake -E rm {cached}" in said
    assert digest in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "word"),
    [("-DEDGELLM_SANITIZE=everything", "address,undefined"), ("-DEDGELLM_FUZZ=ON", "clang")],
)
def test_wrong_options(option: str, word: str, tmp_path: Path) -> None:
    if "FUZZ" in option and "clang" in run(tool("cc"), "--version").stdout:
        pytest.skip("cc is clang here")
    assert word in configure(tmp_path, option)
