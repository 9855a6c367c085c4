"""Whatever a browser sends ends as something that exists, with a sentence about what did not."""

from pathlib import Path

import pytest

from dnnviz import urlstate
from dnnviz.catalogue import Catalogue
from tests.runs import write_run


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    write_run(tmp_path / "first")
    write_run(tmp_path / "second", epochs=(7,))
    return Catalogue((tmp_path,))


def test_a_full_query_is_read(catalogue: Catalogue) -> None:
    given = {"run": "first", "epoch": "1", "show": "class:3", "layer": "conv1", "unit": "5", "scale": "all", "unknown": "x"}
    selection, problems = urlstate.parse(given, catalogue, {"scale": "layer", "stat": "mean"})
    assert problems == []
    assert (selection.run_id, selection.epoch, selection.show, selection.layer, selection.unit) == ("first", 1, "class:3", "conv1", 5)
    assert (selection.show_kind, selection.show_index) == ("class", 3)
    assert selection.extra == {"scale": "all", "stat": "mean"}


def test_an_empty_query_shows_the_first_run_at_its_last_epoch(catalogue: Catalogue) -> None:
    selection, problems = urlstate.parse({}, catalogue)
    assert (selection.run_id, selection.epoch, selection.show, problems) == ("first", 5, "data", [])


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"run": "nope"}, "nope"),
        ({"run": "../../etc"}, "etc"),
        ({"epoch": "4"}, "epoch 4"),
        ({"epoch": "x" * 500}, "no epoch"),
        ({"show": "class:4"}, "class:4"),
        ({"show": "input:12"}, "input:12"),
        ({"show": "input:-1"}, "input:-1"),
        ({"show": "everything"}, "everything"),
        ({"layer": "conv9"}, "conv9"),
        ({"layer": "conv1", "unit": "6"}, "units 0 to 5"),
        ({"layer": "conv1", "unit": "six"}, "six"),
    ],
)
def test_what_does_not_exist_gets_a_sentence_and_a_default(catalogue: Catalogue, query: dict[str, str], word: str) -> None:
    selection, problems = urlstate.parse(query, catalogue)
    assert len(problems) == 1 and word in problems[0] and problems[0].endswith(".")
    assert selection.run is not None and selection.epoch in selection.run.epochs


def test_the_nearest_epoch_is_taken(catalogue: Catalogue) -> None:
    assert urlstate.parse({"epoch": "4"}, catalogue)[0].epoch == 5


def test_without_runs_there_is_no_run(tmp_path: Path) -> None:
    selection, _ = urlstate.parse({"run": "x"}, Catalogue((tmp_path,)))
    assert selection.run is None


def test_a_query_leaves_out_what_is_empty() -> None:
    assert urlstate.query(run="a b", epoch=0, layer=None, unit="") == "?run=a+b&epoch=0"
