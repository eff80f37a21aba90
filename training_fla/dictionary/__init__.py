"""From a dictionary of single signs to a corpus of sentences; imports captions, data, corpora and what lies below."""
