"""The leash: what a nat of KL costs, batch by batch."""

import pytest

from align.rl.kl import AdaptiveKL, FixedKL


def after(kl: float, n_episodes: int) -> float:
    """The factor by which one batch changes the coefficient, with lm-human-preferences' horizon."""
    controller = AdaptiveKL(0.15, target=6.0, horizon=10000)
    controller.update(kl, n_episodes)
    return controller.coefficient / 0.15


def test_a_fixed_coefficient_stays():
    controller = FixedKL(0.05)
    controller.update(100.0, 512)
    assert controller.coefficient == 0.05


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(12.0, 1.01024), (0.0, 0.98976), (6.0, 1.0), (6.6, 1.00512), (1000.0, 1.01024), (-50.0, 0.98976)],
)
def test_the_coefficient_follows_the_clipped_error(kl, factor):
    assert after(kl, 512) == pytest.approx(factor, abs=1e-9)


def test_an_error_counts_for_each_episode():
    assert after(12.0, 1000) == pytest.approx(1.02)


def test_the_coefficient_is_carried_over_to_a_resumed_run():
    before, resumed = AdaptiveKL(0.15, 6.0, 10000), AdaptiveKL(0.15, 6.0, 10000)
    before.update(12.0, 512)
    resumed.load_state_dict(before.state_dict())
    assert resumed.coefficient == before.coefficient != 0.15
