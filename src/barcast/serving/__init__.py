"""From a trained cell to predictions: gates, the registry of champions, raw bars in and probabilities out."""
