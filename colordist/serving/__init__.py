"""A page that colourizes photographs: ``colordist demo``."""
