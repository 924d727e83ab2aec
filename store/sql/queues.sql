-- Each pool is one search, and of each no more than the first 1,000 in line are looked at.
WITH RECURSIVE line (pool) AS (
  SELECT * FROM (SELECT pool FROM runs WHERE status = 'queued' AND held = 0 ORDER BY pool LIMIT 1) AS first
  UNION ALL
  SELECT (SELECT pool FROM runs WHERE status = 'queued' AND held = 0 AND pool > line.pool ORDER BY pool LIMIT 1)
  FROM line WHERE line.pool IS NOT NULL)
SELECT line.pool,
  (SELECT count(*) FROM (SELECT 1 FROM runs
    WHERE status = 'queued' AND held = 0 AND pool = line.pool LIMIT 1000) AS waiting),
  (SELECT min(since) FROM (SELECT CASE WHEN started_at IS NULL THEN created_at END AS since FROM runs
    WHERE status = 'queued' AND held = 0 AND pool = line.pool LIMIT 1000) AS waiting)
FROM line WHERE line.pool IS NOT NULL LIMIT 1000
