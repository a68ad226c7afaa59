"""Documents that lie in an index on disk: folders far bigger than memory, taken in once.

Why this and not a search engine: an answer must not depend on where documents lie. Recall scores
words by tokens, lends a word to the passages around it and looks at how close words stand
(``reading.recall``); none of that can be asked of SQLite's FTS5 or of tantivy, which rank by their
own BM25 over their own words. So posting lists lie in safetensors files, and SQLite keeps the
catalogue, for which it has what is hard: transactions, several processes, a full disk.

- ``segment``: a file of up to some million tokens that never changes: texts, where passages begin,
  posting lists by stem. It is written beside, synced, renamed, and only then in the catalogue:
  what a killed process leaves is litter, never trusted.
- ``levels``: what each common stem comes to in each block of passages, at most. By it recall knows
  without their lists, which have millions of entries, where the best passages cannot be.
- ``catalogue``: which file had which content (path, size, times, inode: as long as these stand, a
  start reads nothing), which content lies in which segment. One folder for each tokenizer and
  version of the format, in ``NAZX_HOME/index``; those of older versions are removed, and made
  again from the files. Contents are named by SHA-256: a copy costs its
  hash, a changed file itself, a removed one nothing.
- ``intake``: from ``--file`` to documents, through the catalogue.
- ``library``: the documents of segments, and some in memory, as ``reading.library`` has them;
  ``parts``: those whose posting lists are together.

Segments are read by position, a few kilobytes for each word, not mapped into memory: what is held
is then what memory limits and the gauge count, and a disk that fails is an error and not a signal
that ends the process. The system's cache of files makes the second question quick.
"""
