"""Captions of a captioner for some items, and their scores, by which the best epoch is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from imagexplain.models.captioners.captioner import Captioner, losses
from training.captioning.items import batch_of
from training.captioning.n_best import best, chunks, n_best
from training.captioning.scores import BLEU, CIDER, caption_scores
from training.captioning.sources import Items
from training.captioning.vocabulary import Vocabulary


@dataclass(frozen=True)
class Validation:
    """The result on a set of items.

    Attributes:
        loss: Mean cross-entropy of their captions' words, teacher-forced.
        bleu4: BLEU-4 of the greedy captions, 0 … 1.
        cider: CIDEr-D of the greedy captions, 0 … 10.
    """

    loss: float
    bleu4: float
    cider: float


def captions_for(
    model: Captioner, items: Items, vocabulary: Vocabulary, batch: int = 128, beam: int = 1
) -> dict[str, str]:
    """The best caption that a captioner, in ``eval()``, finds for each item, by its key.

    Args:
        model: Captioner.
        items: Items, of different keys.
        vocabulary: Words of the captioner.
        batch: Number of items at once.
        beam: Width of the search; 1 is greedy.
    """
    return best(n_best(model, items, vocabulary, batch, beam))


@torch.no_grad()
def validate(model: Captioner, items: Items, vocabulary: Vocabulary, batch: int = 128) -> Validation:
    """Score a captioner, in ``eval()`` meanwhile, on items of different keys."""
    training = model.training
    model.eval()
    total, words = 0.0, 0
    references: dict[str, tuple[str, ...]] = {}
    for chunk in chunks(items, batch):
        given = batch_of(chunk, vocabulary)
        mask = given.mask[:, 1:]
        mean, _ = losses(
            model(given.nodes, given.image, given.graph, given.words[:, :-1]).logits, given.words[:, 1:], mask
        )
        total, words = total + float(mean) * int(mask.sum()), words + int(mask.sum())
        references |= {item.key: item.references for item in chunk}
    scores = caption_scores(captions_for(model, items, vocabulary, batch), references)
    model.train(training)
    return Validation(total / words, scores.mean[BLEU[3]], scores.mean[CIDER])
