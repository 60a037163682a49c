"""``edgellm doctor``: what this machine offers, what is installed, and what could be better.

`examine` gathers facts, `problems` judges them; both are plain data, so a test can feed either.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from edgellm.cli import _options
from edgellm.cli._text import print_json, table, version
from edgellm.store.faults import StoreError
from edgellm.store.folders import home_folder
from edgellm.store.names import megabytes

PACKAGES = ("cffi", "click", "jinja2", "numpy", "platformdirs", "prompt_toolkit", "rich", "huggingface_hub")


@click.command("doctor")
@_options.as_json
def command(as_json: bool) -> None:
    """Check this machine and this installation.

    Shows the processor's instruction sets (found and used), cores and limits, memory, the model folder and
    versions, then what could be better and how. Exit code 1 when something keeps edgellm from working.
    """
    facts = examine()
    found = problems(facts)
    if as_json:
        print_json({**facts, "problems": found})
    else:
        click.echo(report(facts, found))
    if any(problem["fatal"] for problem in found):
        raise click.exceptions.Exit(1)


def examine() -> dict[str, Any]:
    """All facts, as plain data. Nothing here raises: what cannot be found out is None or an error text."""
    return {
        "versions": _versions(),
        "system": _system(),
        "swap": _swap(),
        "governor": _read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "store": _store(),
        "environment": {key: value for key, value in sorted(os.environ.items()) if key.startswith("EDGELLM_")},
    }


def _versions() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    versions: dict[str, Any] = {
        "edgellm": version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
    }
    for package in PACKAGES:
        try:
            versions[package] = installed(package)
        except PackageNotFoundError:  # noqa: PERF203 - each package on its own
            versions[package] = None
    return versions


def _system() -> dict[str, Any]:
    """What the library says about the machine, or why it cannot be loaded."""
    try:
        return system_info()
    except Exception as error:  # noqa: BLE001 - a broken installation is what this command is for
        return {"error": f"{type(error).__name__}: {error}"}


def system_info() -> dict[str, Any]:
    """The library's own report: instruction sets, cores, affinity, quota, memory, default thread count."""
    from edgellm import system_info as ask

    found: dict[str, Any] = ask()
    return found


def _swap() -> dict[str, int | None]:
    """Bytes of swap, from Linux; None elsewhere."""
    swap: dict[str, int | None] = {"SwapTotal": None, "SwapFree": None}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            key, _, rest = line.partition(":")
            if key in swap:
                swap[key] = int(rest.split()[0]) * 1024
    return {"total": swap["SwapTotal"], "free": swap["SwapFree"]}


def _read_line(path: str) -> str | None:
    try:
        with Path(path).open(encoding="ascii", errors="replace") as file:
            return file.readline(256).strip()
    except OSError:
        return None


def _store() -> dict[str, Any]:
    """The model folder: where, writable, room, what is in it."""
    from edgellm.store.store import Store

    home = home_folder()
    store = Store(home)
    existing = next((folder for folder in (store.root, *store.root.parents) if folder.is_dir()), Path("/"))
    in_the_way = next((path for path in (store.root, *store.root.parents) if path.exists()), existing)
    facts: dict[str, Any] = {"folder": str(store.root), "writable": os.access(existing, os.W_OK | os.X_OK)}
    if in_the_way != existing:
        facts["error"] = f"{in_the_way} is not a folder"
        return facts
    facts["catalog_error"] = _catalog_error(home / "catalog.toml")
    try:
        entries = store.list()
        facts["models"] = len(entries)
        facts["model_bytes"] = sum(entry.n_bytes for entry in entries if not entry.local)
        facts["missing"] = [entry.name for entry in entries if not entry.present]
        facts["unreadable"] = list(store.unreadable())
        facts["unfinished_bytes"] = sum(n_bytes for _, n_bytes in store.unfinished())
        facts["free_bytes"] = shutil.disk_usage(existing).free
    except OSError as error:
        facts["error"] = f"{error.filename}: {error.strerror}"
    except StoreError as error:
        facts["error"] = str(error)
    return facts


def _catalog_error(path: Path) -> str | None:
    """What is wrong with the user's own catalog."""
    from edgellm.store.catalog import read

    try:
        if path.exists() and not read(path):
            return f"the catalog {path} has no model: each begins with a line [[model]]"
    except (OSError, StoreError) as error:
        return str(error)
    return None


# ---- judging ----


