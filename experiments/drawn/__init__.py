"""The drawn corpus: signs, grammar and text, and the pictures made of them. Imports corpora and what lies below."""
