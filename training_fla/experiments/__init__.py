"""Runs of several stages: ablations and the demo. Imports stage and what lies below."""
