"""The leash: what a nat of KL costs, batch by batch."""

import math

import pytest
import torch

from align.rl.kl import AdaptiveKL, FixedKL, full_kl, kl_estimate


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


def test_estimators_by_hand():
    logp, logq = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    assert kl_estimate(logp, logq, "k1").tolist() == pytest.approx([0.5, -1.0])
    assert kl_estimate(logp, logq, "k2").tolist() == pytest.approx([0.125, 0.5])
    assert kl_estimate(logp, logq, "k3").tolist() == pytest.approx([math.exp(-0.5) - 0.5, math.e - 2.0])
    assert all(kl_estimate(logp, logp, estimator).tolist() == [0, 0] for estimator in ("k1", "k2", "k3"))  # padding
    with pytest.raises(ValueError, match="unknown KL estimator 'k9'"):
        kl_estimate(logp, logq, "k9")


def test_k1_and_k3_average_to_kl_and_full_is_kl():
    generator = torch.Generator().manual_seed(1)
    logits, others = torch.randn(2, 50, generator=generator, dtype=torch.float64).unbind(0)
    logp, logq = logits.log_softmax(0), others.log_softmax(0)
    exact = float((logp.exp() * (logp - logq)).sum())
    for estimator in ("k1", "k3"):
        assert float((logp.exp() * kl_estimate(logp, logq, estimator)).sum()) == pytest.approx(exact)
    assert full_kl(logits[None].float(), others[None].float()).tolist() == pytest.approx([exact], rel=1e-5)


def test_full_kl_leaves_out_what_can_never_be_said():
    logits, others = torch.tensor([[0.0, 1.0, -math.inf]]), torch.tensor([[0.5, 0.2, -math.inf]])
    assert full_kl(logits, others).tolist() == pytest.approx(full_kl(logits[:, :2], others[:, :2]).tolist())
    logits.requires_grad_()
    full_kl(logits, others).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_the_gradient_of_k2_is_that_of_kl():
    """In expectation under the policy itself (Schulman 2020)."""
    logits = torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    others = torch.randn(9, generator=torch.Generator().manual_seed(3), dtype=torch.float64).log_softmax(0)
    logp = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((logp.exp() * (logp - others)).sum(), logits, retain_graph=True)
    (estimate,) = torch.autograd.grad((logp.exp().detach() * kl_estimate(logp, others, "k2")).sum(), logits)
    torch.testing.assert_close(estimate, exact)
