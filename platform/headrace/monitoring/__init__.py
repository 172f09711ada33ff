"""What is watched: metric names, dashboards and alert rules, and the texts that go with them."""
