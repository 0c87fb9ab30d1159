"""`python -m pipeline.generate` as people call it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.generate.__main__ import main

ROOT = Path(__file__).parents[3]


@pytest.fixture
def command(model_dir, monkeypatch, capsys):
    """Run it in this process: status, output and errors."""

    def run(*arguments: str, stdin: str = "") -> tuple[object, str, str]:
        argv = ["generate", "--model", str(model_dir), "--max-new-tokens", "12", *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status: object = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_one_prompt_is_answered_as_text_from_an_argument_or_standard_input(command):
    status, out, _ = command("what was said")
    assert status == 0
    assert command(stdin="what was said\n") == (0, out, "")
    assert command("what was said", "--raw")[1] != out


def test_several_prompts_become_a_json_line_each_in_order(command, tmp_path, open_with):
    prompts = ["what", "what was said before", "ünï"]
    (tmp_path / "p.txt").write_text("\n".join(prompts), encoding="utf-8")
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({"prompt": p}) for p in prompts), encoding="utf-8")
    options = ("--temperature", "0.9", "--top-k", "50", "--top-p", "0.95", "--min-p", "0.01", "--seed", "3")
    status, out, _ = command(*prompts, *options, "--repetition-penalty", "1.1")
    assert status == 0
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == prompts
    for file in ("p.txt", "p.jsonl"):
        for size in ("1", "2"):
            again = command(
                "--file", str(tmp_path / file), "--batch-size", size, *options, "--repetition-penalty", "1.1"
            )
            assert again == (0, out, "")
    assert command(prompts[0], *options, "--repetition-penalty", "1.1")[1] == (
        json.loads(out.splitlines()[0])["response"] + "\n"
    )


def test_a_saved_context_gives_the_same_answers(command, tmp_path):
    state = str(tmp_path / "context.safetensors")
    assert command("--system", "what was said", "--save-state", state)[:2] == (0, "")
    assert command("before", "--state", state) == command("before", "--system", "what was said")
    assert command("before", "what", "--state", state) == command("before", "what", "--system", "what was said")


def test_a_stop_string_ends_the_answer(command):
    out = command("what was said")[1]
    assert command("what was said", "--stop", out[4:6])[1] == out[: out.index(out[4:6])] + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere", "a"], "nowhere: no such directory"),
        (["a", "--temperature", "-1"], "temperature is -1.0"),
        (["a", "--max-new-tokens", "0"], "--max-new-tokens is 0"),
        (["a", "--batch-size", "0"], "--batch-size is 0"),
        (["a", "--seed", "-1"], "--seed is -1"),
        (["a", "--file", "b"], "prompts as arguments and in --file"),
        (["--file", "nowhere"], "nowhere: no such file"),
        ([""], "a prompt is empty"),
        (["\udcff"], "not UTF-8"),
        ([], "standard input is empty"),
        (["a", "--stop", ""], "--stop is empty"),
        (["a", "--raw", "--system", "b"], "--raw has no turns"),
        (["a", "--state", "b", "--system", "c"], "--state has begun already"),
        (["a", "--state", "nowhere"], "nowhere: no such file"),
        (["a", "b", "--save-state", "c"], "--save-state keeps the state after one prompt"),
        (["a", "--save-state", "nowhere/c"], "give one in a folder that is there"),
    ],
)
def test_mistakes_end_with_one_line(command, arguments, message):
    status, out, _ = command(*arguments)
    assert str(status).startswith("generate: error: ")
    assert message in str(status)
    assert "\n" not in str(status)
    assert out == ""


def test_the_process_ends_with_status_1_for_a_mistake_and_quietly_when_nobody_reads(model_dir):
    base = [sys.executable, "-m", "pipeline.generate", "--model", str(model_dir)]
    done = subprocess.run([*base, "a", "--top-p", "2"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*base, "a"], stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
