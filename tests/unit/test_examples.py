"""The examples do what they say: the C chat, and what of the Android app a desktop JVM can run."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from edgellm.testing import tiny_model
from tests.support.examples import ROOT, compiled

ANDROID = ROOT / "examples/android/app/src/main"


@pytest.fixture
def native(tmp_path: Path) -> Path:
    from edgellm._native import library_path

    return compiled("cc", library_path(), tmp_path)


def test_c_example_answers(native: Path, tmp_path: Path) -> None:
    model = tiny_model("llama", tmp_path / "tiny.gguf")
    done = subprocess.run([native, model, "Hello", "-n", "8"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b"\n")
    assert len(done.stdout) > 4
    done = subprocess.run([native, model, "-n", "3"], input=b"Hello\n\nand again\n", capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"> ") == 4
    assert subprocess.run([native, tmp_path / "none.gguf"], capture_output=True).returncode == 1
    assert subprocess.run([native, model, "-n", "x"], capture_output=True).returncode == 2


def test_c_example_stops_at_ctrl_c(native: Path, tmp_path: Path) -> None:
    model = tiny_model("llama", tmp_path / "slow.gguf", n_layer=12, ctx=100000, embd=512, ff=2048)
    process = subprocess.Popen([native, model, "Hello", "-n", "90000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1)  # the answer has begun
    began = time.monotonic()
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"chat: stopped" in err
    assert time.monotonic() - began < 30  # the answer would take minutes


def test_android_calls_in_a_desktop_jvm(tmp_path: Path) -> None:
    from edgellm._native import library_path

    javac, java = shutil.which("javac"), shutil.which("java")
    if not javac or not java:
        pytest.skip("no Java compiler is installed")
    include = Path(javac).resolve().parents[1] / "include"
    flags = [f"-I{include}", f"-I{include / 'linux'}", "-fPIC", "-shared"]
    source = "examples/android/app/src/main/cpp/native.c"
    compiled("cc", library_path(), tmp_path, source, flags, "libchat.so")
    package = tmp_path / "org/edgellm/chat"
    package.mkdir(parents=True)
    shutil.copy(ANDROID / "java/org/edgellm/chat/Native.java", package)
    (package / "Main.java").write_text(
        """package org.edgellm.chat;
public final class Main {
    static int parts = 0;
    public static void main(String[] words) {
        long handle = Native.open(words[0], 512);
        Native.answer(handle, "Hello".getBytes(), 8, part -> parts++);
        int first = parts;
        Native.answer(handle, "And?".getBytes(), 200, part -> { if (parts++ == first) Native.stop(handle); });
        System.out.println(first + " " + (parts - first < 200));
        try {
            Native.answer(handle, "x".repeat(5000).getBytes(), 8, part -> {});
        } catch (IllegalStateException error) {
            System.out.println(error.getMessage());
        }
        Native.close(handle);
        try {
            Native.open("/nowhere.gguf", 512);
        } catch (IllegalStateException error) {
            System.out.println(error.getMessage());
        }
    }
}
"""
    )
    done = subprocess.run([javac, "-d", tmp_path, *package.glob("*.java")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model = tiny_model("llama", tmp_path / "tiny.gguf")
    command = [java, f"-Djava.library.path={tmp_path}", "-Xmx64m", "-cp", tmp_path, "org.edgellm.chat.Main", model]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert int(first.split()[0]) > 0
    assert first.split()[1] == "true"
    assert "context" in second
    assert "no such file: /nowhere.gguf" in third
