"""Changing the store: pull, register, remove.

What holds at every moment, also after a kill or a power cut:
a blob has its final name only when its digest was checked and its bytes are on the disk;
a manifest exists only after its blob; a blob is removed only after the last manifest that names it.
Two locks keep it so between processes: one per download, held long, and one for names and blobs, held briefly.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgellm.store.catalog import load
from edgellm.store.faults import DownloadFailed, ModelNotFound, NoSpace, StoreError, WrongDigest
from edgellm.store.folders import inside, make_folder, sync_folder, write_atomically
from edgellm.store.locks import FileLock
from edgellm.store.names import check_name, file_name, is_spec, megabytes, name_from_file, shown
from edgellm.store.partial import Partial
from edgellm.store.shelf import Entry, Shelf, looks_like_path, no_file
from edgellm.store.source import Progress, Report, Source, check_online
from edgellm.store.url import check_magic

RESERVE = 4 << 20  # left free on the disk for journals, manifests and everybody else
CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pull would do, to tell before doing it. *source* is None for a file registered in place."""

    spec: str
    entry: Entry  # as it would be; its path and sha256 may not be known yet
    source: Source | None

    @property
    def n_bytes(self) -> int | None:
        """The file's size, or None before `prepare` of a source that has to be asked."""
        return self.entry.n_bytes if self.source is None else self.source.n_bytes

    def prepare(self) -> None:
        """
        Ask the source for what the catalog does not say. May use the network.

        Raises:
            Offline: EDGELLM_OFFLINE forbids it.
            DownloadFailed: The source does not know the file.
        """
        if self.source is not None:
            check_online(shown(self.spec))
            self.source.prepare()

    def describe(self) -> str:
        """One line: what, how large, from where, under which licence."""
        if self.source is None:
            return f"{self.entry.name}: {self.entry.path}, used where it is"
        size = "size not known yet" if self.n_bytes is None else megabytes(self.n_bytes)
        licence = self.entry.licence or getattr(self.source, "licence", "") or "licence not stated"
        title = f" = {self.entry.title}" if self.entry.title else ""
        return f"{self.spec}{title}; {size} from {self.source.where}; {licence}"


