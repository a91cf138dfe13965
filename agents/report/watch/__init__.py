"""Shows the report of a run in a browser while it trains: made again when the run has written something.

Imports ``report``, never the other way round. Only reads in a run's directory; listens on the loopback interface alone.
"""
