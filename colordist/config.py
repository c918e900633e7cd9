"""Every setting, its default and its meaning. Imports nothing of ours and no torch."""


class UserError(Exception):
    """A mistake of the user's: one line saying what is wrong, where, and the way out. Exit code 2."""
