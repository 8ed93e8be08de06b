import errno
import hashlib
import os
from pathlib import Path

import pytest

from tilth.errors import TilthError
from tilth.files import (
    fingerprint,
    not_left_empty,
    output_folder,
    read_json,
    reason,
    sha256_file,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_appears_at_the_end_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as aside:
        aside.write_text("new")
        assert not path.exists()
        assert aside.parent == tmp_path
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whole_file_keeps_the_old_one_when_the_block_fails(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), whole_file(path) as aside:
        aside.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_whole_file_overwrites_what_a_killed_process_left(tmp_path):
    (tmp_path / ".a.txt.partial").write_text("left over, and longer than the new one")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_files_of_a_whole_folder_have_the_usual_permissions(tmp_path):
    with whole_folder(tmp_path / "model") as aside:
        (aside / "config.json").write_text("{}")
        (aside / "weights").touch(mode=0o600)
    assert (tmp_path / "model" / "weights").stat().st_mode == (tmp_path / "model" / "config.json").stat().st_mode
    assert names(tmp_path / "model") == ["config.json", "weights"]


def test_whole_folder_replaces_all_of_the_old_one(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.bin").write_text("old")
    with whole_folder(path) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "new.bin").write_text("new")
        (aside / "inner" / "new.bin").chmod(0o444)
        assert names(path) == ["old.bin"]
    assert names(path) == ["inner"]
    assert (path / "inner" / "new.bin").read_text() == "new"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whole_folder_keeps_the_old_one_when_the_block_fails(tmp_path, error):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.bin").write_text("old")
    with pytest.raises(error), whole_folder(path) as aside:
        (aside / "new.bin").write_text("half")
        raise error
    assert names(path) == ["old.bin"]
    assert names(tmp_path) == ["model"]


def test_whole_folder_comes_back_when_its_replacement_cannot_take_its_place(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.bin").write_text("old")
    rename = Path.rename

    def full_disk(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(28, os.strerror(28))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(OSError, match="No space left"), whole_folder(path) as aside:
        (aside / "new.bin").write_text("new")
    assert names(path) == ["old.bin"]
    assert names(tmp_path) == ["model"]


def test_a_link_to_a_folder_stays_one_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "disk" / "corpus").mkdir(parents=True)
    (tmp_path / "corpus").symlink_to("disk/corpus")
    for text in ("first", "second"):
        with whole_folder(tmp_path / "corpus") as aside:
            assert aside.parent == tmp_path / "disk"
            (aside / "a").write_text(text)
        assert (tmp_path / "corpus").is_symlink() and (tmp_path / "disk" / "corpus" / "a").read_text() == text
        assert sorted(path.name for path in (*tmp_path.iterdir(), *(tmp_path / "disk").iterdir())) == [
            "corpus", "corpus", "disk"
        ]  # fmt: skip


def test_the_folder_one_is_in_can_be_replaced(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with whole_folder(Path(".")) as aside:
        (aside / "a").write_text("text")
    assert (tmp_path / "here" / "a").read_text() == "text"


def test_whole_folder_recovers_the_old_one_after_a_crash_between_its_renames(tmp_path):
    (tmp_path / ".model.replaced").mkdir()
    (tmp_path / ".model.replaced" / "old.bin").write_text("old")
    with pytest.raises(ValueError), whole_folder(tmp_path / "model"):
        raise ValueError
    assert (tmp_path / "model" / "old.bin").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_json_survives_writing_and_reading(tmp_path):
    value = {"text": "naïve ☃", "figures": [1, 2.5, None, True], "nested": {"b": 1, "a": 2}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "naïve ☃" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", object())
    assert read_json(tmp_path / "a.json") == 1


@pytest.mark.parametrize("content", [b"{", b"", b"\xff"])
def test_broken_json_is_a_clear_error(tmp_path, content):
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(TilthError, match=r"card\.json is not valid JSON"):
        read_json(tmp_path / "card.json")
    with pytest.raises(TilthError, match=r"other\.json does not exist"):
        read_json(tmp_path / "other.json")


def test_hash_of_a_file(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a.bin").write_bytes(content)
    assert sha256_file(tmp_path / "a.bin") == hashlib.sha256(content).hexdigest()


def test_fingerprint_depends_on_values_and_not_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert len({fingerprint(value) for value in ({"a": 1}, {"a": "1"}, {"a": [1]}, {"b": 1}, [1, 2], [2, 1])}) == 6
    assert fingerprint({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()[:16]


def test_output_folder_is_made_and_left_clean(tmp_path):
    assert output_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert names(tmp_path / "a" / "b") == []


def test_output_folder_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "taken").write_text("mine")
    for path in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(TilthError, match=r"cannot write to .*taken.*choose another --out"):
            output_folder(path)
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_output_folder_that_is_read_only_is_a_clear_error(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(TilthError, match="Permission denied"):
        output_folder(tmp_path)


def test_an_error_names_the_file_and_not_the_one_aside(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="there") as raised:
        write_text(tmp_path / "there", "text")
    assert raised.value.filename == str(tmp_path / "there")
    assert str(raised.value).endswith(f"'{tmp_path / 'there'}'"), "and no second name"
    for whole in (whole_file, whole_folder):
        with pytest.raises(OSError, match="No space") as raised, whole(tmp_path / "new"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write to an open file says it
        assert str(raised.value) == f"[Errno {errno.ENOSPC}] No space left on device: '{tmp_path / 'new'}'"
        with pytest.raises(FileNotFoundError) as raised, whole(tmp_path / "new"):
            (tmp_path / "other").read_text()
        assert raised.value.filename == str(tmp_path / "other")


def test_the_reason_names_only_another_file(tmp_path):
    for name, said in ((None, ""), (tmp_path / "new" / "in", ""), (tmp_path / "other", f": {tmp_path / 'other'}")):
        error = OSError(errno.ENOSPC, "No space left on device", name and str(name).encode())
        assert reason(error, tmp_path / "new") == f"No space left on device{said}"
    assert reason(ValueError("words"), tmp_path) == "words"


def test_a_folder_is_not_left_empty_by_a_failure(tmp_path):
    def fail(folder: Path, name: str | None) -> None:
        with pytest.raises(ValueError, match="no"), not_left_empty(folder):
            output_folder(folder)
            if name:
                (folder / name).write_text("")
            raise ValueError("no")

    (tmp_path / "before").mkdir()
    fail(tmp_path / "before", None)
    fail(tmp_path / "empty" / "inner", None)
    fail(tmp_path / "full", "log")
    assert names(tmp_path) == ["before", "full"]
