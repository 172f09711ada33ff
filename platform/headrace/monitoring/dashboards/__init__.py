"""The dashboards: one for each question that somebody is woken by."""
