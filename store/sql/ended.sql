SELECT runs.final_seq, runs.input_id, runs.grp_index, runs.run_id, runs.tenant_id, runs.status, runs.reason, runs.steps,
  runs.hops, runs.input_tokens, runs.output_tokens, runs.micros, journal.position, journal.schema, journal.facts,
  journal.sealed
FROM runs JOIN journal ON journal.seq = runs.final_seq
WHERE runs.grp = (SELECT num FROM groups WHERE key = :key AND run = (SELECT num FROM runs WHERE run_id = :run_id))
