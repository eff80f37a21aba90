"""One reader a corpus, and one record of all that is known of it. Imports tables, files and below."""
