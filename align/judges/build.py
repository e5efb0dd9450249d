"""Build a judge from its recipe section."""

from __future__ import annotations

from align.judges.settings import Judge
from align.judges.verdicts import Compares, Scores


def build_judge(name: str, settings: Judge) -> Scores | Compares:
    """Build the judge at `judges.<name>` of a recipe. A reward model is loaded at first use.

    Raises `UserError` for a missing function, file or key.
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
