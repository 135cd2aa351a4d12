"""Tools for Comba runs."""
