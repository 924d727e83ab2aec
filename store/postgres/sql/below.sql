-- A run and what is below it: what has not ended first, then level by level, at most :most runs.
WITH RECURSIVE tree (num, level, ended) AS (
  SELECT num, 0, final IS NOT NULL FROM runs WHERE run_id = :run_id
  UNION ALL
  SELECT runs.num, tree.level + 1, runs.final IS NOT NULL FROM runs JOIN tree ON runs.parent = tree.num
  WHERE tree.level < :deepest)
SELECT num FROM (SELECT num, level, ended FROM tree LIMIT 100000) AS found ORDER BY ended, level, num LIMIT :most
