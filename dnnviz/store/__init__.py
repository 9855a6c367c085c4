"""The run folder: open it, read slices, write snapshots. numpy only; nothing here is ever unpickled."""

from dnnviz.store.maps import EarlyMap, map_entries
from dnnviz.store.run import HEADERS, MANIFEST, SCHEMA, STATS, Layer, Run, distinct, open_run
from dnnviz.store.writer import RunWriter, layer_entries, now, write_array, write_json, writing

__all__ = [
    "HEADERS",
    "MANIFEST",
    "SCHEMA",
    "STATS",
    "EarlyMap",
    "Layer",
    "Run",
    "RunWriter",
    "distinct",
    "layer_entries",
    "map_entries",
    "now",
    "open_run",
    "write_array",
    "write_json",
    "writing",
]
