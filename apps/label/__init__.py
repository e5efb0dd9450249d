"""The ranking app: annotators rank answers in a browser, as training data for reward models."""