def problems(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """What is wrong or could be better: ``text``, ``advice``, and whether it is ``fatal``."""
    found: list[dict[str, Any]] = []

    def add(text: str, advice: str, *, fatal: bool = False) -> None:
        found.append({"text": text, "advice": advice, "fatal": fatal})

    system, store = facts["system"], facts["store"]
    if "error" in system:
        add(f"the library does not load ({system['error']})", "install edgellm again: pip install .", fatal=True)
    if "error" in store:
        add(f"the model folder cannot be read ({store['error']})", "set EDGELLM_HOME to another folder", fatal=True)
    if store.get("catalog_error"):
        add(store["catalog_error"], "mend or remove it")
    if not store["writable"]:
        add(f"{store['folder']} cannot be written", "set EDGELLM_HOME to a folder of yours; models here still run")
    if store.get("free_bytes") is not None and store["free_bytes"] < 500_000_000:
        add(f"only {megabytes(store['free_bytes'])} are free on the disk of the models", "make room before a pull")
    if store.get("unfinished_bytes"):
        add(
            f"interrupted pulls hold {megabytes(store['unfinished_bytes'])}",
            "pull again to go on, or 'edgellm rm --unfinished'",
        )
    for sentence in store.get("unreadable", ()):
        text, _, advice = sentence.rpartition(": ")
        add(text, advice)
    for name in store.get("missing", ()):
        add(f"the file registered as {name} is gone", f"put it back, or 'edgellm rm {name}'")
    found_set, used = set(system.get("features_found", ())), set(system.get("features_used", ()))
    if found_set - used:
        add(f"not used though present: {' '.join(sorted(found_set - used))}", "unset EDGELLM_CPU_DISABLE")
    if used and platform.machine().lower() in ("x86_64", "amd64") and "avx2" not in used:
        add("no AVX2 in use", "edgellm runs, several times slower than with it")
    backend = facts["environment"].get("EDGELLM_CPU_BACKEND", "")
    if backend not in ("", "edgellm", "ggml"):
        add(f"EDGELLM_CPU_BACKEND={backend} is no backend", "edgellm's own is used; ggml is the other choice")
    elif backend == "ggml":
        add("EDGELLM_CPU_BACKEND=ggml: ggml's backend runs the graphs", "unset it; edgellm's own is faster")
    quota, threads = system.get("cgroup_cpus"), system.get("threads")
    if quota is not None and threads is not None and threads > max(quota, 1):
        add(f"a container limit gives {quota:.1f} processors for {threads} threads", f"use -t {max(int(quota), 1)}")
    if facts["governor"] == "powersave":
        add("the processor's governor is 'powersave'", "'performance' or 'schedutil' may be faster")
    available = system.get("memory_available")
    if available is not None and available < 400_000_000:
        add(f"only {megabytes(available)} of memory are free", "close something, or use a small --ctx")
    if facts["environment"].get("EDGELLM_OFFLINE", "0") not in ("", "0"):
        add("EDGELLM_OFFLINE is set: nothing can be pulled", "unset it to pull")
    return found


def report(facts: dict[str, Any], found: list[dict[str, Any]]) -> str:
    """The facts for people."""
    versions, store, swap = facts["versions"], facts["store"], facts["swap"]
    rows = [["edgellm", versions["edgellm"]], ["python", f"{versions['python']} ({versions['executable']})"]]
    rows.append(["platform", versions["platform"]])
    rows += [[key.replace("_", " "), _shown(value)] for key, value in facts["system"].items() if key != "version"]
    rows.append(["swap", f"{_size(swap['free'])} free of {_size(swap['total'])}"])
    if facts["governor"]:
        rows.append(["governor", facts["governor"]])
    models = f"{store.get('models', '?')} models, {_size(store.get('model_bytes'))}"
    rows.append(["model folder", f"{store['folder']} ({models}; {_size(store.get('free_bytes'))} free)"])
    rows.append(["packages", ", ".join(f"{name} {versions[name] or 'not installed'}" for name in PACKAGES)])
    rows += [[key, value] for key, value in facts["environment"].items()]
    lines = [table(rows), ""]
    lines += [f"{'!!' if item['fatal'] else '! '} {item['text']}: {item['advice']}" for item in found]
    return "\n".join(lines if found else [*lines, "no problems found"])


def _size(n_bytes: int | None) -> str:
    return "unknown" if n_bytes is None else megabytes(n_bytes)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 24:
        return megabytes(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return "none" if value is None else str(value)
