-- Version 3: what alerts look at, by index, and whom they have to reach.
ALTER TABLE runs ADD COLUMN parked_at INTEGER;
UPDATE runs SET parked_at = started_at WHERE status = 'waiting' AND reason = 'event';
CREATE INDEX runs_on_event ON runs (parked_at) WHERE status = 'waiting' AND reason = 'event';

-- In order of commit: a look from a number on misses none, whatever the clocks of the writers said.
DROP INDEX runs_failed;
CREATE INDEX runs_failed ON runs (final_seq) WHERE status = 'failed';

CREATE INDEX requests_since ON requests (created_at) WHERE status = 'open';
CREATE INDEX requests_escalated ON requests (escalated_at) WHERE status = 'open' AND escalated_at IS NOT NULL;
CREATE INDEX requests_doubt ON requests (num) WHERE status = 'open' AND json_type(facts, '$.doubt') IS NOT NULL;

-- `channels`: who has still to be told, separated by blanks; `due_at`: when to try (NULL: nobody, or given up).
ALTER TABLE alerts ADD COLUMN channels TEXT NOT NULL DEFAULT '';
ALTER TABLE alerts ADD COLUMN due_at INTEGER;
ALTER TABLE alerts ADD COLUMN acked_at INTEGER;
ALTER TABLE alerts ADD COLUMN acked_by TEXT;
CREATE INDEX alerts_due ON alerts (due_at) WHERE due_at IS NOT NULL;

-- What has ended before there were alerts is not told.
INSERT INTO meta (name, value) SELECT 'alerts_failed', coalesce(max(seq), 0) FROM journal;
INSERT INTO meta (name, value) SELECT 'alerts_refused', coalesce(max(num), 0) FROM dead_letters;
