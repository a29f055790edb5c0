"""Measure recipes, compare them, and show what they read and why."""
