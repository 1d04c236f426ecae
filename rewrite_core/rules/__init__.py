"""Changing a layer's memory: requests, goals, the solver, rules."""
