"""Reward and value models: a score is read where it is asked for, and a saved head scores the same."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_gpt, tiny_gpt2, tiny_reward_model

from align import sections
from align.errors import UserError
from align.models.purpose import HEAD_FILE
from align.models.save import save_reward_model
from align.models.scalar import ScalarModel, load_scalar_model, score_all, score_members

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
    with pytest.raises(UserError, match=rf"no {HEAD_FILE} there, so this is not a reward model; train one"):
        load_scalar_model(sections.Model(path=world.base))
    with pytest.raises(UserError, match=f"no {HEAD_FILE}"):
        load_scalar_model(sections.Model(path=world.reward)).load_head(world.base)


def test_a_head_of_another_width_is_refused(tokenizer, world):
    narrow = tiny_reward_model(tokenizer, n_embd=16)
    with pytest.raises(UserError, match=r"the head has shape \(1, 32\), but the trunk needs \(1, 16\)"):
        narrow.load_head(world.reward)


ANSWERS = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]


def ensemble(tokenizer, heads: int = 3) -> ScalarModel:
    torch.manual_seed(4)
    model = ScalarModel(tiny_gpt(tokenizer).transformer, heads).eval()
    model.shift += torch.arange(heads) * 0.5
    model.scale *= torch.arange(heads) + 1.0
    return model


@torch.no_grad()
def test_an_ensemble_gives_every_member_s_score(tokenizer):
    model = ensemble(tokenizer)
    found = model(IDS, IS_READ)
    assert found.shape == (3, 3)  # (n_read, heads)
    hidden = model.trunk(IDS).last_hidden_state[IS_READ]
    expected = (hidden @ model.head.weight.T - torch.tensor([0.0, 0.5, 1.0])) / torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model.head.weight[0], model.head.weight[1])  # they begin apart


def test_the_score_of_an_ensemble_is_its_members_mean(tokenizer):
    model = ensemble(tokenizer)
    members = score_members(model, ANSWERS, 8192, "cpu")
    assert [len(row) for row in members] == [3, 3, 3]
    assert score_all(model, ANSWERS, 8192, "cpu") == pytest.approx([sum(row) / 3 for row in members])
    alone = tiny_reward_model(tokenizer)
    assert [row[0] for row in score_members(alone, ANSWERS, 8192, "cpu")] == score_all(alone, ANSWERS, 8192, "cpu")


def test_the_members_mean_is_a_model_with_one_head(tokenizer):
    model = ensemble(tokenizer)
    one = model.averaged()
    assert one.heads == 1
    assert one(IDS, IS_READ).shape == (3,)
    assert score_all(one, ANSWERS, 8192, "cpu") == pytest.approx(score_all(model, ANSWERS, 8192, "cpu"), abs=1e-6)
    alone = tiny_reward_model(tokenizer)
    assert alone.averaged() is alone


def test_an_ensemble_is_saved_and_loaded_whole(tokenizer, tmp_path):
    model = ensemble(tokenizer)
    model.save(tmp_path)
    again = load_scalar_model(sections.Model(path=str(tmp_path))).eval()
    assert score_members(again, ANSWERS, 8192, "cpu") == score_members(model, ANSWERS, 8192, "cpu")


@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_normalised_scores_have_mean_0_and_perhaps_variance_1(tokenizer, heads, variance):
    model = tiny_reward_model(tokenizer) if heads == 1 else ensemble(tokenizer)
    before = torch.tensor(score_members(model, ANSWERS, 8192, "cpu")).double()
    model.normalize(before[:, 0] if heads == 1 else before, variance)
    after = torch.tensor(score_members(model, ANSWERS, 8192, "cpu")).double()
    spread = before.std(0, correction=0) if variance else torch.ones(heads)
    torch.testing.assert_close(after, (before - before.mean(0)) / spread, atol=1e-5, rtol=1e-5)


def test_scores_that_are_all_alike_cannot_be_scaled(tokenizer):
    with pytest.raises(UserError, match="scores all samples alike"):
        tiny_reward_model(tokenizer).normalize(torch.ones(4), variance=True)


def broken_head(world, tmp_path, **changes) -> sections.Model:
    folder = tmp_path / "broken"
    model = tiny_reward_model_of(world)
    model.trunk.save_pretrained(folder)
    tensors = {**load_file(f"{world.reward}/{HEAD_FILE}"), **changes}
    save_file({name: value for name, value in tensors.items() if value is not None}, folder / HEAD_FILE)
    return sections.Model(path=str(folder))


def tiny_reward_model_of(world) -> ScalarModel:
    return load_scalar_model(sections.Model(path=world.reward))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weight": None}, "the head has no weight, so it cannot score; train one with"),
        ({"bias": None, "scale": None}, "the head has no bias and no scale"),
        ({"weight": torch.full((1, 32), float("nan"))}, "the score head is not finite"),
        ({"shift": torch.tensor(float("inf"))}, "shift is inf, which is not finite"),
    ],
)
def test_a_head_that_cannot_score_is_refused_at_load(world, tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        load_scalar_model(broken_head(world, tmp_path, **changes))


def test_a_head_that_was_never_trained_is_refused_at_load(world, tmp_path):
    drawn = load_file(f"{world.reward}/{HEAD_FILE}")["weight"]
    with pytest.raises(UserError, match="still has its random initial weight, so it was not trained"):
        load_scalar_model(broken_head(world, tmp_path, initial=drawn))
    load_scalar_model(broken_head(world, tmp_path, initial=drawn + 1e-6))


def test_a_file_that_is_no_head_is_refused(world, tmp_path):
    path = broken_head(world, tmp_path).path
    (tmp_path / "broken" / HEAD_FILE).write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        load_scalar_model(sections.Model(path=path))


def test_a_trunk_with_missing_weights_is_refused(world, tmp_path):
    model = broken_head(world, tmp_path)
    file = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(file)
    save_file({name: value for name, value in tensors.items() if "ln_f" not in name}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"its files lack 2 of the weights .*ln_f.*would be random"):
        load_scalar_model(model)


def test_a_head_that_cannot_score_is_refused_at_save(tokenizer, tmp_path):
    base = sections.Model(path="unused")
    model = tiny_reward_model(tokenizer)
    with pytest.raises(UserError, match="still has its random initial weight, so it was not trained"):
        save_reward_model(model, base, tokenizer, tmp_path, initial=model.head.weight.detach().clone())
    model.head.weight.requires_grad_(False)
    with pytest.raises(UserError, match="the score head is frozen"):
        save_reward_model(model, base, tokenizer, tmp_path)
    model.head.weight.requires_grad_(True)
    with torch.no_grad():
        model.head.weight[0, 3] = float("inf")
    with pytest.raises(UserError, match="the score head is not finite"):
        save_reward_model(model, base, tokenizer, tmp_path)
    assert not (tmp_path / "model").exists()


def test_one_member_that_was_not_trained_is_enough_to_refuse(tokenizer, tmp_path):
    model = ensemble(tokenizer)
    initial = model.head.weight.detach().clone()
    with torch.no_grad():
        model.head.weight[:2] += 0.1
    with pytest.raises(UserError, match="still has its random initial weight"):
        save_reward_model(model, sections.Model(path="unused"), tokenizer, tmp_path, initial, "fp32")


def test_a_saved_reward_model_remembers_how_its_head_began(tokenizer, tmp_path):
    model = ensemble(tokenizer)
    initial = model.head.weight.detach().clone()
    with torch.no_grad():
        model.head.weight += 0.1
    save_reward_model(model, sections.Model(path="unused"), tokenizer, tmp_path, initial, "fp32")
    tensors = load_file(tmp_path / "model" / HEAD_FILE)
    assert torch.equal(tensors["initial"], initial / torch.tensor([[1.0], [2.0], [3.0]]))
    save_file({**tensors, "weight": tensors["initial"].clone()}, tmp_path / "model" / HEAD_FILE)
    with pytest.raises(UserError, match="still has its random initial weight"):
        load_scalar_model(sections.Model(path=str(tmp_path / "model")))


def test_the_shift_is_a_number_beside_the_weights_and_not_trained(model):
    assert not {"shift", "scale"} & dict(model.named_parameters()).keys()
    assert {"head.weight", "head.bias"} < dict(model.named_parameters()).keys()
