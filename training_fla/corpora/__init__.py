"""One reader a corpus: each turns a release on disk into [`~training_fla.corpora.row.CorpusRow`] objects."""
