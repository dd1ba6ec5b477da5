"""Two samples of one distribution show no hole; a real hole is found and has the right size."""

import pytest
import torch

from worldvae.diagnostics import log_ratio, mmd


def test_mmd_is_zero_on_average_for_equal_distributions_and_positive_for_others() -> None:
    alike, apart = [], []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(100, 2, generator=generator) for _ in range(2))
        alike.append(float(mmd(x, y)))
        apart.append(float(mmd(x, y + 1)))
    alike, apart = torch.tensor(alike), torch.tensor(apart)
    assert abs(alike.mean()) < 4 * alike.std() / 20**0.5
    assert apart.min() > 0.05


def test_mmd_is_the_definition_written_out(generator: torch.Generator) -> None:
    x, y = torch.randn(4, 2, generator=generator), torch.randn(3, 2, generator=generator)
    pooled = torch.cat([x, y])
    median = torch.stack([(a - b).square().sum() for i, a in enumerate(pooled) for j, b in enumerate(pooled) if i != j])
    width = 2 * median.median()

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((-(a - b).square().sum() / width).exp())

    xx = sum(k(x[i], x[j]) for i in range(4) for j in range(4) if i != j) / 12
    yy = sum(k(y[i], y[j]) for i in range(3) for j in range(3) if i != j) / 6
    xy = sum(k(a, b) for a in x for b in y) / 12
    assert float(mmd(x, y, (1.0,))) == pytest.approx(xx + yy - 2 * xy, abs=1e-5)


def test_the_log_ratio_is_that_of_the_densities(generator: torch.Generator) -> None:
    """N(1, 1) against N(0, 1): the mean of log x(z) / y(z) over x is their KL, 1/2 a nat."""
    x, y = (torch.randn(4000, 1, generator=generator) for _ in range(2))
    assert abs(log_ratio(x, y, generator)) < 0.05
    assert log_ratio(x + 1, y, generator) == pytest.approx(0.5, abs=0.1)


def test_too_few_rows_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="samples of 1 and 5 are too few"):
        mmd(torch.zeros(1, 2), torch.zeros(5, 2))
    with pytest.raises(ValueError, match="samples of 7 and 50 are too few"):
        log_ratio(torch.zeros(7, 2), torch.zeros(50, 2), generator)
