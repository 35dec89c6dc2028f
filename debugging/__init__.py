"""Explanation-guided debugging of a classifier: from its errors to images that teach it otherwise.

Each step is a command that reads and writes plain files in one folder of results, see
:mod:`debugging.results`; each can be interrupted, and does not do finished images again.
"""
