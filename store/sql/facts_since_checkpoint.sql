SELECT journal.facts FROM journal JOIN runs ON runs.num = journal.run
WHERE runs.num = ? AND journal.position >= coalesce(runs.checkpoint_at, 1) ORDER BY journal.position
