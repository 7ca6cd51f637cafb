"""Claims of the reading list as small experiments: a file per claim, each measured here and judged in words.

`claim.py` has the types, `all_claims.py` finds the files, `claim_run.py` carries them out as a Run, `claims_page.py` writes
what came out. Folders are the sections of the list. Torch is imported when a claim that needs it is measured, not before.
"""
