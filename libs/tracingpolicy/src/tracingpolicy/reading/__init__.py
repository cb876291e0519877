"""From the text of a document to the typed policy; every module reads one part of it."""
