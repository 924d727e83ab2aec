SELECT journal.run, journal.seq, journal.position, journal.epoch, journal.schema, journal.facts, journal.sealed
FROM json_each(:nums) AS leased CROSS JOIN journal
WHERE journal.run = leased.value AND journal.position = 1
UNION ALL
SELECT journal.run, journal.seq, journal.position, journal.epoch, journal.schema, journal.facts, journal.sealed
FROM json_each(:nums) AS leased CROSS JOIN runs CROSS JOIN journal
WHERE runs.num = leased.value AND runs.position > 1
  AND journal.run = runs.num AND journal.position >= coalesce(runs.checkpoint_at, 2)
ORDER BY 1, 3
