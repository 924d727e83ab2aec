SELECT r.run_id, coalesce(o.run_id, r.run_id), r.tenant_id, r.target, r.parked_at, j.facts
FROM runs r JOIN journal j ON j.run = r.num AND j.position = r.position LEFT JOIN runs o ON o.num = r.root
WHERE r.status = 'waiting' AND r.reason = 'event' AND r.parked_at <= :before ORDER BY r.parked_at LIMIT :limit
