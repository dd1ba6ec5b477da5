"""The prior hole: whether inferred and imagined latents have the same distribution."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def mmd(
    x: Float[Tensor, "m feature"], y: Float[Tensor, "n feature"], scales: tuple[float, ...] = (0.5, 1.0, 2.0)
) -> Float[Tensor, ""]:
    """Return the squared maximum mean discrepancy of two samples (unbiased: below 0 at times, if they agree).

    The kernel is a sum of Gaussians whose widths are `scales` times the median distance in the pooled sample.

    Reference: Gretton et al. 2012, "A Kernel Two-Sample Test", equation 3.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"samples of {len(x)} and {len(y)} are too few: two of each are needed")
    pooled = torch.cat([x, y])
    squared = torch.cdist(pooled, pooled).square()
    median = squared[~torch.eye(len(pooled), dtype=torch.bool, device=x.device)].median().clamp(min=1e-12)
    kernel = sum((-squared / (2 * median * scale**2)).exp() for scale in scales)
    assert isinstance(kernel, Tensor)
    m, n = len(x), len(y)
    xx, yy, xy = kernel[:m, :m], kernel[m:, m:], kernel[:m, m:]
    within = (xx.sum() - xx.trace()) / (m * (m - 1)) + (yy.sum() - yy.trace()) / (n * (n - 1))
    return within - 2 * xy.mean()


def log_ratio(
    x: Float[Tensor, "m feature"],
    y: Float[Tensor, "n feature"],
    generator: torch.Generator,
    updates: int = 300,
    hidden: int = 64,
) -> float:
    """Return an estimate of KL(x || y) in nats from a classifier that separates the two samples (kind: estimate).

    The classifier's logit T estimates log x(z)/y(z). On the halves of the samples that it was not trained on, the
    Donsker-Varadhan bound mean_x T - log mean_y exp T is below the KL, up to the error of finite samples. It is 0 if
    the classifier cannot separate the samples. For an aggregated posterior x and a prior y it measures the size of the
    prior's hole; with the memory among the features, that of a conditional prior.

    Reference: Sugiyama et al. 2012, "Density Ratio Estimation in Machine Learning", chapter 4; Rosca et al. 2018,
    "Distribution Matching in Variational Inference"; Belghazi et al. 2018, "MINE", for the bound.
    """
    if min(len(x), len(y)) < 8:
        raise ValueError(f"samples of {len(x)} and {len(y)} are too few: eight of each are needed")
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    (x, x_held), (y, y_held) = (part.chunk(2) for part in ((x - mean) / std, (y - mean) / std))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        # No norms: a log-ratio grows without bound where only one of the samples has mass.
        widths = [(x.shape[1], hidden), (hidden, hidden)]
        layers = [part for width in widths for part in (nn.Linear(*width), nn.SiLU())]
        net = nn.Sequential(*layers, nn.Linear(hidden, 1)).to(x.device)
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    best, ratio = torch.inf, 0.0
    for update in range(updates):
        loss = _loss(net(x), net(y))
        adam.zero_grad()
        loss.backward()
        adam.step()
        if update % 10 == 9:
            with torch.no_grad():
                on_x, on_y = net(x_held), net(y_held)
            held = float(_loss(on_x, on_y))
            if held < best:  # stop the classifier where it generalises best
                best = held
                ratio = float(on_x.mean() - on_y.logsumexp(0) + math.log(len(on_y)))
    return ratio


def _loss(on_x: Tensor, on_y: Tensor) -> Tensor:
    return F.softplus(-on_x).mean() + F.softplus(on_y).mean()
