"""The patterns: compositions of agents and workflows, each a factory of a `Workflow` with named boundaries.

One module a pattern, written over the context alone: `chain`, `route`, `parallel`, `vote`, `orchestrate`,
`refine`, `handoff`; `composition.py` is what they share. They know nothing of execution, store or models.
"""
