"""LLM: prompts in, text and figures out. A tiny random model says nonsense, but always the same."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest

from edgellm import (
    LLM,
    CacheFull,
    ClosedError,
    ContextOverflow,
    InvalidArgument,
    ModelNotFound,
    SamplingParams,
    Tokenizer,
    Unsupported,
)
from edgellm.store import Store

Tiny = Callable[..., Path]
GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eog": True}
TEXT = "the and of in the"


@pytest.fixture(scope="module")
def llm(tiny: Tiny) -> Iterator[LLM]:
    with LLM(tiny("llama"), threads=1, n_ctx=128, n_seqs=4) as opened:
        yield opened


# ---- token healing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_token_healing(arch: str, tiny: Tiny) -> None:
    """The first token begins with the text taken back, the text does not repeat it, and it is the likeliest such."""
    with LLM(tiny(arch), threads=1, n_ctx=64) as llm:
        tokens = llm.tokenize("the and of th")
        rest = tokens[:-1]
        before = llm.tokenizer.decode(tokens)

        def begins(token: int) -> bool:
            return llm.tokenizer.decode([*rest, token]).startswith(before) and not llm.tokenizer.is_control(token)

        healed = llm.generate(tokens, **GREEDY, max_tokens=6, token_healing=True)
        text = llm.tokenizer.decode([*rest, *healed.token_ids])
        assert healed.n_prompt == len(rest)
        assert text.startswith(before)
        assert healed.text == text[len(before) :].decode("utf-8", "replace")
        logits = llm.logits(rest)[-1]
        allowed = [token for token in range(llm.tokenizer.n_tokens) if begins(token)]
        assert healed.token_ids[0] == max(allowed, key=lambda token: logits[token])
        assert llm.generate(rest, **GREEDY, max_tokens=1).token_ids == [int(logits.argmax())]


def test_token_healing_streams_and_repeats(llm: LLM) -> None:
    settings: dict[str, Any] = {"token_healing": True, "seed": 3, "max_tokens": 8, "ignore_eog": True}
    one = llm.generate("the and of th", **settings)
    parts = list(llm.stream("the and of th", **settings))
    assert "".join(part.text for part in parts) == one.text
    assert llm.generate(["the and of th", "a"], **settings)[0].token_ids == one.token_ids


def test_token_healing_leaves_alone_what_has_no_text(llm: LLM) -> None:
    bos = llm.tokenizer.bos or 0
    for prompt in ([bos], [bos, bos]):  # the only token; a control token
        with_healing = llm.generate(prompt, **GREEDY, max_tokens=3, token_healing=True)
        assert with_healing.token_ids == llm.generate(prompt, **GREEDY, max_tokens=3).token_ids
    with pytest.raises(InvalidArgument, match="token_healing"):
        llm.chat([{"role": "user", "content": "x"}], token_healing=True)


# ---- opening and closing ---------------------------------------------------------------------------------------------


def test_what_it_says_about_itself(llm: LLM) -> None:
    assert (llm.info.architecture, llm.info.n_layer, llm.info.n_embd) == ("llama", 2, 64)
    assert (llm.n_ctx, llm.threads) == (128, 1)
    assert llm.isa
    assert llm.metadata["general.name"] == "tiny llama"
    assert "tiny" not in repr(llm) or "llama" in repr(llm)
    assert llm.tokenizer.n_tokens == llm.info.n_vocab


def test_use_after_close(tiny: Tiny) -> None:
    llm = LLM(tiny("llama"), threads=1, n_ctx=64)
    stream = llm.stream(TEXT, **GREEDY)
    next(stream)
    llm.close()
    llm.close()
    uses: list[Callable[[], Any]] = [
        lambda: llm.generate("x"),
        lambda: llm.stream("x"),
        lambda: llm.chat([{"role": "user", "content": "x"}]),
        lambda: llm.logits([1]),
        lambda: llm.tokenize("x"),
        lambda: llm.detokenize([1]),
        lambda: llm.render([{"role": "user", "content": "x"}]),
        lambda: llm.cancel(),
        lambda: next(stream),
    ]
    for use in uses:
        with pytest.raises(ClosedError):
            use()
    assert "closed" in repr(llm)


def test_wrong_arguments_when_opening(tiny: Tiny, tmp_path: Path) -> None:
    for options, error in [
        ({"kv_type": "q4"}, "kv_type is 'q4'"),
        ({"n_ctx": -1}, "^n_ctx is -1; it must be a whole number from 0 to 2147483647$"),
        ({"n_ctx": 5_000_000_000}, "from 0 to 2147483647$"),
        ({"threads": "two"}, "^threads is 'two'"),
        ({"threads": 500}, "^threads is 500; it must be a whole number from 0 to 256$"),
        ({"n_seqs": "a"}, "^n_seqs is 'a'; it must be a whole number from 1 to 256$"),
        ({"n_seqs": 100_000}, "n_seqs is 100000"),
        ({"rope_scaling": "yern"}, "^rope_scaling is 'yern'; it must be one of model, none"),
        ({"rope_factor": "x"}, "^rope_factor is 'x'; it must be a number from 0.001 to 10000, or 0 for"),
        ({"rope_base": 0.5}, "^rope_base is 0.5; it must be a number from 1 to 1e"),
        ({"rope_original_ctx": -1}, "^rope_original_ctx is -1; it must be a whole number from 1 to 2147483647, or 0"),
        ({"seed": -5}, "seed is -5"),
    ]:
        with pytest.raises(InvalidArgument, match=error):
            LLM(tiny("llama"), **options)
    with pytest.raises(ModelNotFound, match="no-such-model"):
        LLM("no-such-model")
    with pytest.raises(ModelNotFound):
        LLM(tmp_path / "missing.gguf")


# ---- generate --------------------------------------------------------------------------------------------------------


def test_greedy_repeats_exactly(llm: LLM) -> None:
    first = llm.generate(TEXT, max_tokens=20, **GREEDY)
    again = llm.generate(TEXT, max_tokens=20, **GREEDY)
    assert first.token_ids == again.token_ids
    assert first.text == again.text == llm.detokenize(first.token_ids)
    assert (first.n_generated, first.finish_reason, first.stop_reason) == (20, "length", None)
    assert first.n_prompt == len(llm.tokenize(TEXT))
    assert (first.truncated, first.dropped_tokens, first.logprobs) == (False, 0, None)
    times = first.timings
    assert times.first_token_ms >= times.prefill_ms > 0
    assert times.decode_ms > 0
    assert times.prefill_per_s > 0
    assert times.decode_per_s > 0


def test_greedy_takes_the_likeliest_token(llm: LLM) -> None:
    """Checked against the logits of the same tokens."""
    done = llm.generate(TEXT, max_tokens=12, **GREEDY)
    tokens = [*llm.tokenize(TEXT), *done.token_ids]
    rows = llm.logits(tokens)[done.n_prompt - 1 : -1]
    assert rows.argmax(axis=1).tolist() == done.token_ids


def test_prompts_as_text_and_tokens(llm: LLM) -> None:
    text = llm.generate(TEXT, max_tokens=5, **GREEDY)
    ids = llm.generate(llm.tokenize(TEXT), max_tokens=5, **GREEDY)
    array = llm.generate(np.array(llm.tokenize(TEXT)), max_tokens=5, **GREEDY)  # type: ignore[call-overload]
    assert text.token_ids == ids.token_ids == array.token_ids


def test_a_list_runs_in_shared_steps_with_the_same_result(llm: LLM) -> None:
    """Also more prompts than sequences, and of different lengths."""
    prompts = [TEXT[: n + 1] for n in range(9)] * 2
    alone = [llm.generate(prompt, max_tokens=8, **GREEDY).token_ids for prompt in prompts]
    together = llm.generate(prompts, max_tokens=8, **GREEDY)
    assert [one.token_ids for one in together] == alone
    as_ids = llm.generate([llm.tokenize(prompt) for prompt in prompts], max_tokens=8, **GREEDY)
    assert [one.token_ids for one in as_ids] == alone


def test_seeds(llm: LLM, tiny: Tiny) -> None:
    hot: dict[str, Any] = {
        "temperature": 2.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "max_tokens": 12,
        "ignore_eog": True,
    }
    fixed = [llm.generate(TEXT, seed=7, **hot) for _ in range(2)]
    assert fixed[0].token_ids == fixed[1].token_ids
    assert fixed[0].seed == 7
    free = [llm.generate(TEXT, **hot) for _ in range(2)]
    assert free[0].seed != free[1].seed
    assert free[0].token_ids != free[1].token_ids
    assert llm.generate(TEXT, seed=free[0].seed, **hot).token_ids == free[0].token_ids
    listed = llm.generate([TEXT, TEXT], seed=7, **hot)
    assert [one.seed for one in listed] == [7, 8]
    assert listed[0].token_ids == fixed[0].token_ids
    with LLM(tiny("llama"), threads=1, n_ctx=64, seed=7) as seeded:
        assert seeded.generate(TEXT, **hot).token_ids == fixed[0].token_ids


def test_stop_rules(llm: LLM) -> None:
    done = llm.generate(TEXT, max_tokens=30, **GREEDY)
    pieces = [llm.detokenize([token]) for token in done.token_ids]
    place = next(
        n for n in range(3, 30) if len(pieces[n]) == 1 and pieces[n].isascii() and pieces[n] not in done.text[:3]
    )
    stop = pieces[place]
    stopped = llm.generate(TEXT, max_tokens=30, stop=["zzzz", stop], **GREEDY)
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop)
    assert stopped.text == done.text[: done.text.index(stop)]
    token = done.token_ids[4]
    by_token = llm.generate(TEXT, max_tokens=30, stop_tokens=[token], **GREEDY)
    assert (by_token.finish_reason, by_token.stop_reason) == ("stop", token)
    assert by_token.token_ids == done.token_ids[: done.token_ids.index(token) + 1]


def test_the_end_of_an_answer(llm: LLM) -> None:
    assert llm.tokenizer.eos is not None
    ended = llm.generate(TEXT, logit_bias={llm.tokenizer.eos: 1000.0}, temperature=0)
    assert (ended.finish_reason, ended.stop_reason, ended.text) == ("stop", None, "")
    assert ended.token_ids == [llm.tokenizer.eos]


def test_logprobs(llm: LLM) -> None:
    done = llm.generate(TEXT, max_tokens=6, logprobs=3, **GREEDY)
    assert done.logprobs is not None
    assert [item.token_id for item in done.logprobs] == done.token_ids
    tokens = [*llm.tokenize(TEXT), *done.token_ids]
    rows = llm.logits(tokens).astype(np.float64)[done.n_prompt - 1 : -1]
    expected = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    for row, item in zip(expected, done.logprobs, strict=True):
        assert item.logprob == pytest.approx(row[item.token_id], abs=1e-4)
        assert [top.token_id for top in item.top] == np.argsort(-row)[:3].tolist()
        assert item.top[0].token_id == item.token_id
        assert item.bytes.decode("utf-8", "replace") == item.token


def test_no_tokens_wanted(llm: LLM) -> None:
    done = llm.generate(TEXT, max_tokens=0)
    assert (done.text, done.token_ids, done.finish_reason) == ("", [], "length")
    chunks = list(llm.stream(TEXT, max_tokens=0))
    assert [chunk.finish_reason for chunk in chunks] == ["length"]


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context(llm: LLM) -> None:
    for use in (llm.generate, llm.stream, llm.logits):
        with pytest.raises(ContextOverflow, match=r"129 tokens, the context 128; shorten the prompt or use n_ctx=129"):
            use([5] * 129)
    with pytest.raises(ContextOverflow, match="the context 128"):
        llm.chat([{"role": "user", "content": "long " * 200}])
    assert llm.generate([5] * 128, **GREEDY).finish_reason == "length"


def test_generation_ends_when_the_context_is_full(llm: LLM) -> None:
    done = llm.generate([5] * 100, **GREEDY)
    assert done.finish_reason == "length"
    assert 28 <= done.n_generated <= 29


def test_empty_prompts(llm: LLM, tiny: Tiny) -> None:
    for empty in ("", []):
        with pytest.raises(InvalidArgument, match="the prompt is empty"):
            llm.generate(empty)  # type: ignore[arg-type]
    with LLM(tiny("llama", metadata={"tokenizer.ggml.add_bos_token": True}), threads=1, n_ctx=64) as with_bos:
        assert with_bos.generate("", max_tokens=2, **GREEDY).n_prompt == 1


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ([5, 100_000], "token 1 of the prompt is 100000"),
        ([-1], "token 0 of the prompt is -1"),
        (["a", 5], "a prompt is text or a list"),
        (5, "a prompt is text or a list of token ids, not int"),
        (None, "not NoneType"),
        ([1.5], "token 0 is 1.5"),
        ([[1], []], "^prompt 1 of the list: the prompt is empty"),
        ({"a": 1}, "a prompt is text or a list of token ids, not dict"),
        ({1, 2}, "not set"),
        (np.array(5), "not ndarray"),
    ],
)
def test_wrong_prompts(llm: LLM, prompt: Any, error: str) -> None:
    with pytest.raises(InvalidArgument, match=error):
        llm.generate(prompt)


def test_bytes_are_text_in_any_container(llm: LLM) -> None:
    """Not four bytes to a token."""
    expected = llm.generate(TEXT, max_tokens=3, **GREEDY)
    raw = TEXT.encode()
    for text in (raw, bytearray(raw), memoryview(raw)):
        assert llm.generate(text, max_tokens=3, **GREEDY) == dataclasses.replace(  # type: ignore[call-overload]
            expected, timings=ANY, seed=ANY
        )
        assert llm.tokenizer.encode(text) == llm.tokenizer.encode(TEXT)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=f"must be a list of token ids, not {type(text).__name__}"):
            llm.detokenize(text)
    ids = llm.tokenize(TEXT)
    for given in (np.array(ids), array("i", ids), memoryview(array("i", ids))):
        assert llm.generate(given, max_tokens=3, **GREEDY).token_ids == expected.token_ids  # type: ignore[call-overload]


def test_a_vocabulary_without_the_bytes_of_a_prompt(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm.tokenizer, "encode", lambda *_, **__: [])
    with pytest.raises(InvalidArgument, match="gives no token: this vocabulary has none for the bytes"):
        llm.generate(b"\xff")  # type: ignore[call-overload]


def test_what_openai_sends_and_what_is_no_setting(llm: LLM) -> None:
    assert llm.generate(TEXT, stop=None, logit_bias=None, max_tokens=2, **GREEDY).n_generated == 2
    messages = [{"role": "user", "content": "the"}]
    for use, error in [
        (lambda: llm.generate(TEXT, {"temperature": 0}), r"params is \{'temperature': 0\}; give SamplingParams"),
        (lambda: llm.stream(TEXT, 5), "params is 5"),
        (lambda: llm.chat(messages, template=5), "template is 5; it must be the name of a template"),
        (lambda: llm.chat(messages, template_args=5), "template_args is 5"),
        (lambda: llm.set_adapter("a", "x"), "scale is 'x'"),
        (lambda: llm.logits([[5], [5] * 1000, []]), "prompt 1 of the list: the prompt has 1000 tokens"),
        (lambda: llm.embed("a", dimensions="x"), "dimensions is 'x'; this model's embeddings have 1 to"),
        (lambda: llm.embed({"a": 1}), "texts is "),
        (lambda: LLM(None), "model is None; give a file"),
        (lambda: Tokenizer(None), "path is None; give a file"),
    ]:
        with pytest.raises((InvalidArgument, ContextOverflow), match=error):
            use()  # type: ignore[no-untyped-call]


def test_an_llm_cannot_be_pickled(llm: LLM) -> None:
    for one in (llm, llm.tokenizer):
        with pytest.raises(Unsupported, match="cannot be pickled or copied: open it in each process"):
            pickle.dumps(one)
        with pytest.raises(Unsupported, match="cannot be pickled or copied"):
            copy.deepcopy(one)


def test_a_folder_of_a_models_name_is_no_model(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "home"))
    Store().add_local(tiny("llama"), "mine")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    with LLM("mine", threads=1, n_ctx=64) as opened, Tokenizer("mine") as tokenizer:
        assert opened.tokenize(TEXT) == tokenizer.encode(TEXT)


def test_wrong_settings(llm: LLM) -> None:
    with pytest.raises(InvalidArgument, match="did you mean max_tokens"):
        llm.generate(TEXT, max_token=5)
    with pytest.raises(InvalidArgument, match=r"stop|vocabulary|token"):
        llm.generate(TEXT, stop_tokens=[10_000_000])
    with pytest.raises(InvalidArgument, match=r"bias|vocabulary|token"):
        llm.generate(TEXT, logit_bias={10_000_000: 1.0})
    assert llm.generate(TEXT, max_tokens=2, **GREEDY).n_generated == 2  # nothing is left open


def test_a_cache_too_small_for_all_makes_some_wait(tiny: Tiny) -> None:
    """Sequences give their blocks back and are computed again: the result is the same."""
    with LLM(tiny("llama"), threads=1, n_ctx=128, n_seqs=4) as roomy:
        prompts = [[5 + n] * (20 + n) for n in range(4)]
        expected = [one.token_ids for one in roomy.generate(prompts, max_tokens=60, **GREEDY)]
        blocked = [roomy._core.engine.open_seq() for _ in range(2)]
        for seq in blocked:  # take half of the cache away
            roomy._core.engine.step([(seq, [5] * 128, 0, False)])
        assert [one.token_ids for one in roomy.generate(prompts, max_tokens=60, **GREEDY)] == expected


def test_streams_left_unfinished_are_named(tiny: Tiny) -> None:
    with LLM(tiny("llama"), threads=1, n_ctx=64, n_seqs=2) as llm:
        streams = [llm.stream(TEXT, **GREEDY) for _ in range(2)]
        for stream in streams:
            next(stream)
        with pytest.raises(CacheFull, match="unfinished streams hold the rest"):
            llm.generate(TEXT)
        with pytest.raises(CacheFull, match="unfinished streams"):
            llm.logits([5])
        streams.pop().close()  # type: ignore[attr-defined]
        assert llm.generate(TEXT, max_tokens=3, **GREEDY).n_generated == 3


def test_a_vocabulary_without_text(tiny: Tiny) -> None:
    with LLM(tiny("llama", tokenizer="test"), threads=1, n_ctx=64) as llm:
        done = llm.generate([5, 6, 7], max_tokens=5, temperature=0, logprobs=1)
        assert (done.n_generated, done.text, done.finish_reason) == (5, "", "length")
        assert llm.logits([5, 6]).shape == (2, 128)
        for use in (llm.generate, llm.tokenize, lambda text: llm.chat([{"role": "user", "content": text}])):
            with pytest.raises(Unsupported):
                use("text")


# ---- stream ----------------------------------------------------------------------------------------------------------


def test_stream_adds_up_to_generate(llm: LLM) -> None:
    for params in (SamplingParams(max_tokens=25, logprobs=2, **GREEDY), SamplingParams(max_tokens=25, seed=3)):
        whole = llm.generate(TEXT, params)
        chunks = list(llm.stream(TEXT, params))
        assert "".join(chunk.text for chunk in chunks) == whole.text
        assert [token for chunk in chunks for token in chunk.token_ids] == whole.token_ids
        assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        last = chunks[-1].completion
        assert last is not None
        assert (last.text, last.token_ids, last.finish_reason) == (whole.text, whole.token_ids, whole.finish_reason)
        if params.logprobs is not None:
            assert [item for chunk in chunks for item in chunk.logprobs or []] == whole.logprobs


def test_an_abandoned_stream_gives_its_sequence_back(llm: LLM) -> None:
    free = llm._core.engine.info().n_blocks_free
    for _ in range(10):  # more often than there are sequences
        for chunk in llm.stream(TEXT, **GREEDY):
            assert chunk.completion is None
            break
    assert llm._core.engine.info().n_blocks_free == free


def test_other_calls_run_between_two_chunks(llm: LLM) -> None:
    expected = llm.generate(TEXT, max_tokens=10, **GREEDY).token_ids
    tokens = []
    for chunk in llm.stream(TEXT, max_tokens=10, **GREEDY):
        tokens += chunk.token_ids
        assert llm.generate(TEXT, max_tokens=3, **GREEDY).token_ids == expected[:3]
        llm.logits([5, 6])
    assert tokens == expected


def test_stream_checks_its_arguments_at_once(llm: LLM) -> None:
    with pytest.raises(InvalidArgument):
        llm.stream("")
    with pytest.raises(InvalidArgument):
        llm.stream(TEXT, top_p=7)


# ---- chat ------------------------------------------------------------------------------------------------------------


def test_chat_has_the_shape_of_openai(llm: LLM) -> None:
    messages = [{"role": "user", "content": TEXT}]
    answer = llm.chat(messages, max_tokens=6, logprobs=1, **GREEDY)
    expected = llm.generate(llm.tokenize(llm.render(messages), parse_special=True), max_tokens=6, **GREEDY)
    choice = answer["choices"][0]
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["created"] > 1_600_000_000
    assert answer["model"].startswith("llama")
    assert choice["message"] == {"role": "assistant", "content": expected.text}
    assert (choice["index"], choice["finish_reason"]) == (0, "length")
    assert answer["usage"] == {
        "prompt_tokens": expected.n_prompt, "completion_tokens": 6, "total_tokens": expected.n_prompt + 6,
    }  # fmt: skip
    entry = choice["logprobs"]["content"][0]
    assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
    assert set(entry["top_logprobs"][0]) == {"token", "logprob", "bytes"}
    assert answer["timings"]["first_token_ms"] > 0


def test_chat_stream_has_the_shape_of_openai(llm: LLM) -> None:
    messages = [{"role": "user", "content": TEXT}]
    answer = llm.chat(messages, max_tokens=6, **GREEDY)
    chunks = list(llm.chat(messages, stream=True, max_tokens=6, **GREEDY))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    assert text == answer["choices"][0]["message"]["content"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == answer["usage"]
    assert chunks[-1]["timings"]["decode_ms"] > 0


# ---- logits ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact(tiny: Tiny) -> Iterator[LLM]:
    """With a cache that rounds nothing."""
    with LLM(tiny("llama"), threads=1, n_ctx=128, n_seqs=4, kv_type="f32") as opened:
        yield opened


@pytest.mark.parametrize("chunk", [1, 7, 32, 10_000])
def test_logits_do_not_depend_on_the_chunk(exact: LLM, chunk: int) -> None:
    llm = exact
    tokens = [(7 * n) % 250 + 3 for n in range(100)]
    whole = llm.logits(tokens)
    assert whole.shape == (100, llm.info.n_vocab)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(llm.logits(tokens, chunk=chunk), whole, rtol=0, atol=1e-4)


def test_logits_of_several_in_shared_steps(exact: LLM) -> None:
    llm = exact
    lists = [[5 + n] * (1 + 13 * n) for n in range(7)]  # more than there are sequences
    together = llm.logits(lists)
    assert [rows.shape[0] for rows in together] == [len(tokens) for tokens in lists]
    for tokens, rows in zip(lists, together, strict=True):
        np.testing.assert_allclose(rows, llm.logits(tokens), rtol=0, atol=1e-4)


def test_logits_arguments(llm: LLM) -> None:
    for chunk in (0, -1, 1.5, "x"):
        with pytest.raises(InvalidArgument, match="chunk is"):
            llm.logits([5], chunk=chunk)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="the prompt is empty"):
        llm.logits([])
    assert llm.logits(np.array([5, 6])).shape[0] == 2  # type: ignore[arg-type]


def test_text_held_back_for_a_stop_string_comes_at_the_end(llm: LLM) -> None:
    """Its beginning may be the last thing said."""
    done = llm.generate(TEXT, max_tokens=12, **GREEDY)
    held = llm.generate(TEXT, max_tokens=12, stop=done.text[-1] + "zzzz", **GREEDY)
    assert held.text == done.text
    chunks = list(llm.stream(TEXT, max_tokens=12, stop=done.text[-1] + "zzzz", **GREEDY))
    assert "".join(chunk.text for chunk in chunks) == done.text


def test_a_source_text_and_its_answer_both_have_the_whole_context(tmp_path: Path) -> None:
    from edgellm.testing import tiny_model as any_model

    with LLM(any_model("t5", tmp_path / "t5.gguf"), n_ctx=64, n_seqs=1) as llm:
        answer = llm.generate(list(range(3, 63)), max_tokens=63, ignore_eog=True, temperature=0)
    assert answer.n_prompt == 60
    assert answer.n_generated == 63
