WITH RECURSIVE line (num) AS (
  SELECT num FROM runs WHERE run_id IN (SELECT value FROM json_each(:run_ids))
  UNION SELECT runs.parent FROM runs JOIN line USING (num) WHERE runs.parent IS NOT NULL)
SELECT num FROM line
