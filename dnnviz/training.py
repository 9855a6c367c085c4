"""Train a network and record snapshots of it on the way; a training that was killed goes on where it stopped."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock, Timeout
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from dnnviz.capture import Recorder
from dnnviz.datasets import LoadedData
from dnnviz.errors import DNNVizError, RunError
from dnnviz.models import build, complete_spec
from dnnviz.specs import first_line
from dnnviz.store import MANIFEST, Run, open_run, write_array, write_json

FOLDER = "training"  # inside the run: arguments.json, checkpoint.pt while training lasts, history.json
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "step", "constant")
AUXILIARY_WEIGHT = 0.3  # of GoogLeNet's and Inception's auxiliary losses; Szegedy et al. 2014, section 5
_CROP_PADDING = 8  # a crop is shifted by up to an eighth of the image


@dataclass(frozen=True)
class Plan:
    """How to train.

    epochs; every: record each such epoch (epoch 0, before training, and the last are always recorded); record: the
    epochs to record instead of `every`. optimizer: `sgd` (momentum, nesterov) or `adamw`; schedule of the learning
    rate over the epochs: `cosine` to zero, `step` (times `gamma` after each third of the epochs), `constant`.
    flip, crop: augmentation of the training images: mirrored left-right at random; shifted by up to an eighth.
    validation: share of the training images set aside as split `val`; None: a tenth where the data are one split only.
    """

    epochs: int = 10
    every: int = 1
    record: tuple[int, ...] | None = None
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False
    schedule: str = "cosine"
    gamma: float = 0.1
    batch_size: int = 64
    seed: int = 0
    flip: bool = False
    crop: bool = False
    validation: float | None = None

    def check(self) -> None:
        """Raise DNNVizError for a value that makes no sense."""
        for name in ("epochs", "every", "batch_size"):
            if getattr(self, name) < 1:
                raise DNNVizError(f"{name.replace('_', ' ')} is {getattr(self, name)}; it must be 1 or more.")
        if not self.learning_rate > 0:
            raise DNNVizError(f"The learning rate is {self.learning_rate}; it must be above zero.")
        if self.optimizer not in OPTIMIZERS:
            raise DNNVizError(f"There is no optimizer {self.optimizer!r}; there are {', '.join(OPTIMIZERS)}.")
        if self.schedule not in SCHEDULES:
            raise DNNVizError(f"There is no schedule {self.schedule!r}; there are {', '.join(SCHEDULES)}.")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum <= 0):
            raise DNNVizError("Nesterov's method is a form of momentum: it needs the optimizer sgd and a momentum above zero.")
        if self.validation is not None and not 0 <= self.validation < 1:
            raise DNNVizError(f"The validation share is {self.validation}; it must be at least 0 and below 1.")

    def records(self, epoch: int) -> bool:
        """Whether a snapshot is written after this epoch."""
        if epoch in (0, self.epochs):
            return True
        return epoch in self.record if self.record is not None else epoch % self.every == 0


@dataclass(frozen=True)
class Watch:
    """What is told while training: batch(epoch, done, batches, loss, accuracy), and epoch(entry of the history)."""

    batch: Callable[[int, int, int, float, float], None] = lambda *_: None
    epoch: Callable[[Mapping[str, Any]], None] = lambda _: None


def train(
    model_spec: str,
    data: LoadedData,
    path: str | os.PathLike[str],
    plan: Plan,
    *,
    record: LoadedData | None = None,
    weights: str | Path | None = None,
    inputs: int = 200,
    device: str | torch.device | None = None,
    overwrite: bool = False,
    watch: Watch | None = None,
    workers: int = 0,
    maps: Container[int] | None = None,
) -> tuple[Run, list[dict[str, Any]]]:
    """Train the network of a spec on the split `train` (or the first) and record snapshots over all splits into a run.

    record: other data with the same classes to record instead, such as a part of what is trained on.
    weights: start from a file or from torchvision's weights instead of at random. inputs: how many are kept one by one.
    maps: epochs whose early feature maps are kept (None: all).
    Returns the run and the history (per epoch: epoch, learning_rate, loss, accuracy, and <split>_accuracy of a split
    that is not trained on). Called again with the same arguments after it was killed, it goes on after the last
    complete epoch and gives the same result to the last bit; after it was finished it returns at once.
    Raises DNNVizError with one sentence; RunError when the folder holds a run trained otherwise.
    """
    plan.check()
    folder = Path(path)
    arguments = json.loads(
        json.dumps(
            {
                "model": model_spec,
                "weights": None if weights is None else str(weights),
                "data": data.spec,
                "recorded data": data.spec if record is None else record.spec,
                "size": data.size,
                "mean": data.mean,
                "std": data.std,
                "inputs": inputs,
                **asdict(plan),
            }
        )
    )
    data, train_name = divide(data, plan)
    record = record or data
    watch = watch or Watch()
    if overwrite:
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
    finished = _check_folder(folder, arguments, overwrite)
    if finished is not None:
        return finished
    device = torch.device(device or "cpu")
    with _alone(folder), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(plan.seed)
        model = build(model_spec, len(data.classes), weights, data.size[0]).to(device)
        optimizer, scheduler = _optimizer(model, plan)
        recorder = Recorder(
            folder,
            model,
            record,
            inputs=inputs,
            batch_size=plan.batch_size,
            model_spec=complete_spec(model_spec, model),
            overwrite=overwrite,
            maps=maps,
            workers=workers,
        )
        history: list[dict[str, Any]] = []
        start = 0
        checkpoint = folder / FOLDER / "checkpoint.pt"
        if checkpoint.is_file():
            start, history = _restore(checkpoint, model, optimizer, scheduler)
        else:
            write_json(folder / FOLDER / "arguments.json", {"arguments": arguments, "complete": False})
        recorded = set(recorder.epochs)
        for epoch in range(start, plan.epochs + 1):
            if epoch > start:
                torch.manual_seed(_seed(plan, epoch))
                rate = optimizer.param_groups[0]["lr"]
                loss, accuracy = _train_epoch(model, data.splits[train_name], optimizer, plan, epoch, device, watch, workers)
                scheduler.step()
                entry = {"epoch": epoch, "learning_rate": rate, "loss": loss, "accuracy": accuracy}
                for name in [n for n in data.splits if n != train_name][:1]:
                    entry[f"{name}_accuracy"] = evaluate(model, data.splits[name], plan.batch_size, device, workers)
                history.append(entry)
                _save(checkpoint, {"epoch": epoch, "history": history}, model, optimizer, scheduler)
                watch.epoch(entry)
            if plan.records(epoch) and epoch not in recorded:
                last = history[-1] if history else {}
                extra = {f"training_{k}": last[k] for k in ("loss", "accuracy") if k in last}
                recorder.record(epoch, **extra, **({"learning_rate": last["learning_rate"]} if last else {}))
        store_masks(folder, record)
        write_json(folder / FOLDER / "history.json", history)
        write_json(folder / FOLDER / "arguments.json", {"arguments": arguments, "complete": True})
        checkpoint.unlink(missing_ok=True)
    return open_run(folder), history


def divide(data: LoadedData, plan: Plan) -> tuple[LoadedData, str]:
    """Set the validation images aside; returns the data and the name of the split to train on."""
    names = list(data.splits)
    train_name = next((n for n in names if n.lower() in ("train", "training")), names[0])
    share = plan.validation if plan.validation is not None else (0.1 if len(names) == 1 else 0.0)
    if not share:
        return data, train_name
    if "val" in names:
        raise DNNVizError(f"{data.spec} has a split val already; set none aside.")
    whole = data.splits[train_name]
    count = round(share * len(whole))
    if not 0 < count < len(whole):
        raise DNNVizError(f"A share of {share} of {len(whole)} training images leaves nothing to train or nothing to validate on.")
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(plan.seed)).tolist()
    parts = {"train": Subset(whole, sorted(order[count:])), "val": Subset(whole, sorted(order[:count]))}
    # The names of inputs stay those of the whole split, so its masks serve both parts.
    masks = {**data.masks, "train": data.masks[train_name], "val": data.masks[train_name]} if data.masks is not None else None
    return replace(data, splits={**parts, **{n: s for n, s in data.splits.items() if n != train_name}}, masks=masks), "train"


def store_masks(folder: Path, data: LoadedData) -> None:
    """Write inputs/masks.npy, uint8 [n, H, W] (0 background, class index + 1), for the inputs kept, where masks are known."""
    if data.masks is None:
        return
    run = open_run(folder)
    rows = [data.masks[run.splits[split]][int(name)] for split, name in zip(run.input_splits, run.ids, strict=True)]
    write_array(folder / "inputs" / "masks.npy", np.stack(rows))


def evaluate(model: nn.Module, dataset: Dataset, batch_size: int, device: torch.device, workers: int = 0) -> float:
    """Share of inputs classified right (0–1), in eval mode; the mode is put back."""
    training = model.training
    model.eval()
    right = total = 0
    with torch.inference_mode():
        for inputs, labels in _batches(DataLoader(dataset, batch_size, num_workers=workers)):
            right += int((model(inputs.to(device)).argmax(1).cpu() == labels).sum())
            total += len(labels)
    model.train(training)
    return right / total


# -- one epoch -------------------------------------------------------------------------------------------------------


def _train_epoch(
    model: nn.Module, dataset: Dataset, optimizer: torch.optim.Optimizer, plan: Plan, epoch: int, device: torch.device, watch: Watch, workers: int
) -> tuple[float, float]:
    """One pass over the training images; returns mean loss and accuracy as they were while training."""
    generator = torch.Generator().manual_seed(_seed(plan, epoch))
    # Batch norm cannot train on a single image.
    drop = len(dataset) > plan.batch_size and len(dataset) % plan.batch_size == 1
    loader = DataLoader(dataset, plan.batch_size, shuffle=True, generator=generator, num_workers=workers, drop_last=drop)
    model.train()
    loss_sum, right, total = 0.0, 0, 0
    for number, (images, labels) in enumerate(_batches(loader), 1):
        images, labels = augment(images, plan, generator).to(device), labels.to(device)
        output = model(images)
        main, *auxiliary = output if isinstance(output, tuple) else (output,)
        if int(labels.max()) >= main.shape[1]:
            raise DNNVizError(f"A training image has label {int(labels.max())}; the network has {main.shape[1]} outputs.")
        loss = F.cross_entropy(main, labels)
        for other in auxiliary:
            if other is not None:
                loss = loss + AUXILIARY_WEIGHT * F.cross_entropy(other, labels)
        if not math.isfinite(loss.item()):
            rate = optimizer.param_groups[0]["lr"]
            raise DNNVizError(f"The loss is {loss.item()} in epoch {epoch} at learning rate {rate:g}; lower the learning rate (--lr).")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        right += int((main.detach().argmax(1) == labels).sum())
        total += len(labels)
        watch.batch(epoch, number, len(loader), loss_sum / total, right / total)
    return loss_sum / total, right / total


def _batches(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of a loader; what it raises is a sentence, without the stack of a worker process."""
    try:
        yield from loader
    except DNNVizError as error:
        raise DNNVizError(str(error).strip().splitlines()[-1].removeprefix("dnnviz.errors.DNNVizError: ")) from None


