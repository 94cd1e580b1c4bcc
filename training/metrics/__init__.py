"""Measures of a generator's samples against real pictures, in a feature space trained on those pictures.

`features`, `feature_training` and `feature_store` make the feature space. `frechet`, `class_fcd`, `kid`, `prdc` and
`accuracy` are measures in it, which `evaluation` puts together; `cas` trains a classifier on samples; `nearest`,
`copying` and `memorisation` look for training pictures among the samples.
Nothing here touches the training of a generator.
"""
