"""The ranking app: people rank answers, and the reward model learns from it."""
