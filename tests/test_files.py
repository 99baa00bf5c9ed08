"""Files are whole or absent, whatever goes wrong."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from zeroskip import files
from zeroskip.errors import FileError


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = files.write(tmp_path / "deep" / "note.txt", "grüße")
    assert files.read(path).decode() == "grüße"
    assert files.read_json(files.write_json(tmp_path / "a.json", {"a": [1, None]})) == {"a": [1, None]}


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files.write(tmp_path / "model.zs", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"cannot write .*model.zs: No space left on device. Free some space"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["model.zs"]


def test_an_interrupt_while_writing_leaves_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "model.zs", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match="cannot make the folder .*file"):
        files.folder(tmp_path / "file" / "runs")


def test_an_absent_file_and_one_that_is_no_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read .*absent"):
        files.read(tmp_path / "absent")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(FileError, match=r"broken.json is not JSON"):
        files.read_json(tmp_path / "broken.json")


def test_a_written_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    files.write(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write(pipe, "words")
    assert os.read(heard, 9) == b"words"
    os.close(heard)
    assert pipe.is_fifo()
    assert [*tmp_path.iterdir()] == [pipe]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
def test_a_device_that_takes_nothing_is_named() -> None:
    with pytest.raises(FileError, match="cannot write into /dev/full: No space left"):
        files.write("/dev/full", "words")
    assert Path("/dev/full").is_char_device()


def test_standard_output_stays_what_it_is_also_where_it_goes_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, file = tmp_path / "stdout", tmp_path / "file"
    file.touch()
    stream.symlink_to(file)
    monkeypatch.setattr(files, "STREAMS", (stream,))
    files.write(stream, "words")
    assert stream.is_symlink()
    assert file.read_text() == "words"
