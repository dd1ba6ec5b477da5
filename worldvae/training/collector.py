"""Collects experience: steps environments with an agent and writes every row to the replay, in the row convention."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worldvae.agents import Agent, Carry
from worldvae.data.replay import Replay
from worldvae.envs import EnvPool
from worldvae.planning import Plan
from worldvae.seeds import episode_seed
from worldvae.types import Batch, Observation, State, TensorTree


@dataclass(frozen=True)
class Finished:
    """An episode that has ended: its return and its number of decisions."""

    ret: float
    length: int


class Collector:
    """Steps a pool and keeps the rows that are still waiting for their action.

    Row t is written once the action a_t taken at it is known; the last row of an episode is written with a zero action.
    Each episode is reset with a seed of its own, drawn from (seed, lane, episode), so that a run can be resumed in
    the middle of an episode by replaying its actions.

    Args:
        pool: the environments, one replay lane each.
        replay: where rows go.
        seed: of the run.
    """

    def __init__(self, pool: EnvPool, replay: Replay, seed: int) -> None:
        self.pool, self.replay, self.seed = pool, replay, seed
        self.episodes = [0] * len(pool)
        self.carry: Carry | None = None
        self._actions: list[list[Tensor]] = [[] for _ in range(len(pool))]
        self._returns = torch.zeros(len(pool))
        self._begin(pool.reset(self._seeds()))

    def _begin(self, observation: Observation) -> None:
        lanes = len(self.pool)
        none = torch.zeros(lanes, dtype=torch.bool)
        self._row = Batch(
            observation, torch.zeros(lanes, self.pool.action_layout.size), torch.zeros(lanes), none, ~none
        )

    def _seeds(self) -> list[int]:
        return [episode_seed(self.seed, lane, n) for lane, n in enumerate(self.episodes)]

    def step(self, agent: Agent, generator: torch.Generator) -> list[Finished]:
        """Take one decision in every environment; return the episodes that ended with it."""
        self.begin(agent, generator)
        return self.finish()

    def begin(self, agent: Agent, generator: torch.Generator) -> None:
        """Decide in every environment, let it play, and write the rows that are complete with the decision."""
        row = self._row
        action, self.carry = agent.act(row.observation, row.is_first, self.carry, generator, explore=True)
        action = action.cpu()
        self.pool.send(action)
        lanes = range(len(self.pool))
        self.replay.append(list(lanes), Batch(row.observation, action, row.reward, row.termination, row.is_first))
        for lane in lanes:
            self._actions[lane].append(action[lane])

    def finish(self) -> list[Finished]:
        """Wait for the environments; return the episodes that ended with their step."""
        row, step = self._row, self.pool.receive()
        self._returns += step.reward
        first = torch.zeros_like(row.is_first)
        self._row = Batch(step.observation, row.action, step.reward, step.terminated, first)
        return self._end(step.done) if bool(step.done.any()) else []

    def _end(self, done: Tensor) -> list[Finished]:
        """Write the last rows of the episodes that are done, and begin new ones in their lanes."""
        ended = done.nonzero().flatten().tolist()
        self.replay.append(ended, self._row[done])
        finished = [Finished(float(self._returns[lane]), len(self._actions[lane])) for lane in ended]
        for lane in ended:
            self._forget(lane)
        observation = self.pool.reset(self._seeds(), done)
        reward = self._row.reward.masked_fill(done, 0.0)
        self._row = Batch(observation, self._row.action, reward, self._row.termination & ~done, done)
        return finished

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which `load_state_dict` goes on in the middle of the episodes."""
        empty = torch.zeros(0, self.pool.action_layout.size)
        return {
            "episodes": list(self.episodes),
            "actions": [torch.stack(actions) if actions else empty for actions in self._actions],
            "returns": self._returns,
            "carry": _pack(self.carry),
            "observation": vars(self._row.observation),
        }

    def abandon(self) -> None:
        """Abandon the unfinished episodes, so that a run saved now is resumed with new ones."""
        self.carry = None
        for lane in range(len(self.pool)):
            self._forget(lane)

    def _forget(self, lane: int) -> None:
        self.episodes[lane] += 1
        self._actions[lane] = []
        self._returns[lane] = 0.0

    def load_state_dict(self, state: dict[str, Any], kind: type[State]) -> None:
        """Go on from `state_dict`: replay the actions of the unfinished episodes and compare the observations.

        The episodes of environments that are not deterministic given seed and actions cannot be restored: they are cut
        off with a warning, and new ones begin.

        Args:
            state: returned by `state_dict`.
            kind: type of the states of the agent's model.
        """
        self.episodes = list(state["episodes"])
        self._begin(self.pool.reset(self._seeds()))
        broken = self._replay(state["actions"]) | self._differs(Observation(**state["observation"]))
        self._returns = state["returns"].clone()
        self.carry = _unpack(state["carry"], kind)
        if bool(broken.any()):
            warnings.warn(
                f"{self.pool.id} is not deterministic given seed and actions: {int(broken.sum())} unfinished "
                "episodes were cut off and begin anew",
                stacklevel=2,
            )
            for lane in broken.nonzero().flatten().tolist():
                self._forget(lane)
            observation = self.pool.reset(self._seeds(), broken)
            keep = ~broken
            self._row = Batch(
                observation,
                self._row.action,
                self._row.reward * keep,
                self._row.termination & keep,
                self._row.is_first | broken,
            )

    def _replay(self, actions: list[Tensor]) -> Tensor:
        """Play recorded actions and return the lanes whose episode now ended too early."""
        lanes = len(self.pool)
        broken = torch.zeros(lanes, dtype=torch.bool)
        self._actions = [list(past) for past in actions]
        lengths = torch.tensor([len(past) for past in actions])
        for t in range(int(lengths.max())):
            active = (lengths > t) & ~broken
            rows = [past[t] if t < len(past) else torch.zeros(past.shape[1]) for past in actions]
            step = self.pool.step(torch.stack(rows), active)
            mine = active.view(-1)
            self._row = Batch(
                step.observation,
                self._row.action,
                torch.where(mine, step.reward, self._row.reward),
                torch.where(mine, step.terminated, self._row.termination),
                self._row.is_first & ~mine,
            )
            broken |= step.done & active
        return broken

    def _differs(self, before: Observation) -> Tensor:
        """Return the lanes that have taken actions and whose observation differs from the recorded one."""
        played = torch.tensor([len(actions) > 0 for actions in self._actions])
        differs = torch.zeros_like(played)
        now = self._row.observation
        for old, new in ((before.pixels, now.pixels), (before.vector, now.vector)):
            if old is not None and new is not None:
                differs |= (old != new).flatten(1).any(dim=1)
        return differs & played


def without_unfinished(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a collector (`Collector.state_dict`) that goes on with fresh episodes."""
    return state | {
        "episodes": [number + 1 for number in state["episodes"]],
        "actions": [past[:0] for past in state["actions"]],
        "returns": torch.zeros_like(state["returns"]),
        "carry": None,
    }


def _pack(carry: Carry | None) -> dict[str, Any] | None:
    if carry is None:
        return None
    return {"action": carry.action, "state": _tensors(carry.state), "plan": _tensors(carry.plan)}


def _tensors(tree: TensorTree | None) -> dict[str, Tensor] | None:
    return None if tree is None else tree.tensors()


def _unpack(packed: dict[str, Any] | None, kind: type[State]) -> Carry | None:
    if packed is None:
        return None
    state = None if packed["state"] is None else kind.from_tensors(packed["state"])
    plan = None if packed["plan"] is None else Plan.from_tensors(packed["plan"])
    return Carry(packed["action"], state, plan)
