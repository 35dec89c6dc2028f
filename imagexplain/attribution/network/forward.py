"""Calls of a model by attribution methods: the same scores whatever state model, tensors and grad modes are in.

A method is decorated with :func:`isolated`, which settles that state for the time of its call, and asks the model
through :func:`class_scores`, which settles what a forward function may do to its argument and may return.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from imagexplain.errors import ArgumentError, UnsupportedModelError

if TYPE_CHECKING:
    from imagexplain.attribution.paths.path_integral import Forward

P = ParamSpec("P")
R = TypeVar("R")

WANTED = "wanted scores (B, classes)"

AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Device types whose autocast a method runs without."""

CPU_PIXELS = 4 * 224 * 224
"""Pixels of images that a CPU evaluates at once, at most, for each of its threads, of which there count two at least.
More leave its caches, and the system clears new memory for them: a row of 32 takes ResNet-18 a quarter longer."""

MAX_ITEMS = 1000
"""Length of a container that is searched for modules."""


def isolated(method: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function of a ``model`` (or ``forward``) so that nothing but its arguments matters to its result.

    While it runs,

    - the model is in ``eval()`` (:func:`evaluation_mode`);
    - its parameters are frozen (:func:`frozen`), but with ``create_graph``: they keep no tensor that no gradient needs;
    - inference mode is off, and tensors made in it are copied, so that gradients can be taken;
    - autocast is off: scores that differ by less than half precision tells are what attribution is made of;
    - gradients are on if ``create_graph`` is asked for.

    All is as it was afterwards, also if the method raises.
    """
    names = list(inspect.signature(method).parameters)
    name = "model" if "model" in names else "forward"
    position = names.index(name)

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        model = args[position] if len(args) > position else kwargs.get(name)
        with ExitStack() as stack:
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
            for device in AUTOCAST_DEVICES:
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            modules = modules_of(model)
            if kwargs.get("create_graph"):
                stack.enter_context(torch.enable_grad())
            else:
                stack.enter_context(frozen(modules))
            stack.enter_context(evaluation_mode(modules))
            usable: Any = _outside_inference_mode  # which keeps each argument's type
            return method(*map(usable, args), **{key: usable(value) for key, value in kwargs.items()})

    return call


@contextmanager
def frozen(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Freeze modules within the block: none of their parameters requires a gradient; each is as it was after it."""
    trained = [
        parameter
        for module in modules
        for parameter in module._parameters.values()
        if parameter is not None and not is_lazy(parameter) and parameter.requires_grad
        if parameter.is_leaf and not parameter.is_inference()  # the flag of any other cannot be set again
    ]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def evaluation_mode(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put modules in ``eval()`` within the block; flags and stored buffers are as they were after it.

    Each module's own flag is set, not its ``train()`` called, which some classes use to freeze or to merge weights.
    Buffers of modules that are not torch's own are put back as well, if their forward changed them: those of the
    state dict; caches are left to the model.
    """
    modes = [(module, module.training) for module in modules]
    stored = [(module, *entry) for module in modules for entry in _own_buffers(module)]
    try:
        for module, training in modes:
            if training:
                module.training = False
        yield
    finally:
        for module, training in modes:
            if module.training != training:
                module.training = training
        for module, name, buffer, version, value in stored:
            if buffer._version != version:
                buffer.data.copy_(value)
            if module._buffers.get(name) is not buffer:
                setattr(module, name, buffer)


def class_scores(model: Forward, rows: Tensor) -> Tensor:
    """Scores (B, classes) of some rows (B, C, H, W); the model gets a copy of the rows, which it may overwrite.

    The scores are a copy too, on the rows' device, which no later call changes. Both copies are differentiable.

    Raises:
        ValueError: an output that is not floating-point (B, classes), or rows of another type or on another device
            than the model takes.
    """
    return scores_of_copy(model, rows.clone())


def scores_of_copy(model: Forward, rows: Tensor) -> Tensor:
    """Scores as from :func:`class_scores`, of rows that nobody needs afterwards and that are not copied."""
    count, device, dtype = len(rows), rows.device, rows.dtype
    try:
        scores = model(rows)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if (fault := _misfit(model, device, dtype, error)) is not None:
            raise fault from error
        raise
    if not isinstance(scores, Tensor):
        raise UnsupportedModelError("model", f"{WANTED}, got {described_output(scores)}")
    if scores.ndim != 2 or len(scores) != count or scores.shape[1] == 0:
        raise UnsupportedModelError("model", f"{WANTED}, got {tuple(scores.shape)} for {count} images")
    if not scores.is_floating_point():
        raise UnsupportedModelError("model", f"{WANTED} of floating point, got {scores.dtype}")
    if scores.is_meta and device.type != "meta":
        raise UnsupportedModelError(
            "model", f"{WANTED} on {device} like the images, got them on the meta device, which holds no numbers"
        )
    return scores.to(device, copy=True)


def rows_at_once(count: int, chunk: int, images: Tensor) -> int:
    """Number of rows to evaluate at once, where ``count`` are wanted: a chunk, and on a CPU fewer of large images.

    Those of :data:`CPU_PIXELS` are then cut evenly.
    """
    pixels = max(1, images.shape[-2] * images.shape[-1])
    most = max(1, CPU_PIXELS * max(2, torch.get_num_threads()) // pixels)
    if images.device.type != "cpu" or chunk <= most or count < 1:
        return chunk
    return -(-count // -(-count // most))


def check_graph(known: bool) -> None:
    """Raise UnsupportedModelError unless scores are known to autograd as a function of the images."""
    if not known:
        raise UnsupportedModelError(
            "model",
            "wanted scores that autograd knows as a function of the images, got ones without such a graph, as a "
            "forward function under torch.no_grad() or one that detaches gives",
        )


def modules_of(model: object) -> list[nn.Module]:
    """Modules that a function of images runs, those within them included, as far as they can be found.

    Besides a module itself these are the modules that bound methods, partials, closures, defaults, global variables
    and attributes lead to, such as a module's plain list of modules, which torch does not register. Not found are those
    that a function fetches while it runs, say from another Python module, the global variables of a module's own
    ``forward``, and those in containers of more than :data:`MAX_ITEMS`.
    """
    found: dict[nn.Module, None] = {}
    seen: dict[int, object] = {}  # with the object, whose number nobody else gets while it is kept
    waiting = [model]
    while waiting:
        value = waiting.pop()
        if isinstance(value, nn.Module):
            new = [module for module in _within(value) if module not in found]
            found |= dict.fromkeys(new)
            waiting += [item for module in new for item in _unregistered(module)]
        elif id(value) not in seen:
            seen[id(value)] = value
            waiting += _references(value)
    return list(found)


def _within(module: nn.Module) -> dict[nn.Module, None]:
    """The module and all in it, in the order of its ``modules()``, which takes twice as long."""
    found: dict[nn.Module, None] = {}
    waiting = [module]
    while waiting:
        found[next_one := waiting.pop()] = None
        waiting += [part for part in reversed(next_one._modules.values()) if part is not None and part not in found]
    return found


def _references(value: object) -> list[Any]:
    """Objects that a function, an object or a container may get modules from."""
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        return _variables(value)
    if isinstance(value, _CONTAINERS):
        items = (list(value.values()) if isinstance(value, Mapping) else list(value)) if len(value) <= MAX_ITEMS else []
    elif isinstance(value, Tensor | type | ModuleType):
        items = []
    else:
        items = [*([value.__call__] if callable(value) else []), *getattr(value, "__dict__", {}).values()]
    # Objects within objects could be anything, the whole program at last.
    return [item for item in items if isinstance(item, _LEADING)]


_CONTAINERS = (list, tuple, set, frozenset, dict)
_LEADING = (nn.Module, partial, MethodType, FunctionType, *_CONTAINERS)
_REGISTERED = frozenset(vars(nn.Module()))


def _unregistered(module: nn.Module) -> list[Any]:
    """Attributes that torch does not know as a part of the module, as far as they may lead to modules."""
    if type(module).__module__.startswith(("torch.nn.", "torch.jit.")):  # none of which keeps modules aside
        own = vars(module).get("forward")
        return [] if own is None else [own]
    return [
        value
        for name, value in vars(module).items()
        if name not in _REGISTERED and isinstance(value, _LEADING) and value
    ]


def _variables(function: FunctionType) -> list[Any]:
    """Values of a function's closure, defaults and global variables."""
    cells = [content for cell in function.__closure__ or () for content in _contents(cell)]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    names: set[str] = set()
    codes = [] if function.__globals__.get("__name__", "").startswith("torch.") else [function.__code__]
    while codes:  # those of the functions within it too
        code = codes.pop()
        names |= {*code.co_names}
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return [*cells, *defaults, *(function.__globals__[name] for name in names if name in function.__globals__)]


def _contents(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # a variable that has no value yet
        return []


def _own_buffers(module: nn.Module) -> list[tuple[str, Tensor, int, Tensor]]:
    """Name, tensor, version and a copy of the values of each buffer that a forward in ``eval()`` might change."""
    if type(module).__module__.startswith(("torch.nn.", "torch.jit.")):  # the former write none
        return []
    return [
        (name, buffer, buffer._version, buffer.clone())
        for name, buffer in module._buffers.items()
        if buffer is not None
        and name not in module._non_persistent_buffers_set
        and not is_lazy(buffer)
        and not buffer.is_inference()  # which cannot be changed where gradients are taken
    ]


def _outside_inference_mode(value: Any) -> Any:
    """Argument with tensors made in inference mode, alone or in a list, copied; any other as it is."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if type(value) in (list, tuple):
        return type(value)(map(_outside_inference_mode, value))
    return value


def _misfit(model: Forward, device: torch.device, dtype: torch.dtype, error: RuntimeError) -> ArgumentError | None:
    """Error that names what a model that raised has against its rows, None if nothing is found."""
    parameters = [parameter for module in modules_of(model) for parameter in module._parameters.values()]
    weights = [weight for weight in parameters if weight is not None and weight.is_floating_point()]
    if not weights:
        return None
    if device not in (devices := [weight.device for weight in weights]):
        wanted = f"wanted them on {devices[0]} like the model's parameters, got {device}"
        return ArgumentError("images", f"{wanted} ({error})")
    if dtype not in (dtypes := [weight.dtype for weight in weights]):
        return ArgumentError("images", f"wanted {dtypes[0]} like the model's parameters, got {dtype} ({error})")
    if torch.is_grad_enabled() and any(weight.is_inference() for weight in weights):
        wanted = "wanted parameters that gradients can be taken with, got ones made in inference mode"
        return UnsupportedModelError("model", f"{wanted} ({error})")
    return None


def described_output(output: object) -> str:
    """Description of an output that is not a tensor: its type, its content, and how to come by a tensor."""
    kind, hint = type(output).__name__, "; wrap the model in a module that returns the scores alone"
    if isinstance(output, Mapping) and output:
        return f"a {kind} of {', '.join(map(str, output))}{hint}, such as output[{next(iter(output))!r}]"
    if isinstance(output, Sequence) and output and not isinstance(output, str):
        return f"a {kind} of {', '.join(type(part).__name__ for part in output)}{hint}, such as output[0]"
    return f"{kind}{hint}"
