SELECT s.session_id, r.run_id, coalesce(o.run_id, r.run_id), r.tenant_id, s.trace_id, s.server, s.number, s.scope,
  s.transport, s.protocol, s.wire_id, s.pins, s.status, s.cause, s.approval, s.expires_at, s.expires_from, s.opened_at,
  s.changed_at, s.closed_at, s.sealed IS NOT NULL
FROM capability_sessions s JOIN runs r ON r.num = s.run LEFT JOIN runs o ON o.num = r.root
