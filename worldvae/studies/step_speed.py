"""What an imagined step and an update cost: milliseconds, network calls and floating-point operations."""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from worldvae.bench.timing import flops, median_seconds
from worldvae.models.world_model import WorldModel
from worldvae.types import Batch, State


@dataclass(frozen=True)
class StepSpeed:
    """The cost of encoding and imagining on this machine.

    Attributes:
        encode_ms: milliseconds to encode a batch of observations.
        encoded: observations in that batch.
        step_ms: milliseconds of one imagined step of a single future.
        steps_per_second: imagined steps with several futures side by side, rewards and continuations included.
        decoded_per_second: the same with every state decoded; None if the model decodes nothing.
        futures: futures side by side.
        calls: calls of the most used network in one step.
        flops: operations of matrix products and convolutions in one imagined step of one future.
    """

    encode_ms: float
    encoded: int
    step_ms: float
    steps_per_second: float
    decoded_per_second: float | None
    futures: int
    calls: int
    flops: float


def step_speed(
    model: WorldModel,
    rows: Batch,
    generator: torch.Generator,
    futures: int = 64,
    horizon: int = 4,
    budget: float = 1.0,
) -> StepSpeed:
    """Measure a model as it is.

    Args:
        model: the world model.
        rows: whole rows of episodes `[episode, time]`: what is encoded, and where dreams start.
        generator: source of noise, on the model's device.
        futures: futures side by side, as many as a planner has candidates.
        horizon: steps of each.
        budget: seconds for each of the durations, of which there are four.
    """
    rows = rows.to(model.device)
    with torch.no_grad():
        last = model.observe(rows, mode=True).posterior[:, -1]
    frames, size = rows.observation.flatten(), model.action_layout.size
    seconds = partial(median_seconds, device=model.device, budget=budget)

    def imagine(number: int, *, decode: bool = False) -> Callable[[], None]:
        start = last[torch.arange(number, device=model.device) % last.size]
        actions = torch.zeros(number, horizon, size, device=model.device)

        @torch.no_grad()
        def work() -> None:
            dream = model.imagine(start, actions, generator=generator, last_only=not decode)
            if decode:
                _ = model.decode(dream.states).mean

        return work

    single, many = imagine(1), imagine(futures)
    total = futures * horizon
    return StepSpeed(
        1e3 * seconds(torch.no_grad()(partial(model.encode, frames))),
        rows.reward.numel(),
        1e3 * seconds(single) / horizon,
        total / seconds(many),
        total / seconds(imagine(futures, decode=True)) if model.shows else None,
        futures,
        calls_per_step(model, last[:1], generator),
        flops(many) / total,
    )


def calls_per_step(model: WorldModel, start: State, generator: torch.Generator) -> int:
    """Return how often one imagined step calls a network.

    A model may say so by an attribute `calls_per_step`. Of others the calls of every module with weights of its own
    are counted, and the largest number is taken: a denoiser's layers are called once for each of its steps.

    Args:
        model: the world model.
        start: one state, `[1]`.
        generator: source of noise, on the model's device.
    """
    said = getattr(model, "calls_per_step", None)
    if isinstance(said, int):
        return said
    if not isinstance(model, nn.Module):
        return 1
    counted: Counter[int] = Counter()

    def count(module: nn.Module, *_: Any) -> None:
        counted[id(module)] += 1

    own = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    hooks = [module.register_forward_pre_hook(count) for module in own]
    try:
        with torch.no_grad():
            actions = torch.zeros(1, 1, model.action_layout.size, device=model.device)
            model.imagine(start, actions, generator=generator)
    finally:
        for hook in hooks:
            hook.remove()
    return max(counted.values(), default=1)


def training_flops(model: WorldModel, batch: Batch, generator: torch.Generator) -> int:
    """Return the operations of matrix products and convolutions in one update on a batch; the model stays unchanged.

    The optimiser's own operations are element by element, and not counted.
    """
    model = copy.deepcopy(model)  # (its loss may advance a generator of the model's own)
    batch = batch.to(model.device)
    return flops(lambda: model.loss(batch, generator).value.backward())
