"""Metrics, trading results, calibration, and the report."""
