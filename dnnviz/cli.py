"""The command line: `dnnviz capture`, `train`, `demo`, `info`, `explain`, `report`, `serve`."""

from __future__ import annotations

import argparse
import errno
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnnviz.errors import DNNVizError

if TYPE_CHECKING:
    from torch import nn

    from dnnviz.datasets import LoadedData
    from dnnviz.training import Watch

_MODEL_HELP = "torchvision:NAME, dnnviz:small_cnn, dnnviz:resnet20|32|56, or package.module:function; options as in dnnviz:small_cnn?width=8"
_DATA_HELP = (
    "torchvision:NAME@FOLDER, folder:DIR (a folder a class; train/ and test/ inside are splits), npz:FILE (images, labels), "
    "digits, shapes, or package.module:function"
)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM)
_ARGUMENTS = "capture.json"  # in the run: the arguments of each epoch's capture


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 (`info` found damage), 2 (something the user can mend) or 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"]:
        return _serve(arguments[1:])
    given = _parser().parse_args(arguments)
    try:
        return given.command(given)
    except DNNVizError as error:
        print(f"dnnviz: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ndnnviz: stopped; what was published is kept. Start the same command again to go on.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # `dnnviz info … | head`: nobody reads on
        return 0
    except OSError as error:
        if error.errno not in _DISK:
            raise
        print(f"dnnviz: {error.filename or given.out} cannot be written ({error.strerror}); what was published before is kept.", file=sys.stderr)
        return 2


# -- arguments -------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    from dnnviz import __version__
    from dnnviz.explain import command
    from dnnviz.report import command as report_command

    parser = argparse.ArgumentParser(
        prog="dnnviz",
        description="Look inside image classifiers: capture what every unit does, and explore it in the browser.",
        epilog="example: dnnviz capture --model torchvision:resnet18 --weights DEFAULT --data folder:photos --out runs/photos && dnnviz serve",
    )
    parser.add_argument("--version", action="version", version=f"dnnviz {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    capture = _command(
        commands,
        "capture",
        _capture,
        "run a network over a data set and write what its units did as a run",
        "dnnviz capture --model dnnviz:resnet20 --weights resnet20.pt --data npz:cifar10_test.npz --preprocess imagenet --out runs/resnet20",
    )
    _add_model_and_data(capture)
    capture.add_argument("--inputs", type=int, default=200, metavar="N", help="inputs kept one by one; aggregates cover all (default: 200)")
    capture.add_argument("--batch-size", type=int, default=64, metavar="N", help="default: 64")
    capture.add_argument(
        "--epoch", type=int, default=0, metavar="N", help="number of this snapshot (default: 0); others may be added to the run later"
    )
    capture.add_argument("--layers", nargs="+", metavar="LAYER", help="names, shell patterns or kinds of the layers wanted (default: all)")
    capture.add_argument(
        "--no-weights", action="store_true", help="leave the weights out: smaller, but nothing can be computed with the network later"
    )
    capture.add_argument("--seed", type=int, default=0, metavar="N", help="for random weights (default: 0)")

    train = _command(
        commands,
        "train",
        _train,
        "train a network and record snapshots of it; started again after it was killed, it goes on",
        "dnnviz train --model dnnviz:small_cnn --data digits --epochs 20 --every 5 --out runs/digits",
    )
    _add_model_and_data(train)
    train.add_argument("--epochs", type=int, default=10, metavar="N", help="default: 10")
    train.add_argument("--every", type=int, default=1, metavar="K", help="record every K epochs, and the first and last (default: 1)")
    train.add_argument("--inputs", type=int, default=200, metavar="N", help="inputs kept one by one (default: 200)")
    train.add_argument("--batch-size", type=int, default=64, metavar="N", help="default: 64")
    train.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd", help="default: sgd")
    train.add_argument("--lr", type=float, metavar="RATE", help="learning rate (default: 0.05 for sgd, 0.001 for adamw)")
    train.add_argument("--momentum", type=float, default=0.9, metavar="M", help="of sgd (default: 0.9)")
    train.add_argument("--nesterov", action="store_true", help="Nesterov's momentum")
    train.add_argument("--weight-decay", type=float, default=5e-4, metavar="W", help="default: 0.0005")
    train.add_argument("--schedule", choices=("cosine", "step", "constant"), default="cosine", help="of the learning rate (default: cosine, to zero)")
    train.add_argument("--gamma", type=float, default=0.1, metavar="G", help="factor of schedule step after each third of the epochs (default: 0.1)")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    train.add_argument("--flip", action="store_true", help="mirror training images left-right at random")
    train.add_argument("--crop", action="store_true", help="shift training images at random by up to an eighth")
    train.add_argument(
        "--validation", type=float, metavar="SHARE", help="part of the training images set aside (default: 0.1 where there is one split)"
    )

    demo = _command(commands, "demo", _demo, "build the demo runs, in minutes, without any download", "dnnviz demo --out data")
    demo.add_argument("names", nargs="*", metavar="NAME", help="digits, digits-tampered, shapes (default: all)")
    demo.add_argument("--out", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    demo.add_argument("--overwrite", action="store_true", help="build them again where they are there")

    info = _command(commands, "info", _info, "say what a run holds, and what is damaged (exit code 1)", "dnnviz info runs/resnet20")
    info.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    info.add_argument("--json", action="store_true", help="as JSON")

    explain = _command(commands, "explain", _explain, "save attributions of a run's inputs as pictures, maps and a gallery", command.EXAMPLE)
    command.add_arguments(explain)

    report = _command(commands, "report", _report, "write what is known of a run as one page that needs nothing else", report_command.EXAMPLE)
    report_command.add_arguments(report)

    commands.add_parser("serve", help="open runs in the browser (the same as python app.py)", add_help=False)
    return parser


def _command(commands: Any, name: str, function: Callable[..., int], text: str, example: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=f"example: {example}")
    parser.set_defaults(command=function)
    return parser


def _add_model_and_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="SPEC", help=_MODEL_HELP)
    parser.add_argument("--weights", metavar="FILE|DEFAULT", help="a state_dict saved with torch.save, or torchvision's own (default: random)")
    parser.add_argument("--data", required=True, metavar="SPEC", help=_DATA_HELP)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps (default: cpu)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read images (default: 0)")
    parser.add_argument("--splits", nargs="+", metavar="NAME", help="splits wanted (default: all)")
    parser.add_argument("--size", type=int, metavar="N", help="side of the square input (default: 224 for folders, else as the images are)")
    parser.add_argument("--resize", type=int, metavar="N", help="shorter side before the middle is cut out (folders: size / 0.875)")
    parser.add_argument(
        "--preprocess", metavar="NAME", help="mean and standard deviation: imagenet (default), cifar10 or none (default for digits and shapes)"
    )
    parser.add_argument("--mean", nargs="+", type=float, metavar="M", help="per channel, for values 0–1")
    parser.add_argument("--std", nargs="+", type=float, metavar="S", help="per channel, for values 0–1")
    parser.add_argument(
        "--class-names", type=Path, metavar="FILE", help="names in the order of the outputs, one a line, or JSON; folders are matched by name"
    )


# -- commands --------------------------------------------------------------------------------------------------------


def _capture(given: argparse.Namespace) -> int:
    arguments = _plain(given)
    if not given.overwrite and _captured(given.out, given.epoch) == arguments:
        print(f"{given.out} is complete: epoch {given.epoch} was captured with these arguments.")
        return 0
    import torch

    import dnnviz
    from dnnviz.models import complete_spec
    from dnnviz.store import write_json
    from dnnviz.training import store_masks

    _check_device(given.device)
    torch.manual_seed(given.seed)
    model, data = _model_and_data(given)
    with _Bar("inputs") as bar:
        run = dnnviz.capture(
            model,
            data,
            given.out,
            epoch=given.epoch,
            inputs=given.inputs,
            batch_size=given.batch_size,
            layers=given.layers,
            device=given.device,
            model_spec=complete_spec(given.model, model),
            save_weights=not given.no_weights,
            overwrite=given.overwrite,
            progress=bar.show,
            workers=given.workers,
        )
    store_masks(given.out, data)
    write_json(given.out / _ARGUMENTS, {**_read_arguments(given.out), str(given.epoch): arguments})
    metrics = run.metrics(given.epoch)
    print(
        f"{given.out}: epoch {given.epoch}, {len(run.layers)} layers, {run.units:,} units, {run.class_counts.sum():,} inputs, "
        f"accuracy {100 * metrics['accuracy']:.2f} %"
    )
    return 0


def _train(given: argparse.Namespace) -> int:
    from dnnviz.training import Plan, train

    _check_device(given.device)
    rate = given.lr if given.lr is not None else (0.05 if given.optimizer == "sgd" else 1e-3)
    plan = Plan(
        epochs=given.epochs,
        every=given.every,
        optimizer=given.optimizer,
        learning_rate=rate,
        momentum=given.momentum,
        weight_decay=given.weight_decay,
        nesterov=given.nesterov,
        schedule=given.schedule,
        gamma=given.gamma,
        batch_size=given.batch_size,
        seed=given.seed,
        flip=given.flip,
        crop=given.crop,
        validation=given.validation,
    )
    plan.check()
    data = _data(given)
    told: list[Any] = []
    with _Bar("batches") as bar:
        run, history = train(
            given.model,
            data,
            given.out,
            plan,
            weights=given.weights,
            inputs=given.inputs,
            device=given.device,
            overwrite=given.overwrite,
            watch=_watch(bar, plan.epochs, told),
            workers=given.workers,
        )
    if not told:
        print(f"{given.out} is complete: it was trained with these arguments.")
    last = run.metrics(run.epochs[-1])
    parts = ", ".join(f"{name} {100 * part['accuracy']:.2f} %" for name, part in last.get("splits", {}).items())
    print(f"{given.out}: {len(run.epochs)} snapshots over {len(history)} epochs, accuracy {parts or format(100 * last['accuracy'], '.2f') + ' %'}")
    return 0


def _demo(given: argparse.Namespace) -> int:
    from dnnviz.demo import build_demos

    with _Bar("batches") as bar:
        runs = build_demos(
            given.out,
            given.names or None,
            overwrite=given.overwrite,
            watch=lambda demo: _watch(bar, demo.plan.epochs, [], f"{demo.name}: "),
        )
    for run in runs:
        print(f"{run.path}: {len(run.epochs)} snapshots, accuracy {100 * run.metrics(run.epochs[-1])['accuracy']:.2f} %")
    return 0


def _info(given: argparse.Namespace) -> int:
    from dnnviz.info import as_text, describe
    from dnnviz.store import open_run

    about = describe(open_run(given.run))
    print(json.dumps(about, indent=1, ensure_ascii=False) if given.json else as_text(about))
    return 1 if about["damage"] else 0


def _explain(given: argparse.Namespace) -> int:
    from dnnviz.explain.command import explain

    with _Bar("tiles") as bar:
        lines = explain(given, lambda done, total, text: bar.show(int(done), int(total), text))
    print("\n".join(lines))
    return 0


def _report(given: argparse.Namespace) -> int:
    from dnnviz.report.command import report

    with _Bar("steps") as bar:
        lines = report(given, lambda done, total, text: bar.show(int(done), int(total), text))
    print("\n".join(lines))
    return 0


def _serve(arguments: Sequence[str]) -> int:
    from dnnviz.settings import ROOT

    if not (ROOT / "app.py").is_file():
        print(f"dnnviz: the app is not beside the package ({ROOT / 'app.py'} is missing); run it from a checkout.", file=sys.stderr)
        return 2
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from app import main as serve

    return serve(arguments)


# -- model and data --------------------------------------------------------------------------------------------------


def _data(given: argparse.Namespace, **changes: Any) -> LoadedData:
    from dnnviz.datasets import load

    options = {name: getattr(given, name) for name in ("size", "resize", "preprocess", "mean", "std", "splits", "class_names")}
    return load(given.data, **{**options, **changes})


def _model_and_data(given: argparse.Namespace) -> tuple[nn.Module, LoadedData]:
    """Load both, and fit the data to a network whose weights fix its inputs and outputs."""
    from torch import nn

    from dnnviz.models import DEFAULT, build, class_names

    data = _data(given)
    fixed = given.weights == DEFAULT
    model = build(given.model, None if fixed else len(data.classes), given.weights, None if fixed else data.size[0])
    first = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first in (1, 3) and data.size[0] in (1, 3) and first != data.size[0]:
        data = _data(given, channels=first)  # grey images are repeated, colour is turned to grey
    outputs = _outputs(model, data)
    if outputs is not None and outputs > len(data.classes) and given.class_names is None and given.data.startswith("folder:"):
        # Photographs of a few of the classes that the network knows: its own names say which.
        names = class_names(given.model, outputs)
        hint = f"the network of {given.model} has {outputs} outputs and {given.data} {len(data.classes)} classes"
        if names is None:
            raise DNNVizError(f"{hint}; give the names of all outputs with --class-names FILE.")
        try:
            data = _data(given, class_names=names, channels=data.size[0])
        except DNNVizError as error:
            raise DNNVizError(
                f"{hint}, whose names are not all its own ({error}); give --class-names FILE with names that match the folders."
            ) from None
    return model, data


def _outputs(model: nn.Module, data: LoadedData) -> int | None:
    """Number of classes that the network tells apart; None where it cannot run on this input (capture says why)."""
    import torch

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            found = model(torch.zeros(1, *data.size))
        return int(found.shape[1]) if isinstance(found, torch.Tensor) and found.ndim == 2 else None
    except Exception:
        return None
    finally:
        model.train(training)


def _check_device(device: str | None) -> None:
    if device is None:
        return
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DNNVizError(f"--device {device} cannot be used ({str(error).splitlines()[0]}); try cpu.") from None


# -- arguments of earlier captures -----------------------------------------------------------------------------------


def _plain(given: argparse.Namespace) -> dict[str, Any]:
    """What decides the result of a capture, as JSON holds it; a weights file also by its size and time."""
    found = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(given).items()
        if name not in ("command", "out", "overwrite", "epoch", "workers", "device")
    }
    if given.weights is not None and Path(given.weights).is_file():
        status = Path(given.weights).stat()
        found["weights_file"] = [status.st_size, status.st_mtime_ns]
    return json.loads(json.dumps(found))


