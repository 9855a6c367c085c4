"""Settings from the environment and the command line."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from dnnviz.errors import DNNVizError
from dnnviz.settings import DEMO_RUNS, Settings


def test_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings.runs == (Path("runs"), DEMO_RUNS) and settings.host == "127.0.0.1" and settings.port == 8050
    assert settings.allow == () and settings.prefix == "/" and settings.slots >= 1 and not settings.debug
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]


def test_environment() -> None:
    settings = Settings.from_environment(
        {
            "DNNVIZ_RUNS": os.pathsep.join(["a", "b"]),
            "DNNVIZ_CACHE": "c",
            "DNNVIZ_HOST": "0.0.0.0",
            "DNNVIZ_PORT": "9000",
            "DNNVIZ_PREFIX": "viz",
            "DNNVIZ_ALLOW": "mine",
            "DNNVIZ_SLOTS": "4",
            "DNNVIZ_HOSTS": "one.example, TWO.example",
        }
    )
    assert settings.runs == (Path("a"), Path("b")) and settings.cache == Path("c") and settings.host == "0.0.0.0"
    assert (settings.port, settings.prefix, settings.allow, settings.slots) == (9000, "/viz/", ("mine",), 4)
    assert settings.hosts == ("one.example", "two.example")


def test_what_is_given_wins_and_none_does_not() -> None:
    settings = Settings.from_environment({"DNNVIZ_PORT": "9000", "DNNVIZ_HOST": "::1"}, port=1, host=None)
    assert settings.port == 1 and settings.host == "::1"


@pytest.mark.parametrize("text", ["viz", "/viz", "viz/", "/viz/"])
def test_a_prefix_begins_and_ends_with_a_slash(text: str) -> None:
    assert Settings.from_environment({"DNNVIZ_PREFIX": text}).prefix == "/viz/"
    assert Settings.from_environment({"DNNVIZ_PREFIX": "/"}).prefix == "/"


@pytest.mark.parametrize("name", ["DNNVIZ_PORT", "DNNVIZ_SLOTS"])
@pytest.mark.parametrize("text", ["many", "-1", "0", "1.5"])
def test_numbers_are_checked(name: str, text: str) -> None:
    with pytest.raises(DNNVizError, match=name):
        Settings.from_environment({name: text})


def test_the_cache_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    """What lies there is unpickled by the job queue."""
    settings = Settings(cache=tmp_path / "deep" / "cache")
    assert settings.private_cache().stat().st_mode & 0o777 == 0o700
    settings.cache.chmod(0o777)
    assert settings.private_cache().stat().st_mode & 0o777 == 0o700
