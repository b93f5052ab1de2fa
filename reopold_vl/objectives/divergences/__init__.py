"""The second contract: losses over the whole vocabulary, which take the logits of both models (`types.Divergence`)."""
