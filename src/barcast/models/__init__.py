"""One file a model, all behind `BaseModel` and found through `ModelRegistry`."""
