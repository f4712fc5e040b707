"""Measuring interleaved generation: run folders, judges, judge-free metrics, statistics, reports (`weaver eval`)."""
