"""A bar on a terminal, lines in a log."""

from __future__ import annotations

import io

from pipeline import progress
from pipeline.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_with_notes_and_lines_beside_it(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress("training", 3, "step") as bar:
        for loss in (3.0, 2.0, 1.5):
            bar.note(loss=loss)
            bar.advance()
        bar.line("validated")
    assert "training: 100%" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert "loss=1.5" in terminal.getvalue()
    assert capsys.readouterr().out == "validated\n"


def test_a_log_has_plain_lines_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)  # at every step
    with Progress("training", 3, "step") as bar:
        bar.note(loss=2.5)
        for _ in range(3):
            bar.advance()
    captured = capsys.readouterr()
    assert captured.err == ""
    first, second = captured.out.splitlines()  # the last step needs none: the stage says that it is done
    assert first.startswith("training: 1/3 steps, loss 2.5, ")
    assert second.startswith("training: 2/3 steps")


def test_a_pass_over_things_counts_what_each_is_worth(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    with Progress("loss", 5, "row") as bar:
        assert list(bar.over(["ab", "cd", "e"], size=len)) == ["ab", "cd", "e"]
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["loss: 2/5 rows", "loss: 4/5 rows"]
