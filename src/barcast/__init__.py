"""barcast: leak-free windows from market bars, and a cached matrix of models by horizons."""
