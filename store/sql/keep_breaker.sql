INSERT INTO breakers (name, state, failures, since, until, openings, reason) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET state = excluded.state, failures = excluded.failures, since = excluded.since,
  until = excluded.until, openings = excluded.openings, reason = excluded.reason
