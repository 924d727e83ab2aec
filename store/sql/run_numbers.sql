-- Numbers for so many new runs: the transaction has the only pen.
WITH RECURSIVE drawn (num, place) AS (
  SELECT coalesce(max(seq), 0) + 1, 1 FROM sqlite_sequence WHERE name = 'runs'
  UNION ALL SELECT num + 1, place + 1 FROM drawn WHERE place < :count)
SELECT num FROM drawn
