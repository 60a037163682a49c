"""cross/ without compiling: the table of targets, flags for zig, papers, and what is said when something is missing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import check
import common
import emulate
import papers
import platforms
import repack
import sysroot
import zigcc
import zigtools
from common import Stop, targets

ROOT = Path(__file__).parents[2]
EVERY = {"about", "system", "processor", "host_platform", "tag", "format", "machine", "max_mb", "proof"}


# ---- the table ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", targets())
def test_table_is_complete(name: str) -> None:
    target = targets()[name]
    assert set(target) >= EVERY
    assert target["max_mb"] <= 4
    assert set(target.get("must", [])) | set(target.get("never", [])) <= set(check.INSTRUCTIONS)
    assert {"python": "cpus", "c": "emulator", "none": "why"}[target["proof"]] in target
    assert "why" in target or target["proof"] == "python"
    if target.get("glibc"):
        assert target["triple"].endswith(f"gnu.{target['glibc']}") or target["triple"].endswith(f".{target['glibc']}")
        if "manylinux" in target["tag"]:
            assert f"_{target['glibc'].replace('.', '_')}_" in target["tag"]
    if target["system"] == "Linux" and target["machine"] in ("aarch64", "arm"):
        assert target["min_align"] >= 16384
        assert target["max_mb"] == 2


def test_tags_are_unique() -> None:
    tags = [target["tag"] for target in targets().values()]
    assert len(set(tags)) == len(tags)


def test_unknown_target_names_all() -> None:
    with pytest.raises(Stop, match="there is no target 'pi'; there are: rpi-aarch64, rpi-armv7"):
        common.target_named("pi")


def test_list() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "cross" / "build.py", "list"], capture_output=True, text=True, check=True
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(targets())


# ---- flags -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "-mcpu=base"),
        (["-march=armv8-a"], "-mcpu=generic"),
        (["-march=armv8.2-a+dotprod"], "-mcpu=generic+v8_2a+dotprod"),
        (["-march=armv8.2-a+dotprod+i8mm"], "-mcpu=generic+v8_2a+dotprod+i8mm"),
        (["-march=armv8.2-a+dotprod+fp16"], "-mcpu=generic+v8_2a+dotprod+fullfp16"),
        (["-march=armv7-a", "-mfpu=neon-vfpv4"], "-mcpu=generic+v7a+neon+vfp4"),
        (["-mcpu=cortex-a76"], "-mcpu=cortex_a76"),
        (["-march=armv8-a", "-march=armv8.2-a+dotprod"], "-mcpu=generic+v8_2a+dotprod"),
    ],
)
def test_instruction_set_flags(flags: list[str], expected: str) -> None:
    assert zigcc.translate(["-O2", *flags, "-c"], "base") == [expected, "-g0", "-O2", "-c"]


def test_flags_that_pass_and_that_do_not() -> None:
    assert zigcc.translate(["-mavx2", "-Wl,--exclude-libs,ALL", "-static-libgcc"], "x86_64") == [
        "-mcpu=x86_64",
        "-g0",
        "-mavx2",
    ]
    assert zigcc.translate(["x/CMakeCXXCompilerId.cpp"], "x86_64")[-1] == "-c"
    with pytest.raises(SystemExit, match=r"add it to cross/zigcc\.py"):
        zigcc.translate(["-march=native"], "base")


def test_compilers_do_not_name_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that ccache, which looks at their text, serves every checkout."""
    monkeypatch.setenv("EDGELLM_CACHE", str(tmp_path / "cache"))
    folder = zigtools.wrappers(tmp_path / "tools", tmp_path, {"cpu": "generic"}, "aarch64-linux-musl")
    text = (folder / "clang").read_text()
    assert str(ROOT) not in text.replace(sys.executable, "").replace(str(Path(sys.executable).parent), "")
    [translator] = (tmp_path / "cache" / "cross").glob("zigcc-*.py")
    assert str(translator) in text
    assert translator.read_bytes() == (ROOT / "cross" / "zigcc.py").read_bytes()


# ---- the wheel's form, and the papers ----------------------------------------------------------------------


