"""Data sets of images: folders, parquet, IDX and binary files, the Hugging Face hub; crops and augmentation.

Imports no other folder.
"""
