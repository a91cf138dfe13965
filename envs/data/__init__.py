"""Data sets of images (folders, parquet, IDX, binary files, the Hugging Face hub), and a user's own; augmentation.

Imports no other folder.
"""
