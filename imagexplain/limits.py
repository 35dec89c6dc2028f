"""Upper bounds of one request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Upper bounds of one request; what lies above is answered with 413.

    Attributes:
        max_bytes: Bytes of the body, or of all parts of a multipart form. Should be below TorchServe's
            ``max_request_size``, whose own refusal has an empty body.
        max_pixels: Pixels of the photo, read from its header before anything is decoded.
        max_side: Pixels of the photo's longer side; heat maps are drawn at the photo's size.
        max_steps: Number of points on the integration path.
        max_samples: Noisy or masked copies of the image, coalitions, or draws of a method.
        max_groups: Masks that are sent and segments that are made, together.
        max_runs: Runs of pixels of all masks that are sent, along rows or columns: what bringing them into the model's
            frame costs goes with it.
        max_parts: Disjoint parts that overlapping groups cut the model's input into.
        max_group_pixels: Groups times pixels of the model's input; each takes a byte, several times over.
        max_draws: Draws of a random baseline.
        max_targets: Classes that are explained.
    """

    max_bytes: int = 30_000_000
    max_pixels: int = 50_000_000
    max_side: int = 20_000
    max_steps: int = 1000
    max_samples: int = 20_000
    max_groups: int = 500
    max_runs: int = 5_000_000
    max_parts: int = 65_536
    max_group_pixels: int = 2**30
    max_draws: int = 64
    max_targets: int = 20


@dataclass(frozen=True)
class CaptionLimits:
    """Upper bounds of one request for captions, beside :class:`Limits`; what lies above is answered with 413.

    Attributes:
        max_graphs: Number of graphs.
        max_nodes: Nodes of one graph that the model sees.
        max_beams: Captions that the search follows.
        max_words: Words of a caption, its end sign included.
        max_parsed: Nodes of all graphs together, of which a limit may keep most from the model.
    """

    max_graphs: int = 16
    max_nodes: int = 256
    max_beams: int = 20
    max_words: int = 50
    max_parsed: int = 20_000
