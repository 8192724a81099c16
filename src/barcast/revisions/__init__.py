"""What two revisions differ in, and whether their metrics differ by more than noise."""
