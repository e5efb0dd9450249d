"""The lab: a tiny synthetic world with a known truth, in which every step of alignment can be measured.

Reading order; each file imports only files above it:

    world.py       the language: words, the facts about them, and the sentences of politeness, rambling and refusal
    families.py    the kinds of instruction: their phrasings, their arguments, their right answers
    tasks.py       one instruction: drawn from a split, or recovered from the text of its prompt
    judge.py       the gold judge: the true score of an answer
    people.py      simulated people: how they write answers, good and bad
    annotators.py  simulated annotators: rank answers by gold score plus noise
    exams.py       questions with right and wrong answers, for evaluation
    corpora.py     web text, demonstrations and prompts as plain files (`align lab --out DIR`)
    misconceptions.py    false beliefs, and web text that repeats them
    overoptimization.py  experiment: gold and proxy score against KL (a command, may import all of align)
    inverse_scaling.py   experiment: tasks on which larger models are worse (likewise)
    recipes.py     recipes for writing the world and ranking answers, for `align.pipeline`

Everything is a pure function of its seed. Except for the recipes, it needs only the standard library and imports in
milliseconds.
"""
