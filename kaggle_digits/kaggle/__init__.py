"""Kaggle: its client, the competition's data and submissions, and the notebook on Kaggle's machines."""
