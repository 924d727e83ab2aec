-- Version 5: sandboxes of runs, and what keeps snapshots of workspaces.

-- The sandboxes of runs as they stand. `place`: the id that steps know one by; `state`: all of it, as JSON.
CREATE TABLE sandboxes (
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  sandbox_id TEXT NOT NULL UNIQUE,
  run INTEGER NOT NULL,
  place TEXT NOT NULL,
  trace_id TEXT NOT NULL,
  manifest TEXT NOT NULL,
  status TEXT NOT NULL,
  node TEXT NOT NULL,
  changed_at INTEGER NOT NULL,
  closed_at INTEGER,
  state TEXT NOT NULL
);
CREATE INDEX sandboxes_run ON sandboxes (run);
CREATE INDEX sandboxes_open ON sandboxes (num) WHERE closed_at IS NULL;

-- Every snapshot that a sandbox of a run began with or took: kept while the run goes on, and a while longer.
CREATE TABLE snapshot_uses (
  run INTEGER NOT NULL,
  snapshot_id TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (run, snapshot_id)
) WITHOUT ROWID;

-- Snapshots that people keep, by name.
CREATE TABLE snapshot_pins (
  tenant_id TEXT NOT NULL,
  name TEXT NOT NULL,
  snapshot_id TEXT NOT NULL,
  manifest TEXT NOT NULL,
  at INTEGER NOT NULL,
  by TEXT NOT NULL,
  PRIMARY KEY (tenant_id, name)
) WITHOUT ROWID;