def raw_wheel(path: Path, when: tuple[int, int, int, int, int, int], names: list[str]) -> Path:
    info = "edgellm-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name, when), name * 100)
        text = "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-linux_aarch64\n\n"
        archive.writestr(zipfile.ZipInfo(f"{info}/WHEEL", when), text)
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD", when), "")
    return path


def test_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    target = targets()["rpi-aarch64"]
    made = []
    for i, names in enumerate((["edgellm/a.py", "edgellm/lib/x.so"], ["edgellm/lib/x.so", "edgellm/a.py"])):
        (tmp_path / str(i)).mkdir()
        raw = raw_wheel(tmp_path / f"raw{i}.whl", (2000 + i, 1, 1, 0, 0, 0), names)
        made.append(repack.repack(raw, tmp_path / str(i), target, tmp_path))
    assert made[0].read_bytes() == made[1].read_bytes()
    assert made[0].name == "edgellm-1.0-py3-none-manylinux_2_28_aarch64.whl"
    wheel = check.open_wheel(made[0], target)
    assert not [*check.tags(wheel), *check.record(wheel)]


def test_papers(tmp_path: Path) -> None:
    wheel = tmp_path / "edgellm-1.0-py3-none-x.whl"
    wheel.write_bytes(b"wheel")
    other = tmp_path / "other.whl"
    other.write_bytes(b"other")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  gone.whl\n{hashlib.sha256(b'other').hexdigest()}  other.whl\n")
    papers.write_papers(wheel, {"name": "x"}, [{"check": "tags", "result": "passed", "detail": ""}])
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(": OK") == 4
    proofs = json.loads((tmp_path / f"{wheel.name}.proofs.json").read_text())
    assert proofs["results"][0]["check"] == "tags"
    assert proofs["versions"]["ziglang"] == common.pins()["ziglang"]
    bill = json.loads((tmp_path / f"{wheel.name}.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert {one["name"] for one in bill["components"]} == {"ggml", "libc++", "compiler-rt"}
    assert bill == papers.sbom(wheel, hashlib.sha256(b"wheel").hexdigest())


# ---- what is missing ---------------------------------------------------------------------------------------


def run_build(*words: str, path: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    around = {**os.environ, **environment} | ({"PATH": path} if path else {})
    command = [sys.executable, ROOT / "cross" / "build.py", *words]
    return subprocess.run(command, capture_output=True, text=True, env=around, timeout=120)


def says(done: subprocess.CompletedProcess[str], code: int, text: str) -> None:
    assert done.returncode == code, done.stderr
    assert text in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_sentence_for_unknown_target(tmp_path: Path) -> None:
    says(run_build("rpi", "--out", str(tmp_path)), 2, "there is no target 'rpi'; there are:")


def test_sentence_without_network(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    done = run_build("rpi-aarch64", "--out", str(tmp_path / "o"), EDGELLM_CACHE=str(cache), EDGELLM_OFFLINE="1")
    says(done, 2, "EDGELLM_OFFLINE forbids fetching it")
    assert [p.name for p in cache.rglob("*")] == ["cross"]


def test_no_debris_when_the_index_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELLM_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.delenv("EDGELLM_OFFLINE", raising=False)
    with pytest.raises(Stop, match="which fetches the compiler, failed"):
        zigtools.installed()
    assert [p.name for p in tmp_path.rglob("*")] == ["cross"]


def test_sentence_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stop, match=r"has \d+ MB free, this takes 999999999: make room"):
        common.need_space(tmp_path, 999_999_999)


def test_sentence_for_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    says(run_build("rpi-aarch64", "--out", str(file / "x")), 2, "name another folder with --out")
    says(run_build("rpi-aarch64", EDGELLM_CACHE=str(file / "x")), 2, "name another folder in EDGELLM_CACHE")


def test_sentence_without_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulate.shutil, "which", lambda name: None)
    with pytest.raises(Stop, match="apt-get install qemu-user-static, or leave --prove away"):
        emulate.qemu("qemu-aarch64")


def test_sentence_without_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysroot.shutil, "which", lambda name: None)
    with pytest.raises(Stop, match="or leave --prove away"):
        sysroot.sources()
    monkeypatch.setenv("EDGELLM_SYSROOT_ARM64", "/nonexistent")
    with pytest.raises(Stop, match="EDGELLM_SYSROOT_ARM64=/nonexistent has no usr/bin/python3"):
        sysroot.sysroot("arm64")


INTERRUPTED = """
import sys
sys.path.insert(0, sys.argv[1])
import common
try:
    with common.interruptible():
        script = 'mktemp >/dev/null; sleep 60 & echo $$,$! >"$0.part"; mv "$0.part" "$0"; wait'
        common.run(["sh", "-c", script, sys.argv[2]], "x")
except KeyboardInterrupt:
    sys.exit(130)
"""


def runs(process: str) -> bool:
    """Whether it has not ended; that nobody has collected it yet does not matter."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_ends_a_build_ends_all_that_it_started(tmp_path: Path, number: signal.Signals) -> None:
    said, temporary = tmp_path / "said", tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-c", INTERRUPTED, str(ROOT / "cross"), str(said)]
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(temporary)})
    until = time.monotonic() + 30
    while not said.exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(30) == 130
    assert [started for started in said.read_text().strip().split(",") if runs(started)] == []
    assert not list(temporary.iterdir())


def test_no_proof_starts_after_an_interruption() -> None:
    made: list[int] = []

    def interrupt(job: int, result: None) -> None:
        raise KeyboardInterrupt

    def work(job: int) -> None:
        made.append(job)
        common.captured(["sleep", "60" if job else "0"], timeout=60)

    with pytest.raises(KeyboardInterrupt):
        common.parallel(work, range(100), interrupt)
    assert len(made) < 10


def test_sentences_for_what_programs_say() -> None:
    with pytest.raises(Stop, match="x failed: a disk is full; make room, or name other folders in EDGELLM_CACHE and T"):
        common.run(["sh", "-c", "echo 'ninja: error: write: No space left on device'; exit 1"], "x")
    with pytest.raises(
        Stop, match=r"^x failed: the network, or the server that pip and apt are told to use, does not a"
    ):
        common.run(["sh", "-c", "echo 'WARNING: Retrying (Retry(total=0)) ERROR: No matching'; exit 1"], "x")
    with pytest.raises(Stop, match=r"^nonesuch cannot be started"):
        common.run(["nonesuch"], "x")


def test_interrupted_work_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), common.whole(tmp_path / "x") as part:
        (part / "file").touch()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_table_of_platforms(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    wheel.write_bytes(b"0" * 500_000)
    passed = {"check": "tags", "result": "passed", "detail": ""}
    run = {"check": "picked", "cpu": "cortex-a53", "result": "passed", "detail": "neon"}
    rows = [
        (targets()["rpi-aarch64"], wheel, [passed, run]),
        (targets()["macos-arm64"], wheel, [passed, {"check": "run", "result": "not run", "detail": "no emulator"}]),
        (targets()["android-arm64"], None, [{"check": "build", "result": "needs", "detail": "3 files compile"}]),
        (targets()["linux-x64"], None, [{"check": "build", "result": "not built", "detail": "the build failed: x"}]),
    ]
    lines = platforms.table(rows).splitlines()
    assert (
        "| 0.50 MB | `manylinux_2_28_aarch64` | 1 of 1 | installed by pip, run by Python; C programs on `cortex-a53` |"
        in lines[2]
    )
    assert lines[3].endswith("| 1 of 1 | not run: no emulator |")
    assert lines[4].endswith("| not built | `android_24_arm64_v8a` |  | 3 files compile; needs Android's NDK |")
    assert lines[5].endswith("| not built | `manylinux_2_28_x86_64` |  | the build failed |")


def test_every_proof_has_a_sysroot() -> None:
    assert all("sysroot" in one for one in targets().values() if one["proof"] == "python")
    assert {one["sysroot"] for one in targets().values() if "sysroot" in one} <= set(sysroot.PACKAGES)
