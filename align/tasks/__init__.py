"""Questions whose answers are known: templates and few examples, choices by likelihood, generated answers, perplexity.

Reading order: `task` (what a recipe says), `template` (how a question is put), `choice`, `generate` and `perplexity`
(how each kind is measured), `results` (what a report is told).
"""
