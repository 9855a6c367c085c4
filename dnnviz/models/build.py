"""From a model spec to a network, with weights from a file or from torchvision."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dnnviz.errors import DNNVizError, RunError
from dnnviz.models import builtin
from dnnviz.models.torchvision_import import import_torchvision
from dnnviz.settings import Settings
from dnnviz.specs import check_allowed, first_line, import_function
from dnnviz.specs import options as parse_options

if TYPE_CHECKING:
    from dnnviz.store import Run

DEFAULT = "DEFAULT"  # torchvision's own weights, downloaded by its own code
_FORMS = "torchvision:NAME, dnnviz:NAME or package.module:function"
State = Mapping[str, torch.Tensor]


def build(
    spec: str,
    num_classes: int | None = None,
    weights: str | Path | None = None,
    in_channels: int | None = None,
    allow: Sequence[str] | None = None,
) -> nn.Module:
    """Build the network of a model spec.

    spec: `torchvision:NAME` (any classification network), `dnnviz:NAME` (small_cnn, resnet20, resnet32, resnet56) or
    `package.module:function`; options of the builder follow after a question mark: `dnnviz:small_cnn?width=8&pools=3`.
    num_classes, in_channels: None leaves the builder's own; where a weights file holds an output or input layer of
    another width, the file decides.
    weights: None (random), a file with a state_dict, or `DEFAULT` for torchvision's pretrained weights.
    allow: packages whose functions may be called; None allows any (the user typed the spec).
    Raises DNNVizError with one sentence for an unknown spec, unreadable weights, or weights that do not fit.
    """
    builder, options = _builder(spec, allow)
    if num_classes is not None:
        options.setdefault("num_classes", num_classes)
    if weights == DEFAULT:
        return _build_pretrained(spec, builder, options, in_channels)
    if weights is None:
        return _call(spec, builder, options, in_channels)
    path = Path(weights)
    state = read_state(path)
    if "aux_logits" in inspect.signature(builder).parameters:
        # GoogLeNet and Inception: whether the file was saved with the auxiliary classifiers decides.
        options.setdefault("aux_logits", any(name.startswith(("aux", "AuxLogits")) for name in state))
    model = _call(spec, builder, options, in_channels)
    resized = _sizes_of(state, model)
    if resized:
        channels = resized.pop("in_channels", in_channels)
        with contextlib.suppress(DNNVizError):
            model = _call(spec, builder, {**options, **resized}, channels)
    load_weights(model, state, path)
    return model


def complete_spec(spec: str, model: nn.Module) -> str:
    """The spec with the options that `build` found for itself and that the weights alone do not tell."""
    extra = [
        f"{name}={getattr(model, name)}"
        for name in ("aux_logits", "transform_input")
        if isinstance(getattr(model, name, None), bool) and spec.startswith("torchvision:") and f"{name}=" not in spec
    ]
    return spec + ("&" if "?" in spec else "?") + "&".join(extra) if extra else spec


def class_names(spec: str, outputs: int) -> list[str] | None:
    """Names of the classes that torchvision's own weights tell apart, where they are this many; else None."""
    family, _, name = spec.partition("?")[0].partition(":")
    if family != "torchvision":
        return None
    models = import_torchvision().models
    try:
        names = list(models.get_model_weights(name).DEFAULT.meta["categories"])
    except (ValueError, KeyError, AttributeError):
        return None
    return names if len(names) == outputs else None


