-- A step to the next line is two searches: one of row values would walk through all runs of a tenant.
WITH RECURSIVE line (tenant_id, queue) AS (
  SELECT * FROM (SELECT tenant_id, queue FROM runs
    WHERE status = 'queued' AND held = 0 AND pool = :pool AND (tenant_id, queue) >= (:tenant, :queue)
    ORDER BY tenant_id, queue LIMIT 1) AS first
  UNION ALL
  SELECT next.tenant_id, next.queue FROM line, runs AS next WHERE next.num = coalesce(
    (SELECT num FROM runs WHERE status = 'queued' AND held = 0 AND pool = :pool
      AND tenant_id = line.tenant_id AND queue > line.queue ORDER BY queue LIMIT 1),
    (SELECT num FROM runs WHERE status = 'queued' AND held = 0 AND pool = :pool
      AND tenant_id > line.tenant_id ORDER BY tenant_id, queue LIMIT 1)))
SELECT tenant_id, queue FROM line LIMIT :most
