"""What makes a cell run again: fingerprints of code and libraries, specs, keys and pins."""
