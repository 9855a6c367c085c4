"""The cache of derived results."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import Timeout

from dnnviz.results import Results, key


def test_keys_depend_on_everything_and_on_nothing_else() -> None:
    base = key("projection", epoch=3, layer="fc", params={"a": 1, "b": [1, 2]})
    assert base == key("projection", params={"b": [1, 2], "a": 1}, layer="fc", epoch=np.int64(3))
    others = [
        key("projection", epoch=4, layer="fc", params={"a": 1, "b": [1, 2]}),
        key("projection", epoch=3, layer="fc", params={"a": 1, "b": [2, 1]}),
        key("projection", epoch=3, layer="fc", params={"a": 1.5, "b": [1, 2]}),
        key("attribution", epoch=3, layer="fc", params={"a": 1, "b": [1, 2]}),
    ]
    assert len({base, *others}) == 5


def test_arrays_are_told_apart_by_content_shape_and_type() -> None:
    array = np.arange(6, dtype=np.float32)
    same = key("k", x=array.copy()[::1])
    assert key("k", x=array) == same
    assert len({same, key("k", x=array.reshape(2, 3)), key("k", x=array.astype(np.float64)), key("k", x=array + 1)}) == 4
    with pytest.raises(TypeError, match="cannot be part"):
        key("k", x=object())


def test_put_and_get(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    name = key("k", n=1)
    assert results.get(name) is None and name not in results
    assert results.put(name, {"points": np.eye(2), "text": np.array(["a", "b"])}) == name
    found = results.get(name)
    assert found is not None and np.array_equal(found["points"], np.eye(2)) and found["text"].tolist() == ["a", "b"]
    assert name in results


@pytest.mark.parametrize("name", ["", "k", "../k-" + "0" * 40, "k-" + "0" * 39, "k-" + "G" * 40, "k/../k-" + "0" * 40, "-" + "0" * 40])
def test_a_key_is_never_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no result key"):
        Results(tmp_path).get(name)


def test_a_damaged_result_is_computed_again_and_a_pickle_is_not_read(tmp_path: Path) -> None:
    results = Results(tmp_path)
    name = key("k", n=1)
    results.put(name, {"x": np.zeros(100)})
    file = results.path(name)
    file.write_bytes(file.read_bytes()[:50])
    assert results.get(name) is None and name not in results

    class Harm:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harm"),))

    np.savez(file, allow_pickle=True, x=np.array([Harm()], dtype=object))
    assert results.get(name) is None and not (tmp_path / "harm").exists()


def test_a_failed_put_leaves_nothing(tmp_path: Path) -> None:
    results = Results(tmp_path)
    name = key("k", n=1)

    class Refuses:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        results.put(name, {"x": Refuses()})
    assert not list(tmp_path.rglob("*.npz")) and not list(tmp_path.rglob("*.part"))


def _hold(folder: Path, name: str, held) -> None:
    with Results(folder).lock(name):
        held.set()
        time.sleep(60)


def test_the_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    name = key("k", n=1)
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, name, held))
    process.start()
    assert held.wait(30)
    lock = Results(tmp_path).lock(name)
    with pytest.raises(Timeout):
        lock.acquire(timeout=0)
    process.kill()
    process.join()
    with lock.acquire(timeout=5):
        pass


def test_a_peek_reads_one_array_and_counts_as_no_use(tmp_path: Path) -> None:
    results = Results(tmp_path)
    name = key("k", n=1)
    assert results.peek(name, "points") is None
    results.put(name, {"points": np.eye(2), "other": np.zeros(3)})
    os.utime(results.path(name), (1000, 1000))
    np.testing.assert_array_equal(results.peek(name, "points"), np.eye(2))
    assert results.peek(name, "nothing") is None and results.path(name).stat().st_mtime == 1000
    results.path(name).write_bytes(b"damaged")
    assert results.peek(name, "points") is None and name not in results


def test_prune_removes_what_was_used_longest_ago(tmp_path: Path) -> None:
    results = Results(tmp_path)
    names = [key("k", n=n) for n in range(4)]
    for age, name in enumerate(names):
        results.put(name, {"x": np.zeros(1000)})
        when = time.time() - 1000 * (4 - age)
        os.utime(results.path(name), (when, when))
    size = results.path(names[0]).stat().st_size
    assert results.prune(2 * size) == 2 * size
    assert [name in results for name in names] == [False, False, True, True]
    assert results.prune(2 * size) == 0


def test_prune_removes_what_killed_jobs_left(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.put(key("k", n=1), {"x": np.zeros(1)})
    old, new = (results.path(key("k", n=1)).parent / name for name in ("old.part", "new.part"))
    for file in (old, new):
        file.write_bytes(b"x")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    results.prune(10**9)
    assert not old.exists() and new.exists()
