"""Distances along seen states: two latents are far apart if no short chain of seen latents joins them."""

from collections.abc import Callable
from operator import attrgetter

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.goal_objectives import for_candidates
from worldvae.planning.simulator import Objective
from worldvae.types import Dream, State


class Landmarks:
    """A graph of seen latents, each joined to its nearest ones: its paths follow the world.

    The straight line between two latents leads through latents of no frame: it crosses walls, and where the latent
    space is curled, distant places look near. Only short lines can be trusted, and a path is a chain of those.

    Args:
        latents: of seen states.
        neighbours: number of nearest latents to which each is joined.

    Attributes:
        reach: the longest trusted line, the median distance of the last of the neighbours.

    Reference: Tenenbaum, de Silva & Langford 2000, "A Global Geometric Framework for Nonlinear Dimensionality
    Reduction" (Isomap); Eysenbach et al. 2019, "Search on the Replay Buffer", for planning along seen states.
    """

    def __init__(self, latents: Float[Tensor, "landmark latent"], neighbours: int = 8) -> None:
        if len(latents) <= neighbours:
            raise ValueError(f"{len(latents)} landmarks cannot have {neighbours} neighbours each: give more of them")
        self.latents, self.neighbours = latents, neighbours
        apart = torch.cdist(latents, latents).fill_diagonal_(torch.inf)
        lengths, index = apart.topk(neighbours, dim=1, largest=False)
        self.reach = float(lengths[:, -1].median())
        joined = torch.full_like(apart, torch.inf).scatter_(1, index, lengths)
        joined = torch.minimum(joined, joined.T)
        most = int((joined < torch.inf).sum(dim=1).max())
        self._lengths, self._ends = joined.topk(most, dim=1, largest=False)

    def __repr__(self) -> str:
        return f"Landmarks({len(self.latents)}, {self.neighbours} neighbours, reach={self.reach:.2f})"

    def ways(self, goal: Float[Tensor, "goal latent"]) -> Float[Tensor, "goal landmark"]:
        """Return the length of the shortest path from every landmark to each goal, infinity if there is none."""
        near, index = torch.cdist(goal, self.latents).topk(self.neighbours, dim=1, largest=False)
        ways = torch.full((len(goal), len(self.latents)), torch.inf, device=goal.device).scatter_(1, index, near)
        for _ in range(len(self.latents)):  # Bellman & Ford; a shortest path visits no landmark twice
            through = (ways[:, self._ends] + self._lengths).amin(dim=2)
            if bool((through >= ways).all()):
                break
            ways = torch.minimum(ways, through)
        return ways

    def nearest(self, latents: Float[Tensor, "row latent"]) -> Tensor:
        """Return the number of the landmark that is nearest, for each row."""
        return torch.cdist(latents, self.latents).argmin(dim=1)


def geodesic_distance(
    landmarks: Landmarks,
    goal: Float[Tensor, "goal latent"],
    about: Callable[[State], Tensor] = attrgetter("features"),
) -> Objective:
    """Return the objective -sum_k d(z_k, z_goal), of dreams of the same number of candidates for each goal.

    z is `about` of a state, by default its features. Within reach of the goal d is the straight line; elsewhere it is
    the way from the nearest landmark, and where there is none it is twice the longest.
    """
    ways = landmarks.ways(goal)
    longest = ways.where(ways < torch.inf, ways.new_zeros(())).amax(dim=1, keepdim=True)
    ways = torch.minimum(ways, 2 * longest).clamp(min=landmarks.reach)

    def objective(dream: Dream) -> Float[Tensor, "batch"]:
        latent = about(dream.states)
        rows, steps, _ = latent.shape
        straight = (latent - for_candidates(goal, rows).unsqueeze(1)).norm(dim=-1)
        nearest = landmarks.nearest(latent.detach().flatten(0, 1)).view(rows, steps)
        along = for_candidates(ways, rows).gather(1, nearest)
        total: Tensor = -torch.where(straight < landmarks.reach, straight, along).sum(dim=1)
        return total

    return objective
