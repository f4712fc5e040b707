"""Wan-Weaver as a library: plan, story, weave, planners, visualizers and the native model. Importing it is cheap."""
