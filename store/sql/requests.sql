SELECT q.request_id, r.run_id, coalesce(o.run_id, r.run_id), r.tenant_id, q.kind, q.key, q.sealed, q.facts, q.status,
  q.created_at, q.resolved_at, q.resolved_by, q.assignee, q.expires_at, q.escalated_at
FROM requests q JOIN runs r ON r.num = q.run LEFT JOIN runs o ON o.num = r.root
