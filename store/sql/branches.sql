SELECT runs.grp_index, runs.run_id, runs.tenant_id, runs.status, runs.reason, runs.steps, runs.hops,
  runs.input_tokens, runs.output_tokens, runs.micros, journal.position, journal.schema, journal.facts, journal.sealed
FROM groups JOIN runs ON runs.grp = groups.num JOIN journal ON journal.run = runs.num AND journal.position = runs.final
WHERE groups.run = (SELECT num FROM runs WHERE run_id = ?) AND groups.key = ? AND runs.final IS NOT NULL
ORDER BY runs.grp_index
