"""Runs by id."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnnviz.catalogue import Catalogue
from dnnviz.errors import RunError
from tests.runs import write_run


def test_runs_of_several_folders_and_a_run_itself(tmp_path: Path) -> None:
    for name in ("one/b", "one/a", "two/a", "alone"):
        write_run(tmp_path / name, epochs=[0])
    (tmp_path / "one" / "notes").mkdir()
    catalogue = Catalogue((tmp_path / "one", tmp_path / "two", tmp_path / "alone", tmp_path / "missing"))
    assert catalogue.ids() == ["a", "b", "a~2", "alone"]
    assert catalogue.open("a~2").path == tmp_path / "two" / "a"


@pytest.mark.parametrize("name", ["", ".", "..", "../one/a", "/etc", "one/a", "a/../b", "a\0", "A", "a~3", "~"])
def test_an_id_is_never_a_path(tmp_path: Path, name: str) -> None:
    write_run(tmp_path / "one" / "a", epochs=[0])
    with pytest.raises(RunError, match=r"no run called .* \(known: a\)"):
        Catalogue((tmp_path / "one",)).open(name)


def test_a_run_is_opened_once_and_again_when_it_changes(tmp_path: Path) -> None:
    write_run(tmp_path / "a", epochs=[0])
    catalogue = Catalogue((tmp_path,))
    first = catalogue.open("a")
    assert catalogue.open("a") is first
    write_run(tmp_path / "a", epochs=[0, 1])
    assert catalogue.open("a") is not first and catalogue.open("a").epochs == [0, 1]


def test_a_new_run_appears_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    catalogue = Catalogue((tmp_path,))
    assert catalogue.ids() == []
    write_run(tmp_path / "a", epochs=[0])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    assert catalogue.ids() == ["a"]
    broken = catalogue.broken()
    assert [entry.id for entry in broken] == ["bad"] and "damaged" in broken[0].reason


def test_a_folder_that_may_not_be_read_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "open" / "a", epochs=[0])
    (tmp_path / "closed").mkdir()
    usual = Path.iterdir

    def refuse(self: Path):
        if self.name == "closed":
            raise PermissionError(13, "Permission denied")
        return usual(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert Catalogue((tmp_path / "closed", tmp_path / "open")).ids() == ["a"]
