"""The reward model's stage: every variant trains, and what it leaves scores as it did in training."""

import json
from pathlib import Path

import pytest
import torch
from helpers import assert_same_bits, metrics, recipe_of, run
from tiny import write_rows
from transformers import AutoModelForSequenceClassification

from align import rm, sections
from align.errors import UserError
from align.models.scalar import load_scalar_model, score_all, score_members
from align.text.batches import pad_right
from align.text.load import load
from align.text.tokenizer import load_tokenizer


def annotated(world, folder: Path) -> str:
    """The tiny world's rankings with ties, annotators, sources and margins."""
    rows = [json.loads(line) for line in Path(world.rankings).read_text().splitlines()]
    for number, row in enumerate(rows):
        row |= {"annotator": ("ann", "bob")[number % 2], "source": ("easy", "hard")[number % 3 == 0], "margin": number}
        if number % 4 == 0:
            row["ranks"] = [1] * len(row["ranks"])
    return write_rows(folder / "annotated.jsonl", rows)


VARIANTS = {
    "ties": {"loss__ties": "half"},
    "margins": {"loss__margin": "given", "loss__margin_scale": 0.1},
    "margins by rank": {"loss__margin": "ranks"},
    "smoothing": {"loss__label_smoothing": 0.1},
    "centering": {"loss__centering": 0.1},
    "weights": {"loss__annotator_weights": {"ann": 0.5}},
    "ensemble": {"heads": 3},
}


def losses(folder: Path) -> list[float]:
    return [row["loss/train"] for row in metrics(folder)]


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory) -> Path:
    """A run on the annotated rankings without a variant, beside its data."""
    folder = tmp_path_factory.mktemp("plain")
    return run(rm, world, folder / "run", data__path=annotated(world, folder))


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_trains_and_changes_what_is_learned(world, plain, tmp_path, changes):
    folder = run(rm, world, tmp_path / "run", data__path=str(plain.parent / "annotated.jsonl"), **changes)
    assert losses(folder) != losses(plain)
    assert load_scalar_model(sections.Model(path=str(folder / "model"))).heads == changes.get("heads", 1)


@pytest.mark.parametrize("normalize", ["demonstrations", "samples", "none"])
@pytest.mark.parametrize("start", ["base", "gpt2"])
def test_what_is_saved_scores_the_same_in_both_classes(world, tmp_path, start, normalize):
    changes = {"samples__n": 8, "samples__max_tokens": 6} if normalize == "samples" else {}
    folder = run(rm, world, tmp_path / "run", model__path=getattr(world, start), normalize=normalize, **changes)
    tokenizer = load_tokenizer(folder / "model")
    ours = load_scalar_model(sections.Model(path=str(folder / "model"))).eval()
    recipe = recipe_of(rm, world, folder)
    rows = rm.encode(recipe, tokenizer, load(recipe.data, "rankings", 1).train)
    answers = [answer for row in rows for answer in row.answers]
    stock = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    with torch.no_grad():
        found = stock(pad_right(answers, tokenizer.pad_token_id)).logits[:, 0].tolist()
    assert found == pytest.approx(score_all(ours, answers, 8192, "cpu"), abs=1e-5)


def test_an_ensemble_of_adapters_s_heads_is_saved_whole(world, tmp_path):
    folder = run(rm, world, tmp_path / "run", heads=2, model__adapter="lora", demonstrations=world.conversations)
    model = load_scalar_model(sections.Model(path=str(folder / "model"))).eval()
    tokenizer = load_tokenizer(folder / "model")
    recipe = recipe_of(rm, world, folder, demonstrations=world.conversations)
    from align.rewards.normalize import demonstrated

    answers = demonstrated(recipe, tokenizer, [])
    members = torch.tensor(score_members(model, answers, 8192, "cpu"))
    torch.testing.assert_close(members.mean(0), torch.zeros(2), atol=1e-4, rtol=0)  # each member by itself
    assert float((members[:, 0] - members[:, 1]).abs().max()) > 1e-3


def test_an_ensemble_resumes_to_the_same_bits(world, tmp_path, monkeypatch):
    whole = run(rm, world, tmp_path / "whole", heads=2, train__checkpoint_every=2)
    from align.train import run as module

    plain = module.Run._save

    def stop(self, step, parts):
        plain(self, step, parts)
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Run, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        run(rm, world, tmp_path / "part", heads=2, train__checkpoint_every=2)
    monkeypatch.setattr(module.Run, "_save", plain)
    part = run(rm, world, tmp_path / "part", heads=2, train__checkpoint_every=2, resume=True)
    assert_same_bits(part, whole)


def test_the_card_says_what_the_log_says(world, tmp_path):
    folder = run(rm, world, tmp_path / "run", data__path=annotated(world, tmp_path), data__validation=0.5)
    card, result = (json.loads((folder / name).read_text()) for name in ("card.json", "result.json"))
    assert card["accuracy"]["mean"] == pytest.approx(result["accuracy/validation"])
    assert card["calibration"]["ece"] == result["ece"]
    assert set(card["by_source"]) == {"easy", "hard"}
    assert set(card["by_annotator"]) == {"ann", "bob"}
    assert (folder / "reliability.png").is_file()
    told = (folder / "README.md").read_text()
    assert f"**Accuracy {result['accuracy/validation']:.1%} [" in told
    assert "Its scores are those of `score_head.safetensors`" in told


def test_without_validation_the_card_says_so(world, tmp_path):
    folder = run(rm, world, tmp_path / "run", data__validation=0.0)
    assert json.loads((folder / "card.json").read_text()) == {}
    assert "no ranking was held out" in (folder / "README.md").read_text()


def test_validation_that_is_all_ties_has_a_loss_and_no_accuracy(world, tmp_path):
    tied = [{"prompt": f"say {i}", "responses": ["red", "blue"], "ranks": [1, 1]} for i in range(3)]
    changes = {"loss__ties": "half", "data__validation": write_rows(tmp_path / "tied.jsonl", tied)}
    row = metrics(run(rm, world, tmp_path / "run", **changes))[-1]
    assert "loss/validation" in row
    assert "accuracy/validation" not in row


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"normalize": "none", "demonstrations": "x.jsonl"}, "demonstrations has no effect with normalize: none"),
        ({"samples__n": 8}, "samples has no effect with normalize: demonstrations"),
        ({"heads": 0}, "heads"),
    ],
)
def test_keys_without_an_effect_are_refused(world, tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        recipe_of(rm, world, tmp_path, **changes)


def test_a_loss_that_these_rankings_cannot_feed_is_refused(world, tmp_path):
    with pytest.raises(UserError, match="no ranking has a column margin"):
        run(rm, world, tmp_path / "run", loss__margin="given")


def test_a_head_that_no_step_moved_is_never_saved(world, tmp_path, monkeypatch):
    monkeypatch.setattr(rm, "train", lambda *rest: {})
    with pytest.raises(UserError, match="still has its random initial weight, so it was not trained"):
        run(rm, world, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "result.json").exists()
