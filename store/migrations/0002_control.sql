-- Version 2: queues, holds and fair shares; requests that expire; breakers; alerts.
ALTER TABLE runs ADD COLUMN queue TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN held INTEGER NOT NULL DEFAULT 0;

DROP INDEX runs_queued;
CREATE INDEX runs_queued ON runs (pool, tenant_id, queue, priority DESC, depth DESC, num)
  WHERE status = 'queued' AND held = 0;
CREATE INDEX runs_resumed ON runs (pool, tenant_id, queue, priority DESC, depth DESC, num)
  WHERE status = 'queued' AND held = 0 AND started_at IS NOT NULL;
CREATE INDEX runs_busy ON runs (tenant_id, queue) WHERE status = 'in_progress';
CREATE INDEX runs_failed ON runs (finished_at) WHERE status = 'failed';

ALTER TABLE requests ADD COLUMN assignee TEXT;
ALTER TABLE requests ADD COLUMN expires_at INTEGER;
ALTER TABLE requests ADD COLUMN escalated_at INTEGER;

-- What is left of a rate limit: tokens at a moment (Unix ns). One row a limited tenant or queue.
CREATE TABLE buckets (
  scope TEXT NOT NULL,
  name TEXT NOT NULL,
  tokens REAL NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (scope, name)
) WITHOUT ROWID;

-- A capability or model endpoint that has failed of late. No row: closed and well.
CREATE TABLE breakers (
  name TEXT PRIMARY KEY,
  state TEXT NOT NULL,
  failures INTEGER NOT NULL,
  since INTEGER NOT NULL,
  until INTEGER NOT NULL,
  openings INTEGER NOT NULL,
  reason TEXT NOT NULL
) WITHOUT ROWID;

-- Alerts that were raised: one row a kind and subject while its cause lasts.
CREATE TABLE alerts (
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  message TEXT NOT NULL,
  facts TEXT NOT NULL,
  raised_at INTEGER NOT NULL,
  sent_at INTEGER,
  tries INTEGER NOT NULL DEFAULT 0,
  cleared_at INTEGER
);
CREATE UNIQUE INDEX alerts_standing ON alerts (kind, subject) WHERE cleared_at IS NULL;
