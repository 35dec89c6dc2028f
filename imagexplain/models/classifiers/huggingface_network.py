"""Classifiers of Hugging Face's transformers: any class behind ``AutoModelForImageClassification``, by its model type.

transformers has the code and knows the names that older of its versions gave the tensors; the checkpoint is the user's.
It is imported by need, and of it the one module of the model. No code of a folder is run, and nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints.checkpoint import COUNTER, CheckpointError, aligned

PIXELS = "pixel_values"
"""Argument of a model that takes an image."""


def build(name: str, state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> nn.Module:
    """Build the network of a checkpoint, in ``eval()``: images (B, C, H, W) to an output whose ``logits`` are scores.

    Args:
        name: Type of the model, the ``model_type`` of its configuration.
        state: Tensors of the checkpoint as any version of transformers writes them.
        arguments: Values of the configuration, ``num_labels`` and ``architectures`` among them.

    Raises:
        ArgumentError: no such type, a class for another task, or a configuration that the class does not take.
        CheckpointError: listing every missing, unexpected and wrongly shaped tensor.
        ImportError: transformers is not installed.
    """
    kind = network_class(name, arguments.get("architectures"))
    values = {key: value for key, value in arguments.items() if key != "architectures"}
    tensors = {key: aligned(tensor) for key, tensor in state.items()}
    try:
        config = kind.config_class(**values)
        with _quiet():
            network, found = kind.from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                dtype=torch.float32,
                # Fused where there is that: methods that look at weights of attention have their own way to them.
                attn_implementation="sdpa" if kind._supports_sdpa else "eager",
                ignore_mismatched_sizes=True,  # which are listed below with the others
                local_files_only=True,
                output_loading_info=True,
            )
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError, ArithmeticError) as error:
        raise ArgumentError("arguments", f"{kind.__name__} does not take them: {error}") from error
    # Of buffers that the network computes older versions wrote some, too.
    computed = {key for key, _ in network.named_buffers()} - network.state_dict().keys()
    missing, unexpected = (
        sorted(key for key in found[group] if not key.endswith(COUNTER) and key not in computed)
        for group in ("missing_keys", "unexpected_keys")
    )
    misshapen = [(key, tuple(wanted), tuple(given)) for key, given, wanted in sorted(found["mismatched_keys"])]
    if missing or unexpected or misshapen or found["error_msgs"]:
        faults = "".join(f"; {fault}" for fault in found["error_msgs"])
        raise CheckpointError(f"the checkpoint does not fit the model{faults}", missing, unexpected, misshapen)
    return network.eval()


def preprocess(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a spec's ``preprocess``, which no name stands for: the folder of the checkpoint states them.

    Raises:
        ArgumentError: always.
    """
    wanted = "wanted size, mean and std, or in `weights` the folder that save_pretrained wrote"
    raise ArgumentError("preprocess", f"{wanted}, for huggingface/{name} says none")


def network_class(name: str, architectures: object) -> Any:
    """Class of a type of model that classifies images.

    Args:
        name: Type of the model.
        architectures: List of the name of the class that wrote the checkpoint; None for the usual one.

    Raises:
        ArgumentError: no type whose models classify images, or a class for another task.
        ImportError: transformers is not installed.
    """
    package = library()
    names = import_module("transformers.models.auto.modeling_auto").MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    if name not in names:
        near = get_close_matches(name, names, n=3)
        hint = f", such as {', '.join(near)}" if near else ""
        wanted = f"wanted huggingface/ and a type of transformers' models that classify images{hint}"
        raise ArgumentError("architecture", f"{wanted}, given {name!r}")
    usual = names[name] if isinstance(names[name], tuple) else (names[name],)
    wanted_class = usual[0] if architectures is None else _single(architectures)
    if wanted_class not in usual:
        raise ArgumentError(
            "architectures", f"wanted {' or '.join(usual)}, which classify images, given {wanted_class}"
        )
    kind = getattr(package, wanted_class)
    if kind.main_input_name != PIXELS:
        raise ArgumentError("architecture", f"wanted a model of images alone, {name} takes {kind.main_input_name}")
    return kind


def library() -> Any:
    """Import transformers, without a way to its hub.

    Raises:
        ImportError: it is not installed; the message says how to come by it.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        return import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        reason = "a model of Hugging Face's wants the package transformers, which is not installed here"
        raise ModuleNotFoundError(f"{reason}: pip install 'imagexplain[huggingface]'", name=error.name) from None


def _single(architectures: object) -> str:
    if isinstance(architectures, list | tuple) and len(architectures) == 1:
        return str(architectures[0])
    raise ArgumentError("architectures", f"wanted a list of one class's name, given {architectures!r}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers within the block: its bar of progress, and its report of what is raised anyway."""
    logging = import_module("transformers.utils.logging")
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
