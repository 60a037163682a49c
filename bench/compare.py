"""``python -m bench.compare MODEL...``: edgellm and its peers on the same files, in the same minutes (README.md)."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import machine, models, native
from bench.folders import ROOT
from bench.peer import peers
from bench.report import overview, page
from bench.rounds import FIGURES, NAMES, PROCESS_FIGURES, QUICK, Plan, Result, Session, say

RESULTS = ROOT / "bench" / "RESULTS.md"
PEERS = "edgellm,llama.cpp,ik_llama.cpp,xllamacpp"


def parser() -> argparse.ArgumentParser:
    """The options."""
    arguments = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    arguments.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a .gguf file, smollm2[:TYPE], gemma3[:TYPE], 1b:TYPE, BASE:all or all",
    )
    arguments.add_argument("--threads", type=int, default=2, help="threads for everyone (default: 2)")
    arguments.add_argument("--rounds", type=int, help="rounds (default: 5; with --quick 2)")
    arguments.add_argument("--only", default=",".join(NAMES), help=f"figures out of {','.join(NAMES)} (default: all)")
    arguments.add_argument("--peers", default=PEERS, help=f"programs out of {PEERS} (default: all)")
    arguments.add_argument("--beside", default="0,1,3", help="busy neighbours, 0 is quiet (default: 0,1,3)")
    arguments.add_argument(
        "--limit",
        type=float,
        default=10,
        help="seconds a timing beside neighbours may take, between two steps (default: 10)",
    )
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    arguments.add_argument("--record", action="store_true", help="append the tables to bench/RESULTS.md")
    arguments.add_argument(
        "--quick", action="store_true", help="small figures and few rounds: to try the tool, not for figures"
    )
    arguments.add_argument("--force", action="store_true", help="measure although the machine is not quiet")
    return arguments


def plan_of(options: argparse.Namespace) -> Plan:
    """
    What the options ask for.

    Raises:
        SystemExit: An unknown figure, or a number that makes no sense.
    """
    wanted = [name for name in options.only.split(",") if name]
    unknown = set(wanted) - set(NAMES)
    if unknown:
        raise SystemExit(f"--only: no figure is called {', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
    try:
        beside = tuple(sorted({int(word) for word in options.beside.split(",")}))
    except ValueError:
        raise SystemExit(f"--beside wants numbers like 0,1,3, not {options.beside}") from None
    rounds = options.rounds or (2 if options.quick else 5)
    if options.threads < 1 or rounds < 1 or beside[0] < 0 or beside[-1] > 64:
        raise SystemExit("--threads and --rounds want at least 1, --beside at most 64")
    figures = QUICK if options.quick else FIGURES
    return Plan(
        threads=options.threads,
        rounds=rounds,
        figures={name: figures[name] for name in figures if name in wanted},
        process_figures=tuple(name for name in PROCESS_FIGURES if name in wanted),
        beside=beside,
        seconds=0.05 if options.quick else 0.1,
        limit=2 if options.quick else options.limit,
        memory_tokens=512 if options.quick else 2048,
    )


def commit() -> str:
    """The commit measured, with a plus sign when files of it were changed."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    changed = git(
        "status", "--porcelain", "--untracked-files=no", "--", "csrc", "src", "cmake", "include", "CMakeLists.txt"
    )
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+" if changed else "")


def heading(command: str, quiet: str, options: argparse.Namespace) -> str:
    """Date, commit, processor and command of a run."""
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    cpu = f"{machine.cpu_name()}, {os.cpu_count()} cores"
    return f"## {today}, commit {commit()}\n\n{cpu}; {options.threads} threads; {quiet}.\n\n`{command}`\n"


def record(text: str) -> None:
    """Append to the history."""
    with RESULTS.open("a", encoding="utf-8") as out:
        out.write("\n" + text)


def measure(options: argparse.Namespace, plan: Plan) -> list[tuple[Result, str]]:
    """Every model in turn; each page is printed when it is complete."""
    names = [name for name in options.peers.split(",") if name]
    chosen = peers(names)
    llama = native.llama() if "llama.cpp" in names else None
    done = []
    for spec in [one for word in options.models for one in models.expand(word)]:
        path = models.resolve(spec)
        say(f"{spec}: {path}")
        result = Session(path, Path(spec).name, plan, chosen, llama).run()
        text = page(result, quick=options.quick)
        print(text, flush=True)
        done.append((result, text))
    return done


def main(words: list[str] | None = None) -> None:
    """Measure, print, and keep what was asked to be kept."""
    options = parser().parse_args(words)
    plan = plan_of(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that workers and neighbours end with us
    for spec in [one for word in options.models for one in models.expand(word)]:
        models.resolve(spec)  # generated and quantized before the machine has to be quiet
    quiet = machine.check_quiet(options.force)
    command = shlex.join(["python", "-m", "bench.compare", *(sys.argv[1:] if words is None else words)])
    head = heading(command, quiet, options)
    print(head, flush=True)
    done = measure(options, plan)
    pages = [text for _, text in done]
    if len(done) > 1:
        pages.append("### All together\n\n" + overview([result for result, _ in done], quick=options.quick) + "\n")
        print(pages[-1], flush=True)
    if options.json:
        about: dict[str, Any] = {"heading": head, "models": [result.as_json() for result, _ in done]}
        options.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    if options.record:
        record("\n".join([head, *pages]))


if __name__ == "__main__":
    main()
