"""Data recipes: from public data sets and the user's own files to training rows one can trust."""
