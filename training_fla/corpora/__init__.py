"""One reader a corpus, one of other programs' feature files, one record of each corpus. Imports tables and below."""
