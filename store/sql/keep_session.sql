INSERT INTO capability_sessions (session_id, run, server, number, trace_id, scope, transport, protocol, wire_id, pins,
  status, cause, approval, expires_at, expires_from, opened_at, changed_at, closed_at, sealed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (session_id) DO UPDATE SET scope = excluded.scope, transport = excluded.transport,
  protocol = excluded.protocol, wire_id = excluded.wire_id, pins = excluded.pins, status = excluded.status,
  cause = excluded.cause, approval = excluded.approval, expires_at = excluded.expires_at,
  expires_from = excluded.expires_from, changed_at = excluded.changed_at, closed_at = excluded.closed_at,
  sealed = excluded.sealed