def augment(images: torch.Tensor, plan: Plan, generator: torch.Generator) -> torch.Tensor:
    """Mirror and shift a batch [b, C, H, W] at random as the plan says; the border is filled with its nearest pixels."""
    if plan.flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if plan.crop:
        height, width = images.shape[2:]
        up, left = max(1, height // _CROP_PADDING), max(1, width // _CROP_PADDING)
        padded = F.pad(images, (left, left, up, up), mode="replicate")
        ys = torch.randint(0, 2 * up + 1, (len(images),), generator=generator).tolist()
        xs = torch.randint(0, 2 * left + 1, (len(images),), generator=generator).tolist()
        images = torch.stack([image[:, y : y + height, x : x + width] for image, y, x in zip(padded, ys, xs, strict=True)])
    return images


def _seed(plan: Plan, epoch: int) -> int:
    # Each epoch has random numbers of its own: what came before (an interruption, a snapshot) cannot change them.
    return plan.seed * 1_000_003 + epoch


def _optimizer(model: nn.Module, plan: Plan) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer: torch.optim.Optimizer
    if plan.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            model.parameters(), plan.learning_rate, momentum=plan.momentum, weight_decay=plan.weight_decay, nesterov=plan.nesterov
        )
    else:
        optimizer = torch.optim.AdamW(model.parameters(), plan.learning_rate, weight_decay=plan.weight_decay)
    if plan.schedule == "cosine":
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.epochs)
    if plan.schedule == "step":
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, max(1, math.ceil(plan.epochs / 3)), plan.gamma)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


