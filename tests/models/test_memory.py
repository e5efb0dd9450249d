"""What a run is said to cost, before it starts."""

from transformers import AutoModelForCausalLM

from align import sections
from align.models.load import load_config
from align.models.memory import count_parameters, estimate, table


def test_memory_is_counted_by_role(world):
    model = sections.Model(path=world.base)
    config = load_config(model)
    n = count_parameters(config)
    assert n == AutoModelForCausalLM.from_pretrained(world.base).num_parameters()
    train = sections.Train(steps=1, precision="fp32", micro_batch_tokens=100)
    trained, frozen = (estimate(config, train, kind, kind, model) for kind in ("train", "frozen"))
    assert (trained.weights, trained.gradients, trained.optimizer) == (4 * n, 4 * n, 8 * n)
    assert (frozen.weights, frozen.gradients, frozen.optimizer) == (4 * n, 0, 0)
    quantized = estimate(config, train, "x", "frozen", model.model_copy(update={"quantization": "4bit"}))
    assert quantized.weights == n / 2
    assert trained.total == trained.weights + trained.gradients + trained.optimizer + trained.activations
    more = estimate(config, train.model_copy(update={"micro_batch_tokens": 200}), "x", "train", model)
    assert more.activations == 2 * trained.activations
    assert "total" in table([trained, frozen])
