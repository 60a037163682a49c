"""docs/platforms.md: the table of what each wheel has been through, written from what was seen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from check import CHECKS
from common import ROOT, write_whole

PAGE = ROOT / "docs" / "platforms.md"
BEGIN, END = "<!-- table: begin (make cross-all) -->", "<!-- table: end -->"
Row = tuple[dict[str, Any], Path | None, list[dict[str, str]]]


def table(rows: Sequence[Row]) -> str:
    """Markdown, a line per target."""
    lines = ["| target | for | wheel | tag | checks | proofs |", "| --- | --- | --- | --- | --- | --- |"]
    names = {one.__name__ for one in CHECKS}
    for target, wheel, results in rows:
        size = f"{wheel.stat().st_size / 1e6:.2f} MB" if wheel else "not built"
        checks = [one for one in results if "cpu" not in one and one["check"] in names]
        passed = sum(one["result"] == "passed" for one in checks)
        lines.append(
            f"| `{target['name']}` | {target['about']} | {size} | `{target['tag']}` "
            f"| {f'{passed} of {len(checks)}' if wheel else ''} | {proofs(target, wheel, results)} |"
        )
    return "\n".join(lines)


NEEDS = {"ndk": "needs Android's NDK", "xcode": "needs a Mac with Xcode"}


def proofs(target: dict[str, Any], wheel: Path | None, results: list[dict[str, str]]) -> str:
    """What was run, in a few words."""
    last = results[-1] if results else {"result": "", "detail": ""}
    if not wheel:
        if last["result"] == "needs":
            return "; ".join(filter(None, [last["detail"], NEEDS[target["needs"]]]))
        return last["detail"].partition(":")[0]
    cpus = list(dict.fromkeys(one["cpu"] for one in results if one.get("cpu")))
    failed = [one for one in results if one["result"] == "failed"]
    how = "C programs" if target["proof"] == "c" else "installed by pip, run by Python; C programs"
    said = [f"{how} on {', '.join(f'`{cpu}`' for cpu in cpus)}"] if cpus else []
    said += [f"not run: {one['detail']}" for one in results if one["result"] == "not run"]
    said += [f"{len(failed)} FAILED"] if failed else []
    return "; ".join(said)


def write(rows: Sequence[Row]) -> None:
    """Put the table into the page."""
    text = PAGE.read_text()
    made = re.sub(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n{table(rows)}\n{END}", text, flags=re.S
    )
    write_whole(PAGE, made.encode())
