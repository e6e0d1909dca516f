"""What each phase of a run took: seconds, joules, other programs' load; kept over restarts."""
