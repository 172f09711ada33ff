"""Classification of pictures: the networks."""
