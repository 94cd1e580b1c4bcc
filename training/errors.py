"""What can go wrong with a command's input or a run; the command line turns these into one clear line."""


class TrainingError(Exception):
    """A mistake in what the user gave, or a run that cannot go on; the message says what to do."""


class LostProcessError(TrainingError):
    """Another process of the group is gone; what the group holds cannot be taken down in order any more."""


class DivergedError(TrainingError):
    """The discriminator has run away from the generator, or a loss is no longer finite."""
