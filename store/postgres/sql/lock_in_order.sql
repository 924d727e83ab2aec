-- Whoever writes to several runs locks them in the order of their numbers, parents before children: no two wait in a ring.
SELECT 1 FROM runs WHERE num = ANY (CAST(:num AS bigint[])
  || ARRAY(SELECT parent FROM runs WHERE num = ANY (CAST(:ending AS bigint[])) AND parent IS NOT NULL))
ORDER BY num FOR NO KEY UPDATE
