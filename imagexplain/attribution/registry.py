"""The registry of methods: all that is known of one is stated beside its definition, by :func:`register`.

A method has a file of its own name in ``methods/``. The names are those of the files, so that listing them imports
nothing; a method's record is there once its file is imported, which :data:`METHODS` does when it is asked for it. A
method that lies elsewhere is there from the import of its own file on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from imagexplain.errors import ArgumentError

Need = Literal["gradients", "module", "attention", "nonlinearities"]
"""Property of a model: scores with a gradient, a network to look into, attention layers of a known kind, and
non-linearities that are seen as their authors wrote them."""

Family = Literal["gradients", "paths", "class activation", "attention", "perturbation", "regions", "combinations"]
"""Kinds of methods, in the order in which they are shown."""

INPUTS = (
    *("layer", "baselines", "fill", "references", "groups", "segments", "pictures"),
    *("observe", "observe_covariance", "chunk"),
)
"""Named arguments of methods that a runner supplies."""

LIBRARY_ONLY = ("attributions", "create_graph", "upsample")
"""Named arguments of methods that only callers of the library set."""

PLAIN = (bool, int, float, str)
"""Types of options."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Workload:
    """A map of one image, as far as its cost depends on it.

    Attributes:
        options: Value of each of the method's options, by name.
        size: Height and width (H, W) of the image, of three channels.
        draws: Number of draws of the baseline.
        groups: Number of groups of pixels.
        channels: Number of channels of the layer, where a method takes them one by one.
    """

    options: Mapping[str, Any]
    size: tuple[int, int]
    draws: int = 1
    groups: int = 0
    channels: int = 0


@dataclass(frozen=True)
class Peer:
    """Another package's implementation, with which the benchmark compares.

    Attributes:
        package: Name by which it is known.
        kind: Name of its class.
        note: Reason why the maps differ; empty where the definition is the same.
        token_note: Reason for layers of tokens, None where it is the same.
        double: Comparison in float64, where in float32 the smallest difference sends the path elsewhere.
        tokens: Support of layers of tokens.
    """

    package: Literal["pytorch-grad-cam", "Captum", "PAIR"]
    kind: str
    note: str = ""
    token_note: str | None = None
    double: bool = False
    tokens: bool = True


def nothing(_: Workload) -> float:
    """Zero cost of a step that a method does not have."""
    return 0


