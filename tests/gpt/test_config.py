import pytest

from align.gpt import GPTConfig


def test_common_names_read_and_write_the_same_values():
    config = GPTConfig(hidden_size=64, num_attention_heads=2, num_hidden_layers=3, max_position_embeddings=99)
    assert (config.n_embd, config.n_head, config.n_layer, config.n_positions) == (64, 2, 3, 99)
    assert (config.hidden_size, config.max_position_embeddings) == (64, 99)


def test_heads_that_do_not_share_the_width_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"n_embd = 130 .* n_head = 4.* give n_embd = 132"):
        GPTConfig(n_embd=130, n_head=4)


def test_every_mistake_is_told_at_once():
    with pytest.raises(ValueError, match=r"n_layer = 0") as error:
        GPTConfig(n_layer=0, activation="relu", dropout=1.0, position_init="rotary")
    assert "activation = 'relu', give one of gelu_new, gelu" in str(error.value)
    assert "dropout = 1.0" in str(error.value)
    assert "position_init = 'rotary', give one of normal, sinusoidal" in str(error.value)


def test_a_configuration_survives_its_file(tmp_path):
    config = GPTConfig(
        vocab_size=77,
        n_embd=24,
        n_head=3,
        activation="gelu",
        dropout=0.1,
        eos_token_id=[5, 6],
        position_init="sinusoidal",
    )
    config.save_pretrained(tmp_path)
    assert GPTConfig.from_pretrained(tmp_path).to_diff_dict() == config.to_diff_dict()
