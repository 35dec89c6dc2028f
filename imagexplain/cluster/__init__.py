"""Explanations of whole data sets: a job over many images whose rows go into a table, in this process or on Ray."""
