SELECT q.request_id, r.run_id, coalesce(o.run_id, r.run_id), r.tenant_id, q.kind, q.created_at, q.escalated_at, q.assignee,
  q.facts ->> '$.doubt'
FROM requests q JOIN runs r ON r.num = q.run LEFT JOIN runs o ON o.num = r.root
WHERE q.status = 'open'
