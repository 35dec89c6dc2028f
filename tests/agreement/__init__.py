"""Tests of the comparison of recorded answers with ours."""