# -- the folder ------------------------------------------------------------------------------------------------------


def _check_folder(folder: Path, arguments: Mapping[str, Any], overwrite: bool) -> tuple[Run, list[dict[str, Any]]] | None:
    """The finished run where the folder holds it; None where training begins or goes on; RunError where neither fits."""
    file = folder / FOLDER / "arguments.json"
    if overwrite or not (folder / MANIFEST).is_file():
        return None
    if not file.is_file():
        raise RunError(f"{folder} is a run that was not trained here; choose another folder, or overwrite it.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        before, complete = dict(content["arguments"]), bool(content["complete"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{file} cannot be read; the run is damaged: overwrite it, or choose another folder.") from None
    for name, value in arguments.items():
        if before.get(name) != value:
            raise RunError(
                f"{folder} was trained with {name.replace('_', ' ')} {before.get(name)}, not {value}; "
                "give the same arguments to go on, choose another folder, or overwrite it."
            )
    if not complete:
        return None
    try:
        history = json.loads((folder / FOLDER / "history.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        history = []
    return open_run(folder), history


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder for one training; the kernel frees the lock of a killed one."""
    own = folder / FOLDER
    try:
        if not (folder / MANIFEST).exists() and folder.is_dir() and any(not p.name.startswith(".") and p.name != FOLDER for p in folder.iterdir()):
            raise RunError(f"{folder} holds other files and is no run; choose another folder.")
        own.mkdir(parents=True, exist_ok=True)
        lock = FileLock(own / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise RunError(f"{folder} is being trained by another process; wait for it, or choose another folder.") from None
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}).") from None
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise DNNVizError(
            f"{folder} cannot be written ({error.strerror}): the disk is full, or may not be written. What was published is kept."
        ) from error
    finally:
        if not (folder / MANIFEST).exists():  # it failed before the first snapshot: leave nothing behind
            shutil.rmtree(own, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.rmdir()
        lock.release()


def _save(path: Path, state: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
    part = path.with_name(f".part-{path.name}")
    try:
        with open(part, "wb") as file:
            torch.save({**state, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch hides the reason of a failed write in a RuntimeError
        part.unlink(missing_ok=True)
        raise DNNVizError(f"{path} cannot be written ({first_line(error)}); is the disk full? The snapshots so far are kept.") from error


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any) -> tuple[int, list[dict[str, Any]]]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        return int(state["epoch"]), list(state["history"])
    except Exception as error:  # what torch.load raises for a damaged file depends on where it is damaged
        raise RunError(f"{path} is damaged; overwrite the run to train it from the beginning.") from error
