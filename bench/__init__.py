"""Figures: how fast and how large kubesvc is, each beside the goal it is held against. Never a timed test."""
