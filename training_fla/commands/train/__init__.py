"""Runs, their scores, and what compares them. Imports every other room."""
