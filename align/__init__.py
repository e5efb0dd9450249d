"""align: from a pretrained GPT to an aligned one, as InstructGPT did it.

What scripts and notebooks use stands here by its short name, and is imported when it is first used:

    import align

    recipe = align.read_recipe(align.sft.Recipe, "recipes/sft.yaml", "optim.learning_rate=1e-4")
    align.sft.run(recipe)
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Threads that wait for each other sleep after some microseconds. By default they spin for milliseconds, at every small
# operation: beside other programs on the same cores, training on a CPU is then several times slower. PyTorch reads this
# when it is imported; 1000 is what libgomp takes where it has more threads than cores.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Public name: the module that has it; the stages are modules themselves.
_HOMES = {
    **{
        stage: f"align.{stage}"
        for stage in ("prepare", "pretrain", "sft", "generate", "rm", "score", "ppo", "dpo", "evaluate", "pipeline")
    },
    "read_recipe": "align.config",
    "UserError": "align.errors",
    # a recipe's sections, data, models
    "Model": "align.sections",
    "Data": "align.sections",
    "load": "align.text.load",
    **dict.fromkeys(("Message", "Document", "Conversation", "Prompt", "Ranking", "Answers"), "align.text.records"),
    "load_tokenizer": "align.text.tokenizer",
    "load_causal_lm": "align.models.load",
    "load_scalar_model": "align.models.scalar",
    "TextModel": "align.generation.text_model",
    "Sampling": "align.generation.sampling",
    # the parts of PPO
    "Sampler": "align.rl.sampler",
    "Learner": "align.rl.learner",
    "Rollouts": "align.rl.rollouts",
    **dict.fromkeys(("policy_loss", "value_loss", "ranking_loss", "entropy"), "align.rl.losses"),
    **dict.fromkeys(("kl_estimate", "full_kl"), "align.rl.kl"),
    **dict.fromkeys(("gae", "token_rewards", "whiten"), "align.rl.advantages"),
    # statistics
    **dict.fromkeys(("Interval", "bootstrap_mean", "win_rate"), "align.stats.bootstrap"),
    "mcnemar": "align.stats.significance",
    "leaderboard": "align.stats.bradley_terry",
    "krippendorff_alpha": "align.stats.krippendorff",
    "calibration": "align.stats.calibration",
}
__all__ = list(_HOMES)

if TYPE_CHECKING:
    from align import dpo as dpo
    from align import evaluate as evaluate
    from align import generate as generate
    from align import pipeline as pipeline
    from align import ppo as ppo
    from align import prepare as prepare
    from align import pretrain as pretrain
    from align import rm as rm
    from align import score as score
    from align import sft as sft
    from align.config import read_recipe as read_recipe
    from align.errors import UserError as UserError
    from align.generation.sampling import Sampling as Sampling
    from align.generation.text_model import TextModel as TextModel
    from align.models.load import load_causal_lm as load_causal_lm
    from align.models.scalar import load_scalar_model as load_scalar_model
    from align.rl.advantages import gae as gae
    from align.rl.advantages import token_rewards as token_rewards
    from align.rl.advantages import whiten as whiten
    from align.rl.kl import full_kl as full_kl
    from align.rl.kl import kl_estimate as kl_estimate
    from align.rl.learner import Learner as Learner
    from align.rl.losses import entropy as entropy
    from align.rl.losses import policy_loss as policy_loss
    from align.rl.losses import ranking_loss as ranking_loss
    from align.rl.losses import value_loss as value_loss
    from align.rl.rollouts import Rollouts as Rollouts
    from align.rl.sampler import Sampler as Sampler
    from align.sections import Data as Data
    from align.sections import Model as Model
    from align.stats.bootstrap import Interval as Interval
    from align.stats.bootstrap import bootstrap_mean as bootstrap_mean
    from align.stats.bootstrap import win_rate as win_rate
    from align.stats.bradley_terry import leaderboard as leaderboard
    from align.stats.calibration import calibration as calibration
    from align.stats.krippendorff import krippendorff_alpha as krippendorff_alpha
    from align.stats.significance import mcnemar as mcnemar
    from align.text.load import load as load
    from align.text.records import Answers as Answers
    from align.text.records import Conversation as Conversation
    from align.text.records import Document as Document
    from align.text.records import Message as Message
    from align.text.records import Prompt as Prompt
    from align.text.records import Ranking as Ranking
    from align.text.tokenizer import load_tokenizer as load_tokenizer


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'align' has no attribute {name!r}")
    module = import_module(_HOMES[name])
    found = module if module.__name__ == f"align.{name}" else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