def load_snapshot(run: Run, epoch: int, allow: Sequence[str] | None = None) -> nn.Module:
    """The network of a snapshot in eval mode, with its weights mapped from the file, not copied.

    allow: packages whose builders may be called (a run may come from somebody else); None: those of DNNVIZ_ALLOW.
    Raises RunError with what to do when the run names no network, holds no weights, or the two do not fit.
    """
    entry = run.snapshot(epoch)
    spec = run.manifest["model"].get("spec")
    if not spec:
        raise RunError(
            f"Run {run.name} does not say how to build its network; capture it again with "
            "model_spec='torchvision:NAME' or model_spec='package.module:function'."
        )
    path = run.path / "snapshots" / f"{epoch:06d}" / "weights.pt"
    if not entry.get("weights") or not path.is_file():
        raise RunError(f"Run {run.name} holds no weights for epoch {epoch}; capture it again with save_weights=True.")
    if allow is None:
        allow = Settings.from_environment().allow
    try:
        state = read_state(path)
        builder, options = _builder(spec, allow)
        options.setdefault("num_classes", int(run.logits(epoch).shape[1]))
        channels = int(run.manifest["preprocessing"]["size"][0])
        model = _call_empty(spec, builder, options, channels)
        load_weights(model, state, path, assign=True)
        if any(t.is_meta for t in _tensors(model)):
            # Buffers that the state_dict leaves out have no value on the meta device.
            model = _call(spec, builder, options, channels)
            load_weights(model, state, path, assign=True)
    except RunError:
        raise
    except DNNVizError as error:
        raise RunError(f"The network of run {run.name} cannot be built again: {error}") from error
    return model.eval()


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state_dict in a file (also inside a checkpoint under `state_dict`, `model`, `net` …), read without unpickling code."""
    if not path.is_file():
        raise DNNVizError(f"There is no weights file {path}; give the path of a state_dict saved with torch.save.")
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            content = torch.load(path, map_location="cpu", weights_only=True)  # the format before torch 1.6
    except pickle.UnpicklingError:
        raise DNNVizError(
            f"{path} is damaged, or holds pickled objects, which DNNViz does not load because they can run code; "
            "save a state_dict: torch.save(model.state_dict(), file)."
        ) from None
    except Exception as error:  # what torch.load raises for a file that is not its own depends on the first bytes
        raise DNNVizError(f"{path} cannot be read as weights ({first_line(error)}); the file is damaged or no PyTorch file.") from None
    for name in ("state_dict", "model_state_dict", "model", "net", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise DNNVizError(f"{path} holds no state_dict (names and tensors); save one: torch.save(model.state_dict(), file).")
    state = dict(content)
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}  # saved from DataParallel
    return state


def load_weights(model: nn.Module, state: State, path: Path, assign: bool = False) -> None:
    """Load a state_dict strictly; raises DNNVizError naming the first layer that differs, with both shapes."""
    own = model.state_dict()
    fits = f"{path} does not fit {type(model).__name__}"
    for name, value in own.items():
        if name not in state:
            # Files older than batch norm's counter are complete without it.
            if name.endswith("num_batches_tracked"):
                continue
            raise DNNVizError(f"{fits}: the file has no {name}, which the network has with shape {list(value.shape)}.")
        if state[name].shape != value.shape:
            raise DNNVizError(f"{fits}: {name} is {list(state[name].shape)} in the file and {list(value.shape)} in the network.")
    for name, value in state.items():
        if name not in own:
            raise DNNVizError(f"{fits}: the file has {name} {list(value.shape)}, which the network does not have.")
    if assign and any(state[name].dtype != own[name].dtype for name in state):
        state = {name: value.to(own[name].dtype) for name, value in state.items()}
    counters = {name: torch.zeros((), dtype=torch.long) for name in own if name not in state}
    model.load_state_dict({**state, **counters}, assign=assign)


# -- builders --------------------------------------------------------------------------------------------------------


def _builder(spec: str, allow: Sequence[str] | None) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """The function that builds a spec's network, and the options written in the spec."""
    where, _, rest = spec.partition(":")
    name, _, query = rest.partition("?")
    if not where or not name:
        raise DNNVizError(f"{spec!r} is no model; write {_FORMS}.")
    options = parse_options(spec, query)
    if "weights" in options or "progress" in options:
        raise DNNVizError(f"{spec!r}: weights are no part of a model spec; give them with --weights FILE.")
    if where == "dnnviz":
        if name not in builtin.BUILDERS:
            raise DNNVizError(f"There is no built-in network {name!r}; there are {', '.join(builtin.BUILDERS)}.")
        return builtin.BUILDERS[name], options
    if where == "torchvision":
        torchvision = import_torchvision()
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise DNNVizError(f"torchvision has no classification network {name!r}{_suggest(name, known)}.")
        if "init_weights" in inspect.signature(torchvision.models.get_model_builder(name)).parameters or name in ("googlenet", "inception_v3"):
            options.setdefault("init_weights", True)  # the published initialisation; unset, torchvision warns
        return torchvision.models.get_model_builder(name), options
    check_allowed(spec, allow)
    return import_function(spec.partition("?")[0], "model"), options


