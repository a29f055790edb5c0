"""Config: files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaggle_digits.files import atomic_path


def test_file_appears_when_the_block_ends(workplace):
    file = Path("new/folder/file.txt")
    with atomic_path(file) as path:
        path.write_text("whole")
        assert not file.exists()
        assert path.suffix == ".txt"
    assert file.read_text() == "whole"
    assert [p.name for p in file.parent.iterdir()] == ["file.txt"]


def test_failing_block_leaves_the_old_file_and_nothing_else(workplace):
    Path("file.txt").write_text("old")

    def fail_half_way() -> None:
        with atomic_path(Path("file.txt")) as path:
            path.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert Path("file.txt").read_text() == "old"
    assert [p.name for p in workplace.iterdir()] == ["file.txt"]


def test_what_a_kill_left_is_replaced(workplace):
    with atomic_path(Path("file.txt")) as path:
        leftover = path.name
        path.write_text("")
    Path(leftover).write_text("half")
    with atomic_path(Path("file.txt")) as path:
        path.write_text("whole")
    assert [p.name for p in workplace.iterdir()] == ["file.txt"]