class Store(Shelf):
    """The store, to change."""

    def __init__(self, home: Path | None = None) -> None:
        super().__init__(home)
        self.partials = self.root / "partial"
        self.locks = self.root / "locks"

    # ---- pull ----

    def plan(self, spec: str, *, name: str | None = None, insecure: bool = False) -> Plan:
        """
        What `pull` would do for *spec*. Touches no network.

        Args:
            spec: A catalog name, ``hf:org/repo[:what]``, a URL, or a path.
            name: The name to give it; None: the catalog's, or one made from the file's name.
            insecure: Allow http.

        Raises:
            ModelNotFound: No such name or file.
            BadName: The spec or the name is malformed.
        """
        given = check_name(name) if name is not None else None
        if spec.startswith("hf:"):
            return self._plan_hub(spec, given, insecure)
        if is_spec(spec):
            return self._plan_url(spec, given, insecure)
        known = load().get(spec.lower())
        if known is not None and not looks_like_path(spec):
            source = known.open_source(insecure=insecure)
            aliases = known.aliases if given is None else ()
            entry = Entry(
                given or known.name, Path(), known.n_bytes, aliases, False, known.sha256,
                known.title, known.licence, known.name,
            )  # fmt: skip
            return Plan(spec, entry, source)
        path = Path(spec).expanduser()
        if looks_like_path(spec) or path.is_file():
            return Plan(spec, self._local_entry(path, given), None)
        raise ModelNotFound(self._missing(spec))

    def _plan_hub(self, spec: str, name: str | None, insecure: bool) -> Plan:
        from edgellm.store.hub import HubSource

        source = HubSource(spec, insecure=insecure)
        repo = name_from_file(source.repo.removesuffix("-GGUF").removesuffix("-gguf"))
        tag = name_from_file(source.choice.rpartition("/")[2]) if source.choice else ""
        return Plan(spec, Entry(name or (f"{repo}:{tag}" if tag else repo), Path(), 0, source=spec), source)

    def _plan_url(self, spec: str, name: str | None, insecure: bool) -> Plan:
        from edgellm.store.url import UrlSource

        source = UrlSource(spec, insecure=insecure)
        name = name or name_from_file(source.public_url.rpartition("/")[2])
        return Plan(source.public_url, Entry(name, Path(), 0, source=source.place), source)

    def pull(
        self,
        spec: str | Plan,
        on_progress: Report | None = None,
        *,
        name: str | None = None,
        insecure: bool = False,
    ) -> Entry:
        """
        Bring a model here, or find that it is here already.

        Args:
            spec: See `plan`, or a plan.
            on_progress: Called about ten times a second with a `Progress`; may raise to stop.
            name: See `plan`.
            insecure: See `plan`.

        Returns:
            The model's entry; its file is complete and its digest was checked.

        Raises:
            StoreError: Offline, NoSpace, DownloadFailed, WrongDigest, BadName; other models are untouched.
            ModelNotFound: No such name or file.
        """
        plan = spec if isinstance(spec, Plan) else self.plan(spec, name=name, insecure=insecure)
        if plan.source is None:
            return self.add_local(plan.entry.path, plan.entry.name)
        here = self._already(plan)
        if here is not None:
            return here
        plan.prepare()
        for folder in (self.manifests, self.blobs, self.partials, self.locks):
            make_folder(folder)
        report = _Throttle(on_progress)
        key = plan.source.sha256 or hashlib.sha256(plan.source.identity.encode()).hexdigest()
        lock = FileLock(inside(self.locks, f"{key[:32]}.lock"))
        try:
            lock.acquire(on_wait=lambda: report(Progress("wait")))
            return self._already(plan) or self._fetch(plan, plan.source, key[:32], lock, report)
        except OSError as error:
            if error.errno in _FULL:
                raise self._no_space(plan) from error
            raise StoreError(f"the model folder {self.root} cannot be written: {error.strerror or error}") from error
        finally:
            lock.release()

    def _already(self, plan: Plan) -> Entry | None:
        """The entry that makes *plan* superfluous, after a check that its name is free otherwise."""
        assert plan.source is not None
        entry = self._of_that_name(plan.entry)
        wanted = plan.source.sha256
        if entry is None or (wanted is not None and entry.sha256 != wanted):
            return None  # the catalog names a newer file: replace it
        return entry

    def _of_that_name(self, entry: Entry) -> Entry | None:
        """
        What has the name of *entry*, or has it as an alias, and comes from the same place.

        Raises:
            StoreError: It comes from another place.
        """
        old = self._read_or_none(file_name(entry.name))
        if old is None or not (old.local or old.present):
            old = next((other for other in self.list() if entry.name in other.aliases), None)
        if old is not None and old.source != entry.source:
            what = "a model that was pulled" if old.source == entry.name else shown(old.source)
            raise StoreError(
                f"the name '{entry.name}' already means {what}: "
                f"choose another with --name, or run 'edgellm rm {old.name}' first"
            )
        return old

    def _fetch(self, plan: Plan, source: Source, key: str, lock: FileLock, report: _Throttle) -> Entry:
        """Download, check and publish, under the download's lock."""
        if source.sha256 is not None:
            with self._changing():
                if self.blob(source.sha256).is_file():  # another name's, or published just before a kill
                    return self._publish(plan, source.sha256)
        with Partial(self.partials, key, source.identity) as partial:
            if hasattr(source, "lock_fd"):
                source.lock_fd = lock.fd
            if source.n_bytes is not None:
                self._check_space(plan, source.n_bytes - partial.offset + source.extra_bytes)
            else:
                report.on_total = lambda total: self._check_space(plan, total - partial.offset)
            source.fetch(partial, report)
            partial.flush()
            digest = self._verify(plan, source, partial, report)
            with self._changing():
                partial.checkpoint()
                partial.data.replace(self.blob(digest))
                sync_folder(self.blobs)
                partial.remove()
                return self._publish(plan, digest)

    def _verify(self, plan: Plan, source: Source, partial: Partial, report: Report) -> str:
        """The digest of the finished file, checked against what was promised."""
        digest = hashlib.sha256()
        done = 0
        with partial.data.open("rb") as file:
            while chunk := file.read(CHUNK):
                if done == 0:
                    check_magic(chunk, plan.spec)
                digest.update(chunk)
                done += len(chunk)
                report(Progress("verify", done, partial.offset))
        if done == 0:
            raise DownloadFailed(f"{shown(plan.spec)} gave an empty file")
        if done != partial.offset or (source.n_bytes is not None and done != source.n_bytes):
            partial.restart()
            raise WrongDigest(f"{shown(plan.spec)} gave {done} bytes where {source.n_bytes} were expected")
        found = digest.hexdigest()
        if source.sha256 is not None and found != source.sha256:
            partial.restart()
            raise WrongDigest(
                f"{shown(plan.spec)} gave another file than expected (sha256 {found[:16]}..., "
                f"not {source.sha256[:16]}...): it was thrown away; try again, or ask who serves it"
            )
        return found

    def _publish(self, plan: Plan, sha256: str) -> Entry:
        """Give the blob its name. Under the store's lock."""
        path = self.blob(sha256)
        licence = plan.entry.licence or str(getattr(plan.source, "licence", ""))
        entry = plan.entry._replace(path=path, sha256=sha256, n_bytes=path.stat().st_size, licence=licence)
        old = self._read_or_none(file_name(entry.name))
        self._write(entry)
        if old is not None and old.sha256 != sha256:
            self._drop_blob(old)
        return self.get(entry.name)

    def _check_space(self, plan: Plan, needed: int) -> None:
        free = shutil.disk_usage(self.root).free
        if needed + RESERVE > free:
            raise NoSpace(
                f"{shown(plan.spec)} needs {megabytes(needed + RESERVE)} more on the disk of {self.root}, "
                f"where {megabytes(free)} are free: make room, or set EDGELLM_HOME to another disk"
            )

    def _no_space(self, plan: Plan) -> NoSpace:
        return NoSpace(
            f"the disk of {self.root} became full while {shown(plan.spec)} arrived: make room and run the same "
            "command again to go on, or run 'edgellm rm --unfinished' to remove what has arrived"
        )

    # ---- local files, removal ----

    def add_local(self, path: Path, name: str | None = None) -> Entry:
        """
        Register a file where it is. It is not copied, and never changed or removed by the store.

        Raises:
            ModelNotFound: There is no such file.
            StoreError: It is no GGUF file, or the name means another model.
        """
        entry = self._local_entry(path, check_name(name) if name is not None else None)
        for folder in (self.manifests, self.locks):
            make_folder(folder)
        with self._changing():
            self._of_that_name(entry)
            self._write(entry)
            return self.get(entry.name)

    def _local_entry(self, path: Path, name: str | None) -> Entry:
        try:
            full = Path(os.path.realpath(path))
            status = full.stat()
            if not stat.S_ISREG(status.st_mode):
                raise StoreError(f"{shown(str(path))} is not a plain file: name a .gguf file")
            with full.open("rb") as file:
                check_magic(file.read(64), str(path))
        except FileNotFoundError:
            raise ModelNotFound(no_file(path)) from None
        except OSError as error:
            raise StoreError(f"{shown(str(path))} cannot be read: {error.strerror}") from error
        except DownloadFailed as error:
            raise StoreError(str(error)) from None
        return Entry(name or name_from_file(path.name), full, status.st_size, local=True, source=str(full))

    def remove(self, name: str) -> Entry:
        """
        Forget the model *name*; a pulled file goes too when no other name means it.

        Returns:
            What it was.

        Raises:
            ModelNotFound: There is no such model here.
            StoreError: The file cannot be removed.
        """
        entry = self.get(name)
        make_folder(self.locks)
        try:
            with self._changing():
                entry = self.get(name)
                inside(self.manifests, file_name(entry.name)).unlink()
                sync_folder(self.manifests)
                self._drop_blob(entry)
        except OSError as error:
            raise StoreError(f"{shown(name)} cannot be removed: {error.strerror or error}") from error
        return entry

    def _drop_blob(self, entry: Entry) -> None:
        """Remove a pulled file that no manifest names any more, as far as all can be read. Under the store's lock."""
        if entry.local or entry.sha256 is None:
            return
        if all(other.sha256 != entry.sha256 for other in self.list()) and not self.unreadable():
            self.blob(entry.sha256).unlink(missing_ok=True)

    # ---- unfinished downloads ----

    def unfinished(self) -> tuple[tuple[Path, int], ...]:
        """
        Downloads that did not end and pulled files without a name, with their bytes.

        While a manifest cannot be read no pulled file counts as nameless: it may be the one with its name.
        """
        named = {entry.sha256 for entry in self.list()}
        blobs = () if self.unreadable() else self.blobs.glob("sha256-*")
        paths = [path for path in blobs if path.name[7:] not in named]
        paths += list(self.partials.glob("*"))
        return tuple((path, _tree_bytes(path)) for path in sorted(paths))

    def sweep(self) -> int:
        """Remove what `unfinished` lists, but for downloads that run right now; the bytes freed."""
        if not self.root.is_dir():
            return 0
        make_folder(self.locks)
        freed = 0
        with self._changing():
            for path, n_bytes in self.unfinished():
                freed += n_bytes if self._sweep_one(path) else 0
            for leftover in self.manifests.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
        return freed

    def _sweep_one(self, path: Path) -> bool:
        if path.parent == self.blobs:
            path.unlink(missing_ok=True)
            return True
        lock = FileLock(inside(self.locks, f"{path.name}.lock"))
        if not lock.try_acquire():
            return False
        shutil.rmtree(path, ignore_errors=True)
        lock.release()
        return True

    # ---- inner ----

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """The store's own lock: held while names and blobs change."""
        with FileLock(inside(self.locks, "store.lock")):
            yield

    def _write(self, entry: Entry) -> None:
        write_atomically(inside(self.manifests, file_name(entry.name)), manifest(entry))


def manifest(entry: Entry) -> bytes:
    """The note that gives *entry* its name, as it lies in ``manifests``."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    data = {**entry.as_json(), "format": 1, "added": now}
    del data["present"]
    if not entry.local:
        del data["path"]  # follows from the digest, so that the folder can be moved
    return json.dumps(data, indent=1).encode()


class _Throttle:
    """Passes progress on ten times a second, and every change of stage and the end."""

    def __init__(self, on_progress: Report | None) -> None:
        self._on_progress = on_progress
        self._stage = ""
        self._next = 0.0
        self.on_total: Callable[[int], None] | None = None

    def __call__(self, progress: Progress) -> None:
        if self.on_total is not None and progress.total is not None:
            check, self.on_total = self.on_total, None
            check(progress.total)
        now = time.monotonic()
        ended = progress.total is not None and progress.done >= progress.total
        if self._on_progress is None or (now < self._next and progress.stage == self._stage and not ended):
            return
        self._stage, self._next = progress.stage, now + 0.1
        self._on_progress(progress)


def _tree_bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