@dataclass(frozen=True, eq=False)
class Method:
    """All that is known of a method.

    Attributes:
        function: Function of the method: (model, images, targets, …) to maps.
        family: Kind of the method.
        needs: Properties that it needs of a model.
        forward_passes: Number of forward passes without gradients for the map of one image, beyond the image's own.
        gradient_passes: Number of forward and backward passes, likewise.
        operations: Number of floating-point operations beside the model, where that depends on the options.
        by_channel: Evaluation of the channels of its layer one by one.
        coarse: Coarseness: its maps have one channel, nowhere negative, with which a fine map may be multiplied.
        speckled: Speckle: its maps alternate in sign from pixel to pixel, so that sums over a neighbourhood tell more.
        sensitivity: Sensitivity in place of contribution: a map says how much a value matters, not what it adds to the
            score, and its channels join as magnitudes.
        centred: Offset: its maps are high everywhere, so that only the difference from their mean tells.
        own_draws: Number of baselines that it makes of each image where it is given none. Such a method takes several
            at once, for its map is not the mean of the maps from each; 0 for all others.
        tried_by: Name of a method that supports the same models and takes less time to try; None for itself.
        peer: Another package's implementation, if there is one.
        least: Smallest values of options that are whole numbers, by name, where they are larger than other methods'.
        most: Largest values of such options, by name, where the method has such bounds of its own.
        most_groups: Function from all options' values, by name, to the largest number of groups of pixels with which
            the method does its work; None for any number.
    """

    function: Callable[..., Any]
    family: Family
    needs: frozenset[Need] = frozenset()
    forward_passes: Callable[[Workload], float] = nothing
    gradient_passes: Callable[[Workload], float] = nothing
    operations: Callable[[Workload], float] = nothing
    by_channel: bool = False
    coarse: bool = False
    speckled: bool = False
    sensitivity: bool = False
    centred: bool = False
    own_draws: int = 0
    tried_by: str | None = None
    peer: Peer | None = None
    least: Mapping[str, int] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=dict)
    most_groups: Callable[[Mapping[str, Any]], int] | None = None

    @property
    def name(self) -> str:
        """The function's name, which is the method's everywhere."""
        return self.function.__name__

    @property
    def needs_module(self) -> bool:
        """Test whether it looks into a network, for which a mere function of images will not do."""
        return "module" in self.needs

    @property
    def needs_original(self) -> bool:
        """Test whether it supports some networks only, and those as their authors wrote them, not folded."""
        return not self.needs.isdisjoint(("module", "attention", "nonlinearities"))

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """Options and inputs of the method, each with its default; one without a default has `...`."""
        return {
            name: ... if parameter.default is parameter.empty else parameter.default
            for name, parameter in inspect.signature(self.function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name not in LIBRARY_ONLY
        }

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """Parameters that are plain values, each with its default."""
        return {name: default for name, default in self.parameters.items() if name not in INPUTS}

    @cached_property
    def words(self) -> Mapping[str, tuple[str, ...]]:
        """Values of each option whose type is one of a few words."""
        types = get_type_hints(self.function)
        return {name: get_args(types[name]) for name in self.options if get_origin(types.get(name)) is Literal}


class Registry(Mapping[str, Method]):
    """Methods by name, in alphabetical order.

    Args:
        package: Name of the package whose files are methods.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._records: dict[str, Method] = {}

    @cached_property
    def _files(self) -> frozenset[str]:
        return frozenset(file.name for file in iter_modules(import_module(self._package).__path__))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._files.union(self._records)))

    def __len__(self) -> int:
        return len(self._files.union(self._records))

    def __contains__(self, name: object) -> bool:
        return name in self._records or name in self._files

    def __getitem__(self, name: str) -> Method:
        """Record of a method, whose file is imported if need be."""
        if name not in self._records and name in self._files:
            import_module(f"{self._package}.{name}")
        return self._records[name]

    @property
    def options(self) -> Mapping[str, type]:
        """Type of every option of any method, by name, in alphabetical order."""
        found = {name: type(default) for method in self.values() for name, default in method.options.items()}
        return dict(sorted(found.items()))

    @property
    def words(self) -> Mapping[str, tuple[str, ...]]:
        """Values of every option of any method whose type is one of a few words, by name."""
        return {name: words for method in self.values() for name, words in method.words.items()}

    def load(self) -> None:
        """Import every method's file, which otherwise happens as each is asked for."""
        for name in self:
            self[name]

    def add(self, method: Method) -> None:
        """Add a method.

        Raises:
            ArgumentError: a name, an option, a bound, a family or a need that does not fit.
        """
        name, module = method.name, method.function.__module__
        taken = self._records.get(name)
        if module != f"{self._package}.{name}" and (
            name in self._files or (taken is not None and taken.function.__module__ != module)
        ):
            raise ArgumentError("name", f"wanted one that no method has, got {name!r}")
        if method.family not in get_args(Family):
            raise ArgumentError("family", f"wanted one of {', '.join(get_args(Family))}, got {method.family!r}")
        if unknown := sorted(method.needs.difference(get_args(Need))):
            raise ArgumentError("needs", f"wanted some of {', '.join(get_args(Need))}, got {', '.join(unknown)}")
        try:
            words = method.words
        except NameError as error:
            raise ArgumentError(
                "name", f"wanted types that are known where it is defined, in {name}: {error}"
            ) from None
        for bound, bounds in (("least", method.least), ("most", method.most)):
            for option in bounds:
                if type(method.options.get(option)) is not int:
                    wanted = "wanted bounds of options that are whole numbers"
                    raise ArgumentError(bound, f"{wanted}, got {option} in {name}")
        for option, default in method.options.items():
            if type(default) not in PLAIN:
                raise ArgumentError(option, f"wanted a default of a plain type, got {default!r} in {name}")
            if default not in words.get(option, (default,)):
                wanted = f"wanted a default among {', '.join(map(str, words[option]))}"
                raise ArgumentError(option, f"{wanted}, got {default!r} in {name}")
            for other in self._records.values():
                if other.name != name and option in other.options:
                    _check_alike(option, method, other)
        self._records[name] = method


def _check_alike(option: str, method: Method, other: Method) -> None:
    """Raise ArgumentError unless an option has one type and the same words in two methods, for requests know one."""
    default = method.options[option]
    if type(other.options[option]) is not type(default):
        kind = type(other.options[option]).__name__
        raise ArgumentError(option, f"wanted {kind}, as in {other.name}, got {default!r} in {method.name}")
    own, others = (one.words.get(option, ()) for one in (method, other))
    if set(own) != set(others):
        wanted, got = (" or ".join(map(repr, words)) if words else "any word" for words in (others, own))
        raise ArgumentError(option, f"wanted {wanted}, as in {other.name}, got {got} in {method.name}")


METHODS = Registry("imagexplain.attribution.methods")
"""All methods."""


def register(
    *,
    family: Family,
    needs: Collection[Need] = (),
    forward_passes: Callable[[Workload], float] = nothing,
    gradient_passes: Callable[[Workload], float] = nothing,
    operations: Callable[[Workload], float] = nothing,
    by_channel: bool = False,
    coarse: bool = False,
    speckled: bool = False,
    sensitivity: bool = False,
    centred: bool = False,
    own_draws: int = 0,
    tried_by: str | None = None,
    peer: Peer | None = None,
    least: Mapping[str, int] | None = None,
    most: Mapping[str, int] | None = None,
    most_groups: Callable[[Mapping[str, Any]], int] | None = None,
) -> Callable[[F], F]:
    """Register a method: decorate its function with the facts that :class:`Method` lists.

    .. code-block:: python

        @register(family="gradients", needs={"gradients"})
        def loudness(model, images, targets=None, *, gain: float = 1.0): ...

    Raises:
        ArgumentError: a name, an option, a bound, a family or a need that does not fit.
    """

    def registered(function: F) -> F:
        METHODS.add(
            Method(
                function=function,
                family=family,
                needs=frozenset(needs),
                forward_passes=forward_passes,
                gradient_passes=gradient_passes,
                operations=operations,
                by_channel=by_channel,
                coarse=coarse,
                speckled=speckled,
                sensitivity=sensitivity,
                centred=centred,
                own_draws=own_draws,
                tried_by=tried_by,
                peer=peer,
                least=least or {},
                most=most or {},
                most_groups=most_groups,
            )
        )
        return function

    return registered
