"""Multi-object tracking: trackers over any detector's boxes, and the measures that judge them. NumPy, without torch."""