def _read_arguments(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / _ARGUMENTS).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _captured(folder: Path, epoch: int) -> dict[str, Any] | None:
    """Arguments that an epoch of a run was captured with; None where it was not, or is damaged."""
    from dnnviz.store import open_run

    try:
        run = open_run(folder)
    except DNNVizError:
        return None
    return _read_arguments(folder).get(str(epoch)) if epoch in run.epochs and not run.damage() else None


# -- progress --------------------------------------------------------------------------------------------------------


class _Bar:
    """A progress bar on the terminal, none where the output is no terminal."""

    def __init__(self, unit: str) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit=f" {unit}", disable=None, leave=False, dynamic_ncols=True, total=0)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, done: int, total: int | None, text: str) -> None:
        self._bar.total = total
        self._bar.set_description(text, refresh=False)
        self._bar.update(done - self._bar.n)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.write(text)


def _watch(bar: _Bar, epochs: int, told: list[Any], prefix: str = "") -> Watch:
    from dnnviz.training import Watch

    def batch(epoch: int, done: int, batches: int, loss: float, accuracy: float) -> None:
        bar.show((epoch - 1) * batches + done, epochs * batches, f"{prefix}epoch {epoch}/{epochs} loss {loss:.4f} accuracy {100 * accuracy:.1f} %")

    def epoch(entry: Any) -> None:
        told.append(entry)
        other = "".join(f" · {k.removesuffix('_accuracy')} {100 * v:.2f} %" for k, v in entry.items() if k.endswith("_accuracy"))
        bar.line(f"{prefix}epoch {entry['epoch']}/{epochs} · loss {entry['loss']:.4f} · accuracy {100 * entry['accuracy']:.2f} %{other}")

    return Watch(batch, epoch)


if __name__ == "__main__":
    sys.exit(main())
