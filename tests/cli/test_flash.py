"""`edgellm flash` into systems made up here: what lands where, what is refused, and that a failure leaves no trace."""

from __future__ import annotations

import errno
import json
import marshal
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgellm.deploy import flash as deploy
from edgellm.deploy import machine, packages, selftest, units
from edgellm.deploy.machine import DeployError
from tests.support.wheels import elf, make_wheel

Cli = Callable[..., Any]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="root file systems need links and modes")
TAG = "manylinux_2_28_aarch64"


def system(root: Path, arch: str = "aarch64", python: str | None = "python3.11", glibc: str = "2.36") -> Path:
    """As little of a root file system as there can be."""
    for folder in ("etc", "usr/bin", "usr/lib/aarch64-linux-gnu", "usr/lib/systemd"):
        (root / folder).mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "usr/bin/env").write_bytes(elf(arch))
    (root / "usr/lib/systemd/systemd").write_bytes(elf(arch))
    (root / "usr/lib/aarch64-linux-gnu/libc.so.6").write_text(
        f"GNU C Library (Debian) stable release version {glibc}.\n"
    )
    if python:
        (root / "usr/bin" / python).write_bytes(elf(arch))
        (root / "usr/bin/python3").symlink_to(python)
    return root


def snapshot(root: Path) -> dict[str, str | bytes]:
    return {
        str(path.relative_to(root)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else ""
        for path in sorted(root.rglob("*"))
    }


UNPACK, FETCH = packages.unpack, packages.fetch


def unpack(wheels: list[Path], tags: list[str], python: tuple[int, int], folder: Path) -> None:
    """As pip does, a second sooner."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return system(tmp_path / "root")


@pytest.fixture
def wheel(tmp_path: Path) -> str:
    return str(make_wheel(tmp_path, TAG))


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and no emulator that could run these programs."""
    monkeypatch.setenv("EDGELLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "fetch", lambda *arguments: ([], ["cffi"]))
    monkeypatch.setattr(machine, "emulator", lambda name: None)
    monkeypatch.setattr(packages, "unpack", unpack)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)


def test_everything_lands_in_its_place(
    cli: Cli, root: Path, wheel: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "unpack", UNPACK)
    assert cli("flash", str(root), "--wheel", wheel, "--model", model, "--dry-run").code == 0
    assert not (root / "opt").exists()
    done = cli("flash", str(root), "--wheel", wheel, "--model", model, "--arguments", "-n 20")
    assert done.code == 0, done.err
    assert "no emulator of aarch64" in done.err
    assert "without cffi" in done.err
    current = root / "opt/edgellm/current"
    assert current.readlink().parts[0] == "releases"
    assert (current / "site/edgellm/lib/libedgellm.so").is_file()
    assert (root / "usr/local/bin/edgellm").resolve() == (current / "edgellm").resolve()
    assert os.access(current / "edgellm", os.X_OK)
    settings = (root / "etc/edgellm/edgellm.env").read_text()
    assert "EDGELLM_MODEL=tiny\nEDGELLM_ARGUMENTS=-n 20\nEDGELLM_OFFLINE=1\n" in settings
    enabled = root / "etc/systemd/system/sockets.target.wants/edgellm.socket"
    assert enabled.resolve() == root / "etc/systemd/system/edgellm.socket"
    note = json.loads((root / "opt/edgellm/flash.json").read_text())
    assert note["model"] == "tiny"
    [blob] = (root / "opt/edgellm/home/models/blobs").iterdir()
    assert blob.read_bytes() == Path(model).read_bytes()
    assert cli("flash", "--verify", str(root)).code == 0
    assert not [path for path in root.rglob("*") if path.name.endswith("part")]


def test_verify_names_what_is_wrong(cli: Cli, root: Path, wheel: str, model: str) -> None:
    assert cli("flash", str(root), "--verify").err.count("nothing was flashed there") == 1
    cli("flash", str(root), "--wheel", wheel, "--model", model)
    [blob] = (root / "opt/edgellm/home/models/blobs").iterdir()
    blob.write_bytes(b"GGUG" + bytes(96))
    (root / "opt/edgellm/current/edgellm").unlink()
    done = cli("flash", "--verify", str(root))
    assert done.code == 1
    assert f"{blob.name} has other contents" in done.err
    assert "/edgellm is missing" in done.err
    cli("flash", str(root), "--wheel", wheel, "--model", model)  # mends the release; the model has the right size
    assert "is missing" not in cli("flash", "--verify", str(root)).err


def test_running_again_updates_in_place(cli: Cli, root: Path, wheel: str, model: str, tmp_path: Path) -> None:
    cli("flash", str(root), "--wheel", wheel, "--model", model)
    before = snapshot(root)
    release = (root / "opt/edgellm/current").resolve()
    cli("flash", str(root), "--wheel", wheel, "--model", model)
    after = snapshot(root)
    manifest = "opt/edgellm/home/models/manifests/tiny.json"  # says when
    assert {key for key in before if before[key] != after[key]} <= {manifest, "opt/edgellm/flash.json"}
    settings = root / "etc/edgellm/edgellm.env"
    settings.write_text("EDGELLM_MODEL=mine\n")
    newer = make_wheel(tmp_path, TAG, {"edgellm/__init__.py": b"1", "edgellm/lib/libedgellm.so": elf("aarch64")})
    done = cli("flash", str(root), "--wheel", str(newer), "--model", model)
    assert "was changed there and is kept" in done.err
    assert settings.read_text() == "EDGELLM_MODEL=mine\n"
    assert [path.name for path in (root / "opt/edgellm/releases").iterdir()] != [release.name]
    assert len(list((root / "opt/edgellm/releases").iterdir())) == 1


@pytest.mark.parametrize("updated", [False, True], ids=["new", "update"])
@pytest.mark.parametrize("failure", ["self-test", "interrupt", "disk full"])
def test_a_failure_leaves_everything_as_it_was(
    cli: Cli, root: Path, wheel: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str,
    updated: bool,
) -> None:  # fmt: skip
    if updated:
        cli("flash", str(root), "--wheel", wheel, "--model", model)
    before = snapshot(root)
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF" + bytes(200))
    newer = make_wheel(tmp_path, TAG, {"edgellm/__init__.py": b"1", "edgellm/lib/libedgellm.so": elf("aarch64")})

    def fail(*arguments: object) -> Any:
        if failure == "interrupt":
            raise KeyboardInterrupt
        raise OSError(errno.ENOSPC, "No space left on device")

    if failure == "self-test":  # a program that the "emulator" cannot run
        monkeypatch.setattr(machine, "emulator", lambda name: ["/bin/false"])
    else:
        monkeypatch.setattr(deploy.Changes, "link", fail)
    done = cli("flash", str(root), "--wheel", str(newer), "--model", str(other))
    words = {
        "self-test": "the self-test failed (exit code 1)",
        "interrupt": "interrupted: ",
        "disk full": "became full",
    }
    assert done.code == (130 if failure == "interrupt" else 1)
    assert words[failure] in done.err
    assert snapshot(root) == before


def test_a_killed_run_is_cleaned_up_by_the_next(cli: Cli, root: Path, wheel: str, model: str) -> None:
    left = [root / "opt/edgellm/releases/.0.0.part", root / "opt/edgellm/home/models/blobs/.sha256-1.part"]
    left[0].mkdir(parents=True)
    left[1].parent.mkdir(parents=True)
    left[1].write_bytes(b"x")
    assert cli("flash", str(root), "--wheel", wheel, "--model", model).code == 0
    assert not any(path.exists() for path in left)


def test_links_of_the_target_stay_inside_it(cli: Cli, root: Path, wheel: str, model: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (root / "opt").symlink_to(outside)  # absolute: on the device, a folder of its own
    (root / str(outside).lstrip("/")).mkdir(parents=True)
    assert cli("flash", str(root), "--wheel", wheel, "--model", model).code == 0
    assert not outside.exists()
    assert (root / str(outside).lstrip("/") / "edgellm/current").is_symlink()
    (root / "loop").symlink_to("/loop")
    with pytest.raises(DeployError, match="circle of links"):
        machine.resolve(root, "/loop/x")


def test_a_plain_folder_needs_the_version_of_python(cli: Cli, tmp_path: Path, wheel: str, model: str) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    assert "say --python 3.11" in cli("flash", str(plain), "--wheel", wheel, "--model", model).err
    done = cli("flash", str(plain), "--wheel", wheel, "--model", model, "--python", "3.12")
    assert done.code == 0
    assert "a plain folder has no Python of its own" in done.err
    assert (plain / "etc/systemd/system/edgellm@.service").is_file()


def test_refusals(
    cli: Cli, root: Path, wheel: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(
        words: str, target: Path | str = root, file: str | Path = wheel, name: str = model, code: int = 1
    ) -> None:
        before = snapshot(Path(target)) if Path(target) != Path("/") else {}
        done = cli("flash", str(target), "--wheel", str(file), "--model", name)
        assert done.code == code, done.err
        assert words in done.err
        assert done.err.count("\n") == 1
        assert not before or snapshot(Path(target)) == before

    refused("does not exist: mount", tmp_path / "nowhere")
    refused("is no folder", wheel)
    refused("is this machine itself", "/")
    refused("is for 32-bit ARM (armv7l), but", file=make_wheel(tmp_path, "manylinux_2_28_armv7l"))
    refused("only Linux devices can be flashed", file=make_wheel(tmp_path, "win_amd64"))
    refused("needs glibc 2.40", file=make_wheel(tmp_path, "manylinux_2_40_aarch64"))
    refused("needs musl 1.2", file=make_wheel(tmp_path, "musllinux_1_2_aarch64"))
    refused("is a wheel of numpy", file=make_wheel(tmp_path, TAG, name="numpy"))
    refused("holds no library", file=make_wheel(tmp_path, "manylinux_2_17_aarch64", {"edgellm/a.py": b""}))
    wrong = {"edgellm/lib/libedgellm.so": elf("x86_64")}
    refused("that wheel is wrong", file=make_wheel(tmp_path, "manylinux_2_5_aarch64", wrong))
    refused("'edgellm build-wheel", file=tmp_path / "none.whl")
    refused("is no wheel", file=model)
    broken = tmp_path / f"edgellm-9.9-py3-none-{TAG}.whl"
    broken.write_bytes(Path(wheel).read_bytes()[:300])
    refused("is damaged", file=broken)
    refused("there is no model called", name="nonesuch")
    part = tmp_path / "m-00001-of-00002.gguf"
    part.write_bytes(Path(model).read_bytes())
    refused("gguf merge", name=str(part))
    refused("has no Python: install python3", system(tmp_path / "bare", python=None))
    refused("has Python 3.9", system(tmp_path / "old", python="python3.9"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))  # type: ignore[attr-defined]
    refused("has 1.0 kB free, this needs 8.4 MB")


def test_flashing_again_needs_no_room_for_what_is_there(
    cli: Cli, root: Path, wheel: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("flash", str(root), "--wheel", wheel, "--model", model).code == 0
    free = deploy.RESERVE + 4096  # less than the wheel takes
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, free))  # type: ignore[attr-defined]
    assert cli("flash", str(root), "--wheel", wheel, "--model", model).code == 0


def test_bytecode_by_the_python_of_the_same_version(
    cli: Cli, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code names the device's file and holds whatever times the files have; another version gets none."""
    own = "python{}.{}".format(*sys.version_info)
    files = {
        "edgellm/__init__.py": b"x = 1\n", "numpy/__init__.py": b"", "jinja2/tests/a.py": b"",
        "edgellm/lib/libedgellm.so": elf("aarch64"),
    }  # fmt: skip
    wheel = str(make_wheel(tmp_path, TAG, files))
    root, other = system(tmp_path / "test" / "same", python=own), system(tmp_path / "other", python="python3.99")
    for folder in (root, other):
        assert cli("flash", str(folder), "--wheel", wheel, "--model", model).code == 0
    assert not list(other.rglob("*.pyc"))
    [made] = root.rglob("*.pyc")
    assert made.stat().st_mode & 0o777 == 0o644
    header, code = made.read_bytes()[:16], marshal.loads(made.read_bytes()[16:])
    assert header[4:8] == bytes([1, 0, 0, 0])  # by hash, and not compared with the source
    release = (root / "opt/edgellm/current").readlink()
    assert code.co_filename == f"/opt/edgellm/{release}/site/edgellm/__init__.py"
    assert cli("flash", "--verify", str(root)).code == 0
    made.write_bytes(b"")
    assert "has other contents" in cli("flash", "--verify", str(root)).err


def test_arguments_are_those_of_run(cli: Cli, root: Path, wheel: str, model: str) -> None:
    done = cli("flash", str(root), "--wheel", wheel, "--model", model, "--arguments", "--bogus 1")
    assert done.code == 2
    assert "--bogus" in done.err


def test_two_at_once(root: Path, wheel: str, model: str, tmp_path: Path) -> None:
    plan = deploy.prepare(root, wheel, model, cache=tmp_path)
    with deploy._locked(root), pytest.raises(DeployError, match="another edgellm is writing"):
        deploy.flash(plan)


# ---- packages --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """pip that has wheels of click alone; what it was called with."""
    calls: list[list[str]] = []

    def run(arguments: list[str]) -> str | None:
        calls.append(arguments)
        wanted = arguments[-1]
        if not wanted.startswith("click"):
            return f"ERROR: No matching distribution found for {wanted}\n"
        make_wheel(Path(arguments[arguments.index("--dest") + 1]), "any", name="click")
        return None

    monkeypatch.setattr(packages, "_pip", run)
    return calls


def fetch_for(root: Path, wheel: Path, cache: Path) -> tuple[list[Path], list[str]]:
    return FETCH(packages.read(wheel), machine.inspect(root), (3, 11), cache)


def test_what_has_no_wheel_is_left_out_where_that_works(root: Path, tmp_path: Path, pip: list[list[str]]) -> None:
    wheel = make_wheel(tmp_path, TAG, needs=("cffi>=1.15", "click>=8", "tomli>=2; python_version < '3.11'"))
    files, left_out = fetch_for(root, wheel, tmp_path / "cache")
    assert [path.name.split("-")[0] for path in files] == ["click"]
    assert left_out == ["cffi"]
    assert f"--platform={TAG}" in pip[0]
    assert "--platform=manylinux_2_36_aarch64" in pip[0]
    n = len(pip)
    assert fetch_for(root, wheel, tmp_path / "cache") == (files, left_out)  # from the cache
    assert len(pip) == n
    (root / "usr/lib/python3/dist-packages/MarkupSafe-2.1.dist-info").mkdir(parents=True)
    wheel = make_wheel(tmp_path, TAG, needs=("markupsafe>=2",))
    assert fetch_for(root, wheel, tmp_path / "cache2")[1] == ["markupsafe"]  # Debian's own
    shutil.rmtree(root / "usr/lib/python3")
    with pytest.raises(DeployError, match="no wheel of markupsafe"):
        fetch_for(root, wheel, tmp_path / "cache2")
    wheel = make_wheel(tmp_path, TAG, needs=("rich>=13",))
    with pytest.raises(DeployError, match="no wheel of rich>=13 for 64-bit ARM"):
        fetch_for(root, wheel, tmp_path / "cache3")
    assert not list((tmp_path / "cache3" / "flash").iterdir())


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("WARNING: Retrying (...)\nERROR: No matching distribution found for click", "cannot reach its index"),
        ("ERROR: [Errno 28] No space left on device", "is full"),
        ("ERROR: something else", "could not fetch the packages: something else"),
    ],
)
def test_pips_failures_in_a_sentence(
    root: Path, wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, words: str
) -> None:
    monkeypatch.setattr(packages, "_pip", lambda arguments: log)
    with pytest.raises(DeployError, match=words):
        fetch_for(root, Path(wheel), tmp_path / "cache")
    monkeypatch.setenv("EDGELLM_OFFLINE", "1")
    with pytest.raises(DeployError, match="EDGELLM_OFFLINE forbids"):
        fetch_for(root, Path(wheel), tmp_path / "cache")


def test_the_self_test_says_why_it_did_not_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = machine.inspect(root)
    release = root / "opt/edgellm/releases/1"
    assert "no emulator" in selftest.try_out(target, release, "/m", 1)
    monkeypatch.setattr(machine, "emulator", lambda name: [])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root can run programs" in selftest.try_out(target, release, "/m", 1)
    monkeypatch.setattr(machine, "emulator", lambda name: ["/bin/true"])
    assert selftest.try_out(target, release, "/m", 1) == "self-test passed: 'edgellm run' works under emulation"
    assert "'edgellm tokenize' works" in selftest.try_out(target, release, "/m", 1 << 30)


# ---- units and this machine's service --------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_takes_the_units_and_calls_them_safe(tmp_path: Path) -> None:
    (tmp_path / "edgellm.socket").write_text(units.socket_unit())
    (tmp_path / "edgellm@.service").write_text(units.service_unit("/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "edgellm.socket"), str(tmp_path / "edgellm@.service")],
        capture_output=True, text=True,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "edgellm" in line and "not found" not in line]
    assert complaints == []
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=10", str(tmp_path / "edgellm@.service")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr  # 10: an exposure of 1.0 at most


def test_service_of_this_machine(cli: Cli, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgellm.deploy import service

    monkeypatch.setattr(service, "_TEMPORARY", ())
    root = str(tmp_path / "system")
    (tmp_path / "system").mkdir()
    assert cli("service", "status", "--root", root).code == 1
    shown = cli("service", "install", model, "--dry-run").out
    assert "ExecStart=" in shown
    assert f"EDGELLM_MODEL={model}" in shown
    assert cli("service", "install", model, "--root", root).code == 0
    assert cli("service", "status", "--root", root).code == 0
    settings = tmp_path / "system/etc/edgellm/edgellm.env"
    settings.write_text(settings.read_text() + "EDGELLM_ARGUMENTS=-n 5\n")
    assert "changed by hand and is kept" in cli("service", "install", model, "--root", root).err
    assert "edgellm.socket" in cli("service", "uninstall", "--dry-run", "--root", root).out
    assert cli("service", "uninstall", "--root", root).code == 0
    assert settings.is_file()  # it is the user's now
    assert not list((tmp_path / "system").rglob("edgellm*.s*"))
    assert "is not installed" in cli("service", "uninstall", "--root", root).err
    (tmp_path / "with space.gguf").write_bytes(Path(model).read_bytes())
    assert "without spaces" in cli("service", "install", str(tmp_path / "with space.gguf"), "--dry-run").err
    monkeypatch.setattr(service, "_TEMPORARY", (str(tmp_path),))
    assert "does not see: move it" in cli("service", "install", model, "--dry-run").err
