"""Where edgellm keeps things, and the check that a path it is about to use stays there."""

from __future__ import annotations

import os
from pathlib import Path

from edgellm.store.faults import StoreError


def home_folder() -> Path:
    """EDGELLM_HOME, or the user's data folder for edgellm. It may not exist yet."""
    override = os.environ.get("EDGELLM_HOME")
    if override:
        return Path(override).expanduser().absolute()
    from platformdirs import user_data_dir

    return Path(user_data_dir("edgellm", appauthor=False))


def catalog_file() -> Path:
    """The catalog that came with the program: in the package, or in the checkout it runs from."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "models" / "catalog.toml"
    return installed if installed.exists() else package.parents[1] / "models" / "catalog.toml"


def make_folder(path: Path) -> None:
    """Make *path* and its parents; private to the user, since prompts and models are theirs.

    Raises:
        StoreError: The folder cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the model folder {path} cannot be made ({error.strerror}): set EDGELLM_HOME to a folder you may write to"
        ) from error


def inside(folder: Path, name: str) -> Path:
    """``folder/name``, sure to lie directly in *folder* after every symbolic link is followed.

    *folder* itself may be a link (models on another disk); what is in it may not lead out.

    Raises:
        StoreError: It leads elsewhere.
    """
    root = Path(os.path.realpath(folder))
    path = root / name
    if os.path.realpath(path) != str(path) or path.parent != root:
        raise StoreError(f"{path} leads out of the model folder: remove that link")
    return path


def sync_folder(folder: Path) -> None:
    """Make a rename in *folder* last through a power cut. Windows has no such call."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError:
        pass  # some network file systems refuse it; the rename itself is still atomic
    finally:
        os.close(fd)


def write_atomically(path: Path, data: bytes) -> None:
    """Put *data* at *path* so that a reader, also after a kill, sees the old file or the new one.

    The temporary name is fixed per process: one left by a kill is found by `Store.sweep`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
