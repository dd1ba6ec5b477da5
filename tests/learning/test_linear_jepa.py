"""A linear joint-embedding model finds what a Kalman filter needs, and nothing of observations that nobody can predict.

The world: a damped rotation s' = A s + B u, of which one coordinate is seen, mixed by an orthogonal matrix with three
entries of white noise of variance 1 (in the world's terms they are noise on the observation, of very unequal
variances). The model: z = W y of two stacked observations y_t = (x_{t-1}, x_t), predicted by z' = F z + G u.

Without noise y_t = O s_{t-1} + (0, C B u_{t-1}), with the observability matrix O = (C, C A). Its column space has two
dimensions of eight, is all of y that can be predicted for long, and should be the row space of W. One step ahead the
noise in x_t can be "predicted", too, because y_{t+1} contains x_t again, and training stays there; so the errors that
count here are those of two and three steps.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from worldvae.exact import LinearGaussian, kalman_filter, random_episodes
from worldvae.objectives.sigreg import random_directions, sigreg
from worldvae.objectives.vicreg import inverse_error, squared_covariance, std_hinge

UPDATES, STEPS, BATCH = 1500, 3, 20


def world_of(generator: torch.Generator) -> LinearGaussian:
    angle, double = 0.7, torch.float64
    turn = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    mixing = torch.linalg.qr(torch.randn(4, 4, dtype=double, generator=generator)).Q
    return LinearGaussian(
        A=0.9 * torch.tensor(turn, dtype=double),
        B=torch.tensor([[0.0], [0.8]], dtype=double),
        C=mixing[:, :1] @ torch.tensor([[1.0, 0.0]], dtype=double),
        Q=0.01 * torch.eye(2, dtype=double),
        R=mixing @ torch.diag(torch.tensor([1e-4, 1.0, 1.0, 1.0], dtype=double)) @ mixing.mT,
        P0=torch.eye(2, dtype=double),
        m0=torch.zeros(2, dtype=double),
    )


def learn(regulariser: str, world: LinearGaussian, generator: torch.Generator) -> nn.Linear:
    encoder, predictor, inverse = nn.Linear(8, 2, bias=False), nn.Linear(3, 2), nn.Linear(4, 1)
    nn.init.normal_(encoder.weight, std=0.3, generator=generator)
    parameters = [*encoder.parameters(), *predictor.parameters(), *inverse.parameters()]
    adam = torch.optim.Adam(parameters, lr=5e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.02, total_iters=UPDATES)
    seen, actions = (part.float() for part in random_episodes(world, 2000, 12, 1.0, generator))
    stacks, actions = torch.cat([seen[:, :-1], seen[:, 1:]], dim=-1), actions[:, 1:]
    for _ in range(UPDATES):
        picked = torch.randint(len(stacks), (BATCH,), generator=generator)
        z, action = encoder(stacks[picked]), actions[picked, :-1]
        loss, ahead = z.new_zeros(()), z
        for k in range(1, STEPS + 1):
            ahead = predictor(torch.cat([ahead[:, :-1], action[:, k - 1 :]], dim=-1))
            if k > 1:  # (the stacks of rows t and t + 1 share an observation)
                loss = loss + (ahead - z[:, k:]).square().mean() / (STEPS - 1)
        rows = z.flatten(0, 1)
        if regulariser == "sigreg":
            loss = loss + 0.09 * sigreg(rows, random_directions(16, 2, generator), knots=9)
        elif regulariser == "vicreg":
            guessed = inverse(torch.cat([z[:, :-1], z[:, 1:]], dim=-1))
            known = torch.ones(action.shape[:2], dtype=torch.bool)
            loss = loss + 1.6 * std_hinge(rows) + 0.8 * squared_covariance(rows) + inverse_error(guessed, action, known)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return encoder


def cosines(encoder: nn.Linear, world: LinearGaussian) -> Tensor:
    """Return the cosines of the principal angles between the row space of W and the column space of O."""
    observability = torch.cat([world.C, world.C @ world.A])
    rows, columns = torch.linalg.qr(encoder.weight.detach().double().mT).Q, torch.linalg.qr(observability).Q
    return torch.linalg.svdvals(rows.mT @ columns)


def explained(encoder: nn.Linear, world: LinearGaussian, generator: torch.Generator) -> tuple[float, Tensor]:
    """Return the R2 of the exact filter's mean in new episodes, and the standard deviations of z.

    The mean is regressed on z_t and u_{t-1}: that action moved the state, and cannot be seen in y_t yet.
    """
    seen, actions = random_episodes(world, 200, 12, 1.0, generator)
    exact = kalman_filter(world, seen, actions).mean[:, 4:].flatten(0, 1)
    with torch.no_grad():
        z = encoder(torch.cat([seen[:, 3:-1], seen[:, 4:]], dim=-1).float()).flatten(0, 1).double()
    known = torch.cat([z, actions[:, 3:-1].flatten(0, 1)], dim=-1)
    missed = (exact - known @ torch.linalg.lstsq(known, exact).solution).square().sum() / exact.square().sum()
    return 1 - float(missed), z.std(dim=0)


@pytest.mark.gate(seconds=20)
@pytest.mark.parametrize("regulariser", ["sigreg", "vicreg"])
def test_the_encoder_reads_the_observability_subspace(regulariser: str, generator: torch.Generator) -> None:
    """All principal cosines are above 0.99, and z says what the exact filter knows (R2 above 0.95)."""
    world = world_of(generator)
    encoder = learn(regulariser, world, generator)
    known, std = explained(encoder, world, generator)
    found = cosines(encoder, world)
    assert float(found.min()) > 0.99, found
    assert known > 0.95 and float(std.min()) > 0.7, (known, std)


@pytest.mark.gate(seconds=10)
def test_without_a_regulariser_it_collapses(generator: torch.Generator) -> None:
    world = world_of(generator)
    _, std = explained(learn("none", world, generator), world, generator)
    assert float(std.max()) < 0.05, std
