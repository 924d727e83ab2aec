SELECT journal.seq, runs.run_id, runs.tenant_id, journal.position, journal.epoch, journal.schema, journal.facts,
  journal.sealed
FROM journal JOIN runs ON runs.num = journal.run WHERE journal.seq > ? AND journal.seq <= ? ORDER BY journal.seq LIMIT ?
