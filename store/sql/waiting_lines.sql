WITH RECURSIVE line (tenant_id, queue) AS (
  SELECT * FROM (SELECT tenant_id, queue FROM runs
    WHERE status = 'queued' AND held = 0 AND pool = :pool ORDER BY tenant_id, queue LIMIT 1)
  UNION ALL
  SELECT next.tenant_id, next.queue FROM line, runs AS next WHERE next.num = (
    SELECT num FROM runs WHERE status = 'queued' AND held = 0 AND pool = :pool
      AND (tenant_id, queue) > (line.tenant_id, line.queue) ORDER BY tenant_id, queue LIMIT 1))
SELECT tenant_id, queue FROM line LIMIT :most
