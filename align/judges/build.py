"""From a recipe's words to a judge."""

from __future__ import annotations

from align.judges.settings import Judge
from align.judges.verdicts import Compares, Scores


def build_judge(name: str, settings: Judge) -> Scores | Compares:
    """The judge that stands at `judges.<name>` of a recipe. A reward model is loaded when it is first asked.

    Raises `UserError` for what is not there: a function, a file, a key.
    """
    where = f"judges.{name}"
    if settings.function is not None:
        from align.judges.scoring import FunctionJudge

        return FunctionJudge(settings.function)
    if settings.reward_model is not None:
        from align.judges.scoring import RewardModelJudge

        return RewardModelJudge(settings.reward_model, f"{where}.reward_model")
    if settings.votes is not None:
        from align.judges.votes import VotesJudge

        return VotesJudge(where, settings.votes)
    from align.judges.llm import LlmJudge

    assert settings.llm is not None
    return LlmJudge(where, settings.llm)
