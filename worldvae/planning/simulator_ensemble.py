"""Several simulators of one world as one: each imagines every candidate, and their differences are the disagreement."""

from collections.abc import Callable, Sequence
from operator import attrgetter

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.risk import spread
from worldvae.planning.simulator import Simulator, Stochastic
from worldvae.types import ActionLayout, Dream, State


class SimulatorEnsemble:
    """Simulators that share their states, such as fits of one system to several samples of data.

    Row i of the rows of a problem is imagined by member i mod M, from the first step to the last (TS-infinity, with
    `risk.samples` particles for each member). As the dreams of a candidate follow one another, each member dreams of
    each candidate; the members of one group of M rows get the same noise, so that only the models differ.

    Args:
        models: at least 2. Those that are random must be `Stochastic`, all of them, and have noise of the same form.
        about: the part of a state whose disagreement counts; default: its features.

    Attributes:
        members: number of simulators.

    Raises:
        ValueError: If there are fewer than 2, or some need noise and others do not.

    Reference: Chua et al. 2018, "Deep Reinforcement Learning in a Handful of Trials using Probabilistic Dynamics
    Models" (PETS), section 5.
    """

    def __init__(self, models: Sequence[Simulator], about: Callable[[State], Tensor] = attrgetter("features")) -> None:
        self.models, self.about, self.members = list(models), about, len(models)
        if self.members < 2:
            raise ValueError(f"an ensemble of {self.members} cannot disagree: give at least 2 simulators")
        if len({isinstance(model, Stochastic) for model in self.models}) > 1:
            raise ValueError(
                "some simulators draw noise beforehand (they are Stochastic) and others do not: do not mix them"
            )
        layout: ActionLayout | None = getattr(self.models[0], "action_layout", None)
        if layout is not None:
            self.action_layout = layout

    def __repr__(self) -> str:
        return f"SimulatorEnsemble({', '.join(type(model).__name__ for model in self.models)})"

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Float[Tensor, "*shape noise"]:
        """Return, for the shape (horizon, batch), the member that imagines each row, and then its noise."""
        horizon, rows = shape
        member = torch.arange(rows).remainder(self.members).to(torch.get_default_dtype())
        member = member.expand(horizon, rows).unsqueeze(-1)
        first = self.models[0]
        if not isinstance(first, Stochastic):
            return member
        groups = -(-rows // self.members)
        drawn = first.noise((horizon, groups), generator).repeat_interleave(self.members, dim=1)[:, :rows]
        return torch.cat([member.to(drawn), drawn], dim=-1)

    def imagine(
        self,
        start: State,
        actions: Float[Tensor, "batch horizon action"],
        horizon: int | None = None,
        generator: torch.Generator | None = None,
        *,
        noise: Float[Tensor, "horizon batch noise"] | None = None,
    ) -> Dream:
        """Roll each row forward in the member that `noise` names for it."""
        if noise is None:
            noise = self.noise((actions.shape[1], len(actions)), generator)
        chosen, dreams, places = noise[0, :, 0], [], []
        for i, model in enumerate(self.models):
            rows = (chosen == i).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            mine = start[rows]
            if isinstance(model, Stochastic):
                dreams.append(model.imagine(mine, actions[rows], noise=noise[:, rows, 1:]))
            else:
                dreams.append(model.imagine(mine, actions[rows]))
            places.append(rows)
        return Dream.cat(dreams, dim=0)[torch.cat(places).argsort()]

    def disagreement(self, states: State) -> Float[Tensor, "*batch"]:
        """Return the standard deviation over the M rows of a group, root-mean-square over the entries of `about`.

        Args:
            states: rows along the first axis, in groups of M: the dreams of one candidate.

        Raises:
            ValueError: If the rows are not groups of M.
        """
        what = self.about(states)
        if len(what) % self.members:
            raise ValueError(f"{len(what)} rows of states are not groups of {self.members}, one for each member")
        apart = spread(what.unflatten(0, (-1, self.members)), dim=1)
        squares = apart.square().mean(dim=-1)
        none = squares == 0
        found = torch.where(none, 1.0, squares).sqrt() * ~none  # (of 0, the root has no gradient)
        return found.repeat_interleave(self.members, dim=0)
