"""
A foreign Python to run wheels with, or musl alone: Debian packages of another architecture, unpacked into a folder.

    python cross/sysroot.py arm64|armhf|amd64|musl-arm64|musl-armhf        prints the folder

Nothing is installed on this machine. apt gets a configuration of its own: an empty system of the other architecture,
whose packages come from the mirror that this machine's own sources name, the release suite only (the security suite's
indexes of ports are now and then out of step). EDGELLM_SYSROOT_ARM64 and _ARMHF name folders to use instead.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from common import Stop, cache, need_space, run, step, whole

# armhf: what has no wheel for 32-bit ARM on the package index.
PACKAGES = {
    "arm64": ["python3", "libstdc++6"],
    "amd64": ["python3", "libstdc++6"],
    "musl-arm64": ["musl"],
    "musl-armhf": ["musl"],
    "armhf": ["python3", "libstdc++6", "python3-numpy", "python3-cffi", "python3-markupsafe"],
}
SIZE_MB = 400


def sources() -> tuple[str, str, str]:
    """The mirror, the suite and the keyring of this machine's own Debian."""
    release = Path("/etc/os-release").read_text(errors="replace") if Path("/etc/os-release").exists() else ""
    suite = re.search(r"^VERSION_CODENAME=(\w+)", release, re.M)
    if not suite or not re.search(r"^ID=debian$", release, re.M) or not shutil.which("apt-get"):
        raise Stop(
            "wheels are proven with Debian's Python for ARM, which apt fetches on Debian only: name a folder that has "
            "one in EDGELLM_SYSROOT_ARM64 or EDGELLM_SYSROOT_ARMHF, or leave --prove away"
        )
    texts = [
        p for p in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))) if p.is_file()
    ]
    for path in texts:
        text = path.read_text(errors="replace")
        for stanza in re.split(r"\n\s*\n", text) if path.suffix == ".sources" else text.splitlines():
            if path.suffix == ".sources":
                uri, suites = re.search(r"^URIs:\s*(\S+)", stanza, re.M), re.search(r"^Suites:\s*(.*)", stanza, re.M)
                if uri and suites and suite[1] in suites[1].split():
                    return uri[1], suite[1], "/usr/share/keyrings/debian-archive-keyring.gpg"
            elif line := re.match(rf"deb\s+(?:\[.*?\]\s+)?(\S+)\s+{suite[1]}\s", stanza):
                return line[1], suite[1], "/usr/share/keyrings/debian-archive-keyring.gpg"
    raise Stop(f"apt's sources name no mirror of Debian's {suite[1]}: add one to /etc/apt/sources.list")


def configuration(folder: Path, architecture: str) -> dict[str, str]:
    """The environment in which apt sees an empty machine of that architecture."""
    uri, suite, keyring = sources()
    for name in ("lists/partial", "archives/partial", "etc"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").write_text("")
    (folder / "sources.list").write_text(f"deb [arch={architecture} signed-by={keyring}] {uri} {suite} main\n")
    (folder / "apt.conf").write_text(
        f'APT::Architecture "{architecture}";\nAPT::Architectures {{ "{architecture}"; }};\n'
        f'Dir::State "{folder}";\nDir::State::lists "{folder}/lists";\nDir::State::status "{folder}/status";\n'
        f'Dir::Cache "{folder}";\nDir::Cache::archives "{folder}/archives";\n'
        f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "-";\nDir::Etc::preferencesparts "-";\n'
        'APT::Install-Recommends "false";\npkgCacheGen::Essential "none";\nAcquire::Languages "none";\n'
        'Debug::NoLocking "true";\nAPT::Sandbox::User "root";\nAPT::Get::List-Cleanup "false";\n'
        'APT::Update::Error-Mode "any";\n'
    )
    return {**os.environ, "APT_CONFIG": str(folder / "apt.conf"), "LC_ALL": "C"}


def sysroot(name: str) -> Path:
    """
    The folder *name* of PACKAGES, made on first use.

    Raises:
        Stop: There is no network, no apt, or too little room.
    """
    variable = f"EDGELLM_SYSROOT_{name.upper().replace('-', '_')}"
    named = os.environ.get(variable)
    if named:
        wanted = "lib/ld-musl-*" if name.startswith("musl") else "usr/bin/python3.*"
        if not list(Path(named).glob(wanted)):
            raise Stop(f"{variable}={named} has no {wanted}")
        return Path(named)
    folder = cache() / f"sysroot-{name}"
    if (folder / ".packages").is_file() and (folder / ".packages").read_text() == "\n".join(PACKAGES[name]):
        return folder
    need_space(cache(), SIZE_MB)
    architecture = name.rpartition("-")[2]
    what = f"Debian's {'musl' if name.startswith('musl') else 'Python'} for {architecture}"
    with step(f"{what} (up to 30 MB)"), whole(folder) as part:
        apt = part / ".apt"
        environment = configuration(apt, architecture)
        run(["apt-get", "-q", "update"], "apt-get update", env=environment, quiet=True)
        run(
            ["apt-get", "-q", "-y", "--download-only", "install", *PACKAGES[name]],
            f"fetching {what}", env=environment, quiet=True,
        )  # fmt: skip
        packages = sorted((apt / "archives").glob("*.deb"))
        if not packages:
            raise Stop(f"apt-get fetched no package for {architecture}: can the Debian mirror be reached?")
        for package in packages:
            run(["dpkg-deb", "-x", package, part], f"unpacking {package.name}", quiet=True)
        shutil.rmtree(apt)
        make_relative(part)
        (part / ".versions").write_text("\n".join(p.stem for p in packages))
        (part / ".packages").write_text("\n".join(PACKAGES[name]))
    return folder


def make_relative(folder: Path) -> None:
    """Links to /etc/alternatives and the like point into this machine: point them into *folder*."""
    for path in folder.rglob("*"):
        if path.is_symlink() and path.readlink().is_absolute():
            inside = folder / path.readlink().relative_to("/")
            path.unlink()
            path.symlink_to(os.path.relpath(inside, path.parent))
    for library in (*folder.glob("usr/lib/*/blas/*.so.3"), *folder.glob("usr/lib/*/lapack/*.so.3")):
        link = library.parents[1] / library.name  # what the package's installation would have made an alternative
        if not link.exists():
            link.symlink_to(library.relative_to(link.parent))


def python(folder: Path) -> Path:
    """Its interpreter."""
    return sorted(folder.glob("usr/bin/python3.[0-9]*"))[-1]


if __name__ == "__main__":
    try:
        print(sysroot(sys.argv[1]))
    except Stop as error:
        raise SystemExit(f"cross/sysroot.py: {error}") from None