def _call(spec: str, builder: Callable[..., nn.Module], options: Mapping[str, Any], in_channels: int | None) -> nn.Module:
    accepted = _accepted(builder)
    arguments = {k: v for k, v in options.items() if k != "num_classes" or accepted is None or k in accepted}
    own_channels = accepted is not None and "in_channels" in accepted
    if own_channels and in_channels is not None:
        arguments.setdefault("in_channels", in_channels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model = builder(**arguments)
    except DNNVizError:
        raise
    except Exception as error:
        raise DNNVizError(f"Building {spec} failed ({type(error).__name__}: {first_line(error)}).") from error
    if not isinstance(model, nn.Module):
        raise DNNVizError(f"{spec} returned a {type(model).__name__}; it must return a torch.nn.Module.")
    if in_channels is not None and not own_channels and spec.startswith("torchvision:"):
        _replace_input_layer(model, in_channels)
    return model


class _Unfilled(TorchFunctionMode):
    """Leaves tensors as they are where random numbers would fill them: for those without memory torch would first load its compiler."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        return args[0] if func in _RANDOM else func(*args, **(kwargs or {}))


_RANDOM = {torch.Tensor.normal_, torch.Tensor.uniform_}


def _call_empty(spec: str, builder: Callable[..., nn.Module], options: Mapping[str, Any], in_channels: int | None) -> nn.Module:
    """The network without memory for its weights, where its builder can do that (the user's own need not)."""
    if spec.startswith(("torchvision:", "dnnviz:")):
        with contextlib.suppress(DNNVizError), torch.device("meta"), _Unfilled():
            return _call(spec, builder, {**options, **({"init_weights": False} if "init_weights" in options else {})}, in_channels)
    return _call(spec, builder, options, in_channels)


def _accepted(builder: Callable[..., Any]) -> set[str] | None:
    """Names of the arguments a builder takes; None where it takes any."""
    try:
        parameters = inspect.signature(builder).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters}


def _replace_input_layer(model: nn.Module, in_channels: int) -> None:
    """Give the first convolution another number of input channels (torchvision's builders have no such argument)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels != in_channels:
                new = nn.Conv2d(
                    in_channels,
                    module.out_channels,
                    module.kernel_size,  # type: ignore[arg-type]
                    module.stride,  # type: ignore[arg-type]
                    module.padding,  # type: ignore[arg-type]
                    bias=module.bias is not None,
                )
                parent, _, last = name.rpartition(".")
                setattr(model.get_submodule(parent), last, new)
                if getattr(model, "transform_input", False):
                    model.transform_input = False  # it mixes three channels
            return


def _build_pretrained(spec: str, builder: Callable[..., nn.Module], options: dict[str, Any], in_channels: int | None) -> nn.Module:
    if not spec.startswith("torchvision:"):
        raise DNNVizError(f"There are no default weights for {spec}; give a file with --weights FILE.")
    torchvision = import_torchvision()
    name = spec.partition(":")[2].partition("?")[0]
    chosen = torchvision.models.get_model_weights(name).DEFAULT
    outputs = len(chosen.meta["categories"])
    if options.get("num_classes", outputs) != outputs:
        raise DNNVizError(f"The default weights of {spec} have {outputs} classes; {options['num_classes']} were asked for. Give a file of your own.")
    if in_channels not in (None, 3):
        raise DNNVizError(f"The default weights of {spec} take images with 3 channels; these have {in_channels}.")
    options.pop("init_weights", None)
    try:
        return builder(weights=chosen, **{k: v for k, v in options.items() if k != "num_classes"})
    except (URLError, OSError, RuntimeError) as error:
        where = Path(torch.hub.get_dir()) / "checkpoints"
        raise DNNVizError(
            f"The default weights of {spec} could not be downloaded ({first_line(error)}); "
            f"download {chosen.url} elsewhere and give it with --weights FILE, or put it into {where}."
        ) from None


def _sizes_of(state: State, model: nn.Module) -> dict[str, int]:
    """Widths of the output and input layer in a state_dict where they differ from the network's."""
    own = {name: value for name, value in model.state_dict().items() if name in state and state[name].shape != value.shape}
    sizes: dict[str, int] = {}
    for name, value in own.items():
        have, want = list(state[name].shape), list(value.shape)
        if len(have) == len(want) and have[0] != want[0] and have[1:] == want[1:]:
            sizes["num_classes"] = have[0]
        elif len(have) == len(want) == 4 and have[1] != want[1] and have[:1] + have[2:] == want[:1] + want[2:]:
            sizes["in_channels"] = have[1]
    return sizes


def _tensors(model: nn.Module) -> Iterable[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _suggest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
