"""Reward and value models: a score is read where it is asked for, and a saved head scores the same."""

import pytest
import torch
from tiny import tiny_gpt, tiny_gpt2, tiny_reward_model

from align import sections
from align.errors import UserError
from align.models.scalar import HEAD_FILE, ScalarModel, load_scalar_model

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 0, 0]])
IS_READ = torch.tensor([[False, False, True, False, False, True], [False, False, False, True, False, False]])


@pytest.fixture(params=["ours", "gpt2"])
def model(request, tokenizer) -> ScalarModel:
    trunk = tiny_gpt(tokenizer).transformer if request.param == "ours" else tiny_gpt2(tokenizer).transformer
    return ScalarModel(trunk).eval()


@torch.no_grad()
def test_a_score_is_the_head_on_the_hidden_state_of_the_read_token(model):
    model.shift += 0.5
    hidden = model.trunk(IDS).last_hidden_state
    expected = [float(hidden[row, time] @ model.head.weight[0]) - 0.5 for row, time in ((0, 2), (0, 5), (1, 3))]
    assert model(IDS, IS_READ).tolist() == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_what_follows_the_read_token_changes_nothing(model):
    changed = IDS.clone()
    changed[1, 4:] = 20
    assert model(changed, IS_READ)[2] == pytest.approx(float(model(IDS, IS_READ)[2]), abs=1e-6)


def test_a_fresh_head_has_the_published_spread(tokenizer):
    trunk = tiny_gpt(tokenizer).transformer
    heads = torch.cat([ScalarModel(trunk).head.weight for _ in range(20)])
    assert float(heads.detach().std()) == pytest.approx((32 + 1) ** -0.5, rel=0.1)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saving_and_loading_gives_equal_scores(tokenizer, tmp_path, dtype):
    model = tiny_reward_model(tokenizer)
    model.save(tmp_path)
    again = load_scalar_model(sections.Model(path=str(tmp_path)), dtype).eval()
    assert torch.equal(again.head.weight, model.head.weight)
    assert again.head.weight.dtype == torch.float32
    assert float(again.shift) == 0.25
    if dtype == torch.float32:
        assert torch.equal(again(IDS, IS_READ), model(IDS, IS_READ))
    else:
        torch.testing.assert_close(again(IDS, IS_READ), model(IDS, IS_READ), atol=0.2, rtol=0.05)


def test_a_folder_without_a_head_is_no_reward_model(world):
    with pytest.raises(UserError, match=rf"no {HEAD_FILE} there, so this is no reward model; train one"):
        load_scalar_model(sections.Model(path=world.base))
    with pytest.raises(UserError, match=f"no {HEAD_FILE}"):
        load_scalar_model(sections.Model(path=world.reward)).load_head(world.base)


def test_a_head_of_another_width_is_refused(tokenizer, world):
    narrow = tiny_reward_model(tokenizer, n_embd=16)
    with pytest.raises(UserError, match=r"the head is \(1, 32\), the trunk beside it needs \(1, 16\)"):
        narrow.load_head(world.reward)


def test_the_shift_is_a_number_beside_the_weights_and_not_trained(model):
    assert "shift" not in dict(model.named_parameters())
    assert {"head.weight", "head.bias"} < dict(model.named_parameters()).keys()
