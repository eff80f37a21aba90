"""The drawn corpus: signs, grammar, text, and pictures made of them; it imports corpora and what lies below."""
