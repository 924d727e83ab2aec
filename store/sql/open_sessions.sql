SELECT session_id, server, number, scope, transport, protocol, wire_id, pins, status, cause, approval, expires_at,
  expires_from, opened_at, changed_at
FROM capability_sessions WHERE run = ? AND closed_at IS NULL ORDER BY num
