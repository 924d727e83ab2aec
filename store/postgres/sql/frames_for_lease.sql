WITH leased AS (SELECT CAST(value AS bigint) AS num FROM jsonb_array_elements_text(CAST(:nums AS jsonb)) AS each (value))
SELECT journal.run, journal.seq, journal.position, journal.epoch, journal.schema, journal.facts, journal.sealed
FROM leased JOIN journal ON journal.run = leased.num AND journal.position = 1
UNION ALL
SELECT journal.run, journal.seq, journal.position, journal.epoch, journal.schema, journal.facts, journal.sealed
FROM leased JOIN runs ON runs.num = leased.num AND runs.position > 1
  JOIN journal ON journal.run = runs.num AND journal.position >= coalesce(runs.checkpoint_at, 2)
ORDER BY 1, 3
