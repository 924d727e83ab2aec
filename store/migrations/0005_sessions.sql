-- Version 5: the capability sessions of runs; `sealed` holds what their calls can be continued with.
CREATE TABLE capability_sessions (
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  session_id TEXT NOT NULL UNIQUE,
  run INTEGER NOT NULL,
  server TEXT NOT NULL,
  number INTEGER NOT NULL,
  trace_id TEXT NOT NULL,
  scope TEXT,
  transport TEXT,
  protocol TEXT,
  wire_id TEXT,
  pins TEXT,
  status TEXT NOT NULL,
  cause TEXT NOT NULL,
  approval TEXT NOT NULL,
  expires_at INTEGER,
  expires_from TEXT,
  opened_at INTEGER NOT NULL,
  changed_at INTEGER NOT NULL,
  closed_at INTEGER,
  sealed BLOB
);
CREATE INDEX capability_sessions_run ON capability_sessions (run);
CREATE INDEX capability_sessions_open ON capability_sessions (num) WHERE closed_at IS NULL;
