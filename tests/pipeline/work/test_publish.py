"""A published directory is there whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.work import publish_directory


def _publish(target: Path, text: str, error: type[BaseException] | None = None) -> None:
    with publish_directory(target) as building:
        (building / text).write_text(text)
        if error:
            raise error


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_new_replaces_the_old(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    _publish(target, "old")
    _publish(target, "new")
    assert _names(target) == ["new"]
    assert _names(target.parent) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out"
    _publish(target, "old")
    with pytest.raises(error):
        _publish(target, "half", error)
    assert _names(target) == ["old"]
    assert _names(tmp_path) == ["out"]


def test_a_kill_leaves_the_old_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    target = tmp_path / "out"
    _publish(target, "old")
    code = (
        "import os, pathlib\nfrom pipeline.work import publish_directory\n"
        f"with publish_directory(pathlib.Path({str(target)!r})) as building:\n"
        "    (building / 'half').write_text('half')\n    os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False)
    assert _names(target) == ["old"]
    assert len(_names(tmp_path)) == 2
    _publish(target, "new")
    assert _names(target) == ["new"]
    assert _names(tmp_path) == ["out"]


def test_an_output_that_is_a_link_becomes_a_directory_and_what_it_led_to_stays(tmp_path: Path) -> None:
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "out"
    _publish(elsewhere, "theirs")
    target.symlink_to(elsewhere)
    _publish(target, "new")
    assert not target.is_symlink()
    assert _names(target) == ["new"]
    assert _names(elsewhere) == ["theirs"]
    assert _names(tmp_path) == ["elsewhere", "out"]


def test_what_a_living_run_builds_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / f".out.tmp-{os.getppid()}"
    other.mkdir()
    _publish(tmp_path / "out", "new")
    assert other.is_dir()
