"""The model store: names, manifests, local files, the catalog, locks. No network is used."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest

from edgellm.errors import EdgellmError, ModelNotFound
from edgellm.store import Entry, Store, resolve
from edgellm.store.catalog import load
from edgellm.store.faults import BadName, StoreError
from edgellm.store.locks import FileLock
from edgellm.store.names import is_name, megabytes, name_from_file, parse_hub
from tests.support.store import MODEL, files_below

# ---- names ----

BAD_NAMES = [
    "", ".", "..", "../x", "a/../b", "a..b", "/etc/none", "\\x", "a\\b", "c:\\x", "%2e%2e/x", "a%2fb", "a\x00b",
    "a b", "a\nb", "-a", "_a", "a.", "a:", ":a", "a:b:c", "con", "CON", "nul.txt", "com1", "x:lpt1", "aux.gguf",
    "a" * 97, "a" * 4096, "\u2024\u2024/x", "\uff0e\uff0e", "a\u200b", "caf\xe9", "a\u2215b", "a*", "a?", "a|b",
    "a<b", 'a"b', "a;b", "$(x)", "`x`", "~", "~root", "a@b", "a#b", "a\tb", "a\x7f", "\U0001f600", "a\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_touch_nothing(name: str, store: Store, local: Path, tmp_path: Path) -> None:
    assert not is_name(name)
    store.add_local(local, "keep")
    before = files_below(tmp_path)
    for action in (store.get, store.remove, resolve, lambda n: store.add_local(local, n)):
        with pytest.raises((EdgellmError, ValueError)):
            action(name)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("name", ["a", "smollm2", "gemma3:270m", "Llama-3.2:1B-q4_k_m", "x" * 96, "0", "a.b_c-d"])
def test_good_names(name: str) -> None:
    assert is_name(name)


def test_names_made_from_files() -> None:
    assert name_from_file("Tiny Llama.Q4_0.GGUF") == "tiny-llama.q4_0"
    assert name_from_file("..") == "model"
    assert name_from_file("con.gguf") == "model"
    assert name_from_file("x" * 300) == "x" * 96
    assert [megabytes(n) for n in (5, 98_362_432, 1_300_000_000)] == ["5 B", "98 MB", "1.3 GB"]


def test_hub_specs() -> None:
    assert parse_hub("hf:org/re.po") == ("org", "re.po", None)
    assert parse_hub("hf:org/repo:Q4_K_M") == ("org", "repo", "Q4_K_M")
    for spec in ("hf:", "hf:org", "hf:org/repo/x", "hf:../x", "hf:org/..:x", "hf:o/r:../../x", "hf:o/r:a b"):
        with pytest.raises(BadName):
            parse_hub(spec)


# ---- the shelf ----


def test_local_file_is_registered_in_place(store: Store, local: Path) -> None:
    entry = store.add_local(local)
    assert (entry.name, entry.local, entry.path) == ("mine.q4_0", True, local.resolve())
    assert resolve("mine.q4_0") == resolve("MINE.Q4_0") == local.resolve()
    assert resolve(str(local)) == resolve(local) == local
    assert not list(store.root.glob("blobs/*"))
    store.remove("mine.q4_0")
    assert local.exists()
    assert store.list() == []


def test_local_file_that_went_away(store: Store, local: Path) -> None:
    store.add_local(local, "mine")
    local.unlink()
    assert [entry.present for entry in store.list()] == [False]
    with pytest.raises(ModelNotFound, match="no file is any more"):
        resolve("mine")


def test_a_name_means_one_thing(store: Store, local: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(MODEL[:100])
    store.add_local(local, "mine")
    store.add_local(local, "mine")
    with pytest.raises(StoreError, match="already means"):
        store.add_local(other, "mine")
    store._write(Entry("big:1b", local.resolve(), 1, ("big",), local=True, source="big:1b"))
    with pytest.raises(StoreError, match=r"'big' already means 'big:1b': .* run 'edgellm rm big:1b' first"):
        store.add_local(other, "big")
    with pytest.raises(StoreError, match="'big' already means 'big:1b'"):
        store.pull("https://none.invalid/x.gguf", name="big")


@pytest.mark.parametrize("content", [b"", b"GG", b"<html>", b"PK\x03\x04zip", b"version https://git-lfs.github.com"])
def test_only_gguf_files_are_registered(content: bytes, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="not a GGUF model"):
        store.add_local(path)


def test_special_files_are_not_registered(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.gguf")
    for path in (tmp_path, tmp_path / "fifo.gguf", Path("/dev/zero")):
        with pytest.raises(StoreError, match="plain file"):
            store.add_local(path)
    with pytest.raises(ModelNotFound, match="does not exist"):
        store.add_local(tmp_path / "none.gguf")


def test_unknown_names_say_what_is_near(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"nearest is 'smollm2'.*edgellm pull smollm2"):
        resolve("smolm2")
    with pytest.raises(ModelNotFound, match="run 'edgellm pull smollm2'"):
        resolve("SmolLM2:135m")
    with pytest.raises(ModelNotFound, match="known are gemma3:270m, smollm2"):
        resolve("qqqq")
    (tmp_path / "near.gguf").write_bytes(b"")
    with pytest.raises(ModelNotFound, match="there is near"):
        resolve(tmp_path / "far.gguf")
    with pytest.raises(ModelNotFound, match="is a folder"):
        resolve(tmp_path)
    with pytest.raises(ModelNotFound, match="nor does its folder"):
        resolve(tmp_path / "none" / "x.gguf")
    with pytest.raises(ModelNotFound, match="cannot be opened"):
        resolve("x" * 5000 + ".gguf")


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b'{"format": 2}', b"[" * 70000, b'{"name": "../x", "format": 1}', b"\xff\xfe"],
)
def test_damaged_manifests(damage: bytes, store: Store, local: Path) -> None:
    store.add_local(local, "good")
    store.add_local(local, "bad")
    (store.manifests / "bad.json").write_bytes(damage)
    assert [entry.name for entry in store.list()] == ["good"]
    with pytest.raises(StoreError, match="damaged"):
        resolve("bad")
    assert store.add_local(local, "bad").name == "bad"  # mended by doing it again


@pytest.mark.parametrize("damage", ["cut", "a folder"])
def test_a_model_is_kept_while_its_manifest_cannot_be_read(damage: str, store: Store) -> None:
    """Neither a sweep nor the removal of another name of the same file takes it."""
    digest = hashlib.sha256(MODEL).hexdigest()
    store.blobs.mkdir(parents=True)
    store.manifests.mkdir(parents=True)
    store.blob(digest).write_bytes(MODEL)
    assert [path for path, _ in store.unfinished()] == [store.blob(digest)]  # no note at all: a pull that was killed
    for name in ("x", "other"):
        store._write(Entry(name, store.blob(digest), len(MODEL), sha256=digest))
    note = store.manifests / "x.json"
    whole = note.read_bytes()
    note.unlink()
    note.write_bytes(whole[:50]) if damage == "cut" else note.mkdir()
    assert [entry.name for entry in store.list()] == ["other"]
    with pytest.raises(
        StoreError, match="damaged" if damage == "cut" else r"cannot be read \(Is a directory\)"
    ) as caught:
        store.get("x")
    assert store.unreadable() == (str(caught.value),)
    store.remove("other")
    assert store.unfinished() == ()
    assert store.sweep() == 0
    note.unlink() if damage == "cut" else note.rmdir()
    note.write_bytes(whole)
    assert store.get("x").path.read_bytes() == MODEL
    assert store.unreadable() == ()


def test_a_folder_that_cannot_be_read_is_no_empty_one(store: Store) -> None:
    store.root.mkdir(parents=True)
    assert store.list() == []
    store.manifests.write_bytes(b"")  # as unreadable as one without rights, for root as well
    for use in (store.list, store.unreadable, store.sweep, lambda: resolve("x")):
        with pytest.raises(StoreError, match=r"manifests cannot be read \(Not a directory\): make it readable"):
            use()


def test_manifest_cannot_point_out_of_the_store(store: Store, local: Path, tmp_path: Path) -> None:
    store.add_local(local, "x")
    data = json.loads((store.manifests / "x.json").read_text())
    data.update(local=False, sha256="../../../etc/passwd")
    (store.manifests / "x.json").write_text(json.dumps(data))
    with pytest.raises(StoreError):
        store.get("x")
    (store.manifests / "x.json").unlink()
    victim = tmp_path / "victim.json"
    victim.write_text("{}")
    (store.manifests / "x.json").symlink_to(victim)
    for action in (store.get, store.remove):
        with pytest.raises(StoreError):
            action("x")
    assert victim.read_text() == "{}"


def test_catalog_is_sound() -> None:
    catalog = load()
    assert catalog["smollm2"] is catalog["smollm2:135m"]
    assert catalog["gemma3"].name == "gemma3:270m"
    for known in catalog.values():
        assert known.licence
        assert known.title
        assert known.open_source().n_bytes == known.n_bytes  # the parts add up


# ---- locks ----


def test_locks(tmp_path: Path) -> None:
    one, two = FileLock(tmp_path / "l"), FileLock(tmp_path / "l")
    assert one.try_acquire()
    assert not two.try_acquire()
    one.release()
    assert two.try_acquire()
    two.release()
    assert not (tmp_path / "l").exists()


def test_lock_excludes_threads(tmp_path: Path) -> None:
    """The file is removed at each release, so this also tests the race with a waiter on the removed file."""
    inside, worst = 0, 0

    def work() -> None:
        nonlocal inside, worst
        for _ in range(30):
            lock = FileLock(tmp_path / "l")
            lock.acquire(poll=0.0)
            inside += 1
            worst = max(worst, inside)
            time.sleep(0.0002)
            inside -= 1
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == 1
