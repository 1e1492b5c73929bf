"""Pictures and pages from results. Drawn from plain data: nothing here knows how a verdict was made."""
