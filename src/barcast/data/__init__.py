"""Market bars in, leak-free windows out."""
