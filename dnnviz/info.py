"""What a run holds, as data and as a text for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dnnviz.store import Run


def describe(run: Run) -> dict[str, Any]:
    """Everything `dnnviz info` says about a run, as JSON can hold it: name, path, bytes, model, data, inputs, layers,
    units, snapshots with their accuracies, uncovered modules, unpublished leftovers and damage."""
    manifest = run.manifest
    return {
        "name": run.name,
        "path": str(run.path),
        "created": manifest.get("created"),
        "bytes": sum(p.stat().st_size for p in run.path.rglob("*") if p.is_file()),
        "model": manifest["model"],
        "data": manifest["data"],
        "preprocessing": manifest["preprocessing"],
        "classes": run.classes,
        "splits": {name: int(count) for name, count in zip(run.splits, run.class_counts.sum(axis=1), strict=True)},
        "inputs": {"kept": run.kept, "aggregated": int(run.class_counts.sum())},
        "units": run.units,
        "layers": [{"name": layer.name, "kind": layer.kind, "units": layer.units, "shape": list(layer.shape)} for layer in run.layers],
        "uncovered": manifest.get("uncovered", []),
        "snapshots": [{"epoch": epoch, "weights": bool(run.snapshot(epoch).get("weights")), **run.metrics(epoch)} for epoch in run.epochs],
        "unpublished": run.unpublished(),
        "training": _training(run),
        "damage": run.damage(),
    }


def as_text(about: dict[str, Any]) -> str:
    """The description as a person reads it in a terminal."""
    model, kept, size = about["model"], about["inputs"], about["preprocessing"]["size"]
    names = list(about["splits"])
    splits = " + ".join(f"{count:,} {name}" if len(names) > 1 else f"{count:,}" for name, count in about["splits"].items())
    network = model.get("spec") or f"{model.get('class')}, which cannot be built again (no model_spec was given)"
    lines = [
        f"Run {about['name']} · {about['path']} · {_bytes(about['bytes'])} · made {about['created']}",
        f"network    {network} · {model.get('parameters', 0):,} parameters",
        f"data       {about['data'].get('spec') or 'not named'} · {splits} inputs of {' × '.join(map(str, size))} in {len(about['classes'])} classes",
        f"inputs     {kept['kept']:,} kept one by one, {kept['aggregated']:,} in the aggregates",
        "",
        f"{_count(len(about['layers']), 'layer')}, {_count(about['units'], 'unit')}",
        *_table(
            ("layer", "kind", "units", "output"), [(e["name"], e["kind"], f"{e['units']:,}", "×".join(map(str, e["shape"]))) for e in about["layers"]]
        ),
        "",
        _count(len(about["snapshots"]), "snapshot"),
    ]
    columns = names if len(names) > 1 else []
    rows = []
    for entry in about["snapshots"]:
        parts = entry.get("splits", {})
        per_split = [_percent(parts.get(name, {}).get("accuracy")) for name in columns]
        loss = entry.get("loss")
        rows.append(
            (
                str(entry["epoch"]),
                _percent(entry.get("accuracy")),
                *per_split,
                "–" if loss is None else f"{loss:.4f}",
                "yes" if entry["weights"] else "no",
            )
        )
    lines += _table(("epoch", "accuracy", *columns, "loss", "weights"), rows)
    if about["uncovered"]:
        lines += ["", f"{_count(len(about['uncovered']), 'module')} with weights and no layer of their own"]
        lines += _table(
            ("module", "type", "parameters", "reason"),
            [(str(e.get("name")), str(e.get("type")), f"{e.get('parameters', 0):,}", str(e.get("reason"))) for e in about["uncovered"]],
        )
    else:
        lines += ["", "Every module with weights is a layer or belongs to one."]
    if about["unpublished"]:
        lines += [
            "",
            f"Unfinished, not part of the run: {', '.join(about['unpublished'])} (a writer was killed, or is at work; the next one clears it).",
        ]
    if about["training"] is not None and not about["training"]["complete"]:
        lines += ["", f"Training is unfinished ({about['training']['epochs']} epochs were wanted); the same `dnnviz train` goes on."]
    lines += ["", *about["damage"]] if about["damage"] else []
    return "\n".join(lines)


def _training(run: Run) -> dict[str, Any] | None:
    """Whether the training that records this run is complete, and its epochs; None where it was not trained by DNNViz."""
    try:
        content = json.loads((run.path / "training" / "arguments.json").read_text(encoding="utf-8"))
        return {"complete": bool(content["complete"]), "epochs": int(content["arguments"]["epochs"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    # Numbers stand on the right, words on the left.
    right = [bool(rows) and all(row[i][:1].isdigit() or row[i] in ("–",) for row in rows) and "×" not in rows[0][i] for i in range(len(head))]
    return [
        "  " + "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in (head, *rows)
    ]


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
