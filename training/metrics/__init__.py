"""Measures of a generator's samples against real pictures, in a feature space trained on those pictures.

`features` makes the feature space, `frechet`, `prdc` and `accuracy` are the measures, `evaluation` puts them together.
Nothing here touches the training of a generator.
"""
