"""From a trained cell to answers: gates, the registry of champions, and raw bars in, probabilities out."""
