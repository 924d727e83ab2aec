SELECT r.run_id, coalesce(o.run_id, r.run_id), r.tenant_id, s.trace_id, r.status, s.place, s.state
FROM sandboxes s JOIN runs r ON r.num = s.run LEFT JOIN runs o ON o.num = r.root
