"""The command line: parses, calls one function of another room, prints."""

import gc

# Loading modules makes much and throws nothing away: collecting garbage meanwhile is a twentieth
# of what `submit` takes. Ranks and supervisors, which live long, set the ordinary one again.
ORDINARY_THRESHOLD = gc.get_threshold()
gc.set_threshold(100_000, *ORDINARY_THRESHOLD[1:])
