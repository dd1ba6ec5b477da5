"""Tree search for discrete actions: Gumbel MuZero, with the trees of all problems grown side by side."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from worldvae.planning.core import Plan, PlanConfig
from worldvae.planning.discrete import discrete_actions, joint_logits
from worldvae.planning.gumbel import complete_values, considered_visits, gumbel, most_lacking, rescale_values
from worldvae.planning.problems import Problems
from worldvae.planning.risk import dreams_of
from worldvae.planning.simulator import GuideWithLogits
from worldvae.types import Dream, State

TIE_BREAK = 1e-5  # scale of the noise that decides between equals


@dataclass(frozen=True)
class TreeConfig(PlanConfig):
    """Numbers of the planner.

    Attributes:
        horizon: how deep the trees may grow.
        iterations: simulations. Each takes one step in the model and adds one node to the tree of every problem.
        considered: actions that are tried at the root, at most.
        guided: whether the probabilities of the guide are the prior where it has any (`GuideWithLogits`); all actions
            are equally likely if not.
        gumbel: scale of the noise by which the considered actions are drawn from the prior, and which takes part in
            the decision between them; with 0 they are the likeliest, and their logits and values decide. An agent
            that does not explore plans with 0.
        scale: c_scale, by which values outweigh the prior. Where nothing is known of what comes after a leaf
            (`value=False`), a smaller one looks around for longer before it goes into the depth.
        offset: c_visit, the visits that an action seems to have had at the beginning.
    """

    iterations: int = 64
    value: bool = True
    considered: int = 16
    guided: bool = True
    gumbel: float = 1.0
    scale: float = 0.1
    offset: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repeat != 1:
            raise ValueError(f"repeat={self.repeat} is not for a tree, which grows step by step: leave it at 1")
        if self.risk.samples > 1 or self.risk.trust is not None:
            raise ValueError(
                f"risk.samples={self.risk.samples} and risk.trust={self.risk.trust} compare dreams of a problem, and a "
                "tree imagines each step once: of risk it takes disagreement alone"
            )
        if self.considered < 1:
            raise ValueError(f"considered={self.considered} must be at least 1")
        for name in ("gumbel", "scale", "offset"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0, and finite")

    @property
    def breadth(self) -> int:
        """One: a simulation adds one node."""
        return 1


@torch.no_grad()
def tree(problems: Problems, config: TreeConfig) -> Plan:
    """Plan by a tree search that improves on its prior even with few simulations.

    At the root, Sequential Halving between actions that are drawn without replacement from the prior; below it, a
    simulation follows the improved policy softmax(logits + rescaled values) deterministically. Its return is the
    objective of the whole dream from the root to its new node, so the search works for any objective; the beginning
    that all dreams through a node have in common does not change how its actions compare. A dream whose return is NaN
    counts as worse than all others of its problem.

    The plan begins with the action that Sequential Halving selects, goes on along the most visited nodes, and repeats
    after the last of them the action that the prior prefers there. Its value is the mean return of the simulations
    through its first action. The search does not use the previous plan. It samples a random model once for each node:
    distant states are few draws, and the search prefers the lucky ones.

    Raises:
        ValueError: If the actions are not discrete, or too many, or the model is an ensemble of simulators.

    Reference: Danihelka et al. 2022, "Policy Improvement by Planning with Gumbel"; Schrittwieser et al. 2020,
    "Mastering Atari, Go, Chess and Shogi by Planning with a Learned Model".
    """
    if dreams_of(problems.model, config.risk) > 1:
        raise ValueError("a tree imagines each step once, in one model: plan with another planner on an ensemble")
    trees = _Trees(problems, config)
    sequence = considered_visits(min(config.considered, len(trees.actions)), config.iterations)
    for simulation in problems.clock.rounds(config.iterations):
        trees.grow(simulation + 1, sequence[simulation])
    return trees.plan()


class _Trees:
    """One tree for each problem. Node 0 is the start, node i what simulation i - 1 imagined.

    Attributes:
        actions: action vector of every class.
        visits, finite, total: of every class at every node: how many simulations took it, how many of them gave a
            number, and the sum of these returns.
        child: the node that a class leads to, 0 where it leads to none yet.
        choice: the class that the next simulation takes at a node.
        raw: the return of the dream that ends in a node.
    """

    def __init__(self, problems: Problems, config: TreeConfig) -> None:
        self.problems, self.config, draws = problems, config, problems.draws
        guide, device, dtype = problems.guide, draws.device, draws.dtype
        self.prior = guide.logits if config.guided and isinstance(guide, GuideWithLogits) else None
        self.actions = discrete_actions(problems.layout).to(device, dtype)
        batch, nodes, classes = draws.batch, config.iterations + 1, len(self.actions)
        self.rows = torch.arange(batch, device=device).unsqueeze(1)
        self.visits, self.finite, self.total, self.logits = self.actions.new_zeros(4, batch, nodes, classes)
        self.child = self.rows.new_zeros(batch, nodes, classes)
        self.taken, self.choice = self.rows.new_zeros(2, batch, nodes)
        self.raw, self.rewards, self.continuations = self.actions.new_zeros(3, batch, nodes)
        self.states: State = problems.state.map(lambda x: x.new_zeros(batch, nodes, *x.shape[1:]))
        self.low, self.high = self.actions.new_full((batch,), torch.inf), self.actions.new_full((batch,), -torch.inf)
        self.gumbel = config.gumbel * draws.each(
            lambda g: gumbel(torch.rand(classes, device=device, dtype=dtype, generator=g))
        )
        self.ties = TIE_BREAK * draws.uniform(nodes, classes)
        self._add(0, problems.state)
        self.improved = self._improved(torch.zeros_like(self.rows))[0]  # of the nodes that were passed last

    def grow(self, node: int, visited: int) -> None:
        """Add a node to every tree, below a class of the root with `visited` visits."""
        self.choice[:, :1] = self._at_root(visited)
        nodes, on = self._descend()
        classes, last = self.choice.gather(1, nodes), on.sum(dim=1, keepdim=True) - 1
        parent, taken = nodes.gather(1, last), classes.gather(1, last)
        starts = self.states.map(lambda x: x[self.rows, parent].squeeze(1))
        dream = self.problems.imagine(starts, self.actions[taken])
        self.rewards[:, node], self.continuations[:, node] = dream.rewards[:, 0], dream.continuations[:, 0]
        self.taken[:, node] = taken[:, 0]
        self._add(node, dream.states[:, 0])
        steps = torch.arange(nodes.shape[1], device=nodes.device)
        path = torch.where(steps == last, node, nodes.roll(-1, dims=1))
        self.raw[:, node] = self._returns(path, last[:, 0] + 1)
        self.child[self.rows, parent, taken] = node
        self._back_up((self.rows, nodes, classes), on, self.raw[:, node])
        passed = torch.cat([nodes, torch.full_like(last, node)], dim=1)
        self.improved, visits = self._improved(passed)
        self.choice.scatter_(1, passed, most_lacking(self.improved, visits, self.ties[self.rows, passed]))

    def plan(self) -> Plan:
        """Return the plans that the trees have found."""
        taken = self._at_root(self.visits[:, 0].amax(dim=1, keepdim=True))
        number, total = (x[:, 0].gather(1, taken)[:, 0] for x in (self.finite, self.total))
        value = torch.where(number > 0, total / number.clamp(min=1), -torch.inf)
        preferred, node, actions = self._preferred(), torch.zeros_like(taken), [self.actions[taken]]
        for _ in range(self.config.horizon - 1):
            child = self.child[self.rows, node, taken]
            node = torch.where(child > 0, child, node)
            taken = preferred.gather(1, node)
            actions.append(self.actions[taken])
        return Plan(torch.cat(actions, dim=1), value)

    def _add(self, node: int, state: State) -> None:
        new = state.tensors()
        for name, kept in self.states.tensors().items():
            kept[:, node] = new[name]
        if self.prior is not None:
            self.logits[:, node] = joint_logits(self.prior(state), self.actions, self.problems.layout)

    def _descend(self) -> tuple[Int[Tensor, "batch depth"], Bool[Tensor, "batch depth"]]:
        """Return the nodes that a simulation passes, and which of them count: those behind the last are filler."""
        node, on = torch.zeros_like(self.rows), torch.ones_like(self.rows, dtype=torch.bool)
        following = self.child.gather(2, self.choice.unsqueeze(2)).squeeze(2)
        nodes, passed = [node], [on]
        for _ in range(self.config.horizon - 1):
            child = following.gather(1, node)
            on = on & (child > 0)
            if not on.any():
                break
            node = torch.where(on, child, node)
            nodes.append(node)
            passed.append(on)
        return torch.cat(nodes, dim=1), torch.cat(passed, dim=1)

    def _at_root(self, visited: int | Tensor) -> Int[Tensor, "batch 1"]:
        """Return the most promising of the root's classes with `visited` visits."""
        scores = self.improved[:, 0] + self.gumbel + self.ties[:, 0]
        return scores.masked_fill(self.visits[:, 0] != visited, -torch.inf).argmax(dim=1, keepdim=True)

    def _preferred(self) -> Int[Tensor, "batch node"]:
        """Return the most visited class of every node (of equals, the better one); of a leaf, the prior's favourite."""
        improved, visits = self._improved(torch.arange(self.raw.shape[1], device=self.raw.device).expand_as(self.raw))
        less = visits < visits.amax(dim=-1, keepdim=True)
        return (improved + self.ties).masked_fill(less, -torch.inf).argmax(dim=-1)

    def _improved(
        self, nodes: Int[Tensor, "batch depth"]
    ) -> tuple[Float[Tensor, "batch depth class_"], Float[Tensor, "batch depth class_"]]:
        """Return the logits of the improved policy at some nodes, and their visits."""
        every = (self.visits, self.finite, self.total, self.logits)
        visits, finite, total, logits = (x[self.rows, nodes] for x in every)
        worst, raw = self._worst().unsqueeze(1), self.raw.gather(1, nodes)
        values = (total + (visits - finite) * worst.unsqueeze(2)) / visits.clamp(min=1)
        raw = torch.where(raw.isfinite(), raw, worst)
        values = complete_values(values, visits, logits, raw, (nodes > 0).to(raw.dtype))
        return logits + rescale_values(values, visits, self.config.scale, self.config.offset), visits

    def _worst(self) -> Float[Tensor, "batch"]:
        """Return the return that stands for NaN: as far below all others as those are apart."""
        spread = self.high - self.low
        below = self.low - torch.where(spread > 0, spread, self.low.abs().clamp(min=1))
        return torch.where(self.low.isfinite(), below, 0.0)

    def _returns(self, path: Int[Tensor, "batch depth"], length: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """Return the returns of the dreams along paths of different lengths, NaN where there is no number."""
        start, rows, returns = self.problems.state, self.rows, torch.zeros_like(self.low)
        for steps in length.unique().tolist():
            here = path[:, :steps]
            read = here[:, -1:] if self.problems.last_only else here
            states = self.states.map(lambda x, read=read: x[rows, read])  # type: ignore[misc]
            actions, rewards = self.actions[self.taken.gather(1, here)], self.rewards.gather(1, here)
            dream = Dream(start, states, actions, rewards, self.continuations.gather(1, here))
            returns = torch.where(length == steps, self.problems.score(dream)[:, 0], returns)
        bound = torch.finfo(returns.dtype).max / (8 * self.raw.shape[1])  # sums and differences do not overflow
        return torch.where(returns > -torch.inf, returns.clamp(-bound, bound), torch.nan)

    def _back_up(
        self, edges: tuple[Tensor, Tensor, Tensor], on: Bool[Tensor, "batch depth"], returns: Float[Tensor, "batch"]
    ) -> None:
        """Add a simulation to visits and returns of all classes on its path."""
        good = returns.isfinite()
        counted = (on & good.unsqueeze(1)).to(returns.dtype)
        self.visits.index_put_(edges, on.to(returns.dtype), accumulate=True)
        self.finite.index_put_(edges, counted, accumulate=True)
        self.total.index_put_(edges, counted * torch.where(good, returns, 0.0).unsqueeze(1), accumulate=True)
        self.low = torch.where(good, torch.minimum(self.low, returns), self.low)
        self.high = torch.where(good, torch.maximum(self.high, returns), self.high)
