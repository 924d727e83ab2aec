-- The embedded store, version 1. Control facts are plain; content is sealed (BLOB columns named sealed).
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE hosts (
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  host_id TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  actor_id TEXT,
  pid INTEGER NOT NULL,
  pid_started REAL NOT NULL,
  boot_id TEXT NOT NULL,
  node TEXT NOT NULL,
  beat REAL NOT NULL,
  state TEXT NOT NULL DEFAULT 'alive'
);
CREATE INDEX hosts_alive ON hosts (num) WHERE state = 'alive';

CREATE TABLE runs (
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id TEXT NOT NULL UNIQUE,
  parent INTEGER,
  root INTEGER,
  grp INTEGER,
  grp_index INTEGER,
  tenant_id TEXT NOT NULL,
  target TEXT NOT NULL,
  kind TEXT NOT NULL,
  input_id TEXT,
  job_id TEXT,
  idempotency_key TEXT,
  pool TEXT NOT NULL,
  priority INTEGER NOT NULL,
  depth INTEGER NOT NULL,
  status TEXT NOT NULL,
  reason TEXT,
  epoch INTEGER NOT NULL DEFAULT 0,
  position INTEGER NOT NULL DEFAULT 0,
  checkpoint_at INTEGER,
  final INTEGER,
  final_seq INTEGER,
  host INTEGER,
  news INTEGER NOT NULL DEFAULT 0,
  seen INTEGER NOT NULL DEFAULT 0,
  wake_at INTEGER,
  cancel TEXT,
  reserved_tokens INTEGER NOT NULL DEFAULT 0,
  reserved_micros INTEGER NOT NULL DEFAULT 0,
  steps INTEGER NOT NULL DEFAULT 0,
  hops INTEGER NOT NULL DEFAULT 0,
  input_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  micros INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  finished_at INTEGER
);
CREATE INDEX runs_queued ON runs (pool, priority DESC, depth DESC, num) WHERE status = 'queued';
CREATE INDEX runs_owned ON runs (host) WHERE status = 'in_progress';
CREATE INDEX runs_timed ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX runs_parent ON runs (parent) WHERE parent IS NOT NULL;
CREATE INDEX runs_group ON runs (grp, grp_index) WHERE grp IS NOT NULL;
CREATE INDEX runs_ended ON runs (grp, final_seq) WHERE final_seq IS NOT NULL AND grp IS NOT NULL;
CREATE UNIQUE INDEX runs_idempotency ON runs (tenant_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE journal (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  run INTEGER NOT NULL,
  position INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  schema INTEGER NOT NULL,
  facts BLOB NOT NULL,
  sealed BLOB
);
CREATE UNIQUE INDEX journal_position ON journal (run, position);

CREATE TABLE contents (hash BLOB PRIMARY KEY, tenant_id TEXT NOT NULL, sealed BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE groups (
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  run INTEGER NOT NULL,
  key TEXT NOT NULL,
  total INTEGER NOT NULL DEFAULT 0,
  pending INTEGER NOT NULL DEFAULT 0,
  ok INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  rejected INTEGER NOT NULL DEFAULT 0,
  low INTEGER NOT NULL DEFAULT 0,
  need INTEGER,
  cursor TEXT,
  exhausted INTEGER NOT NULL DEFAULT 0,
  reserved_tokens INTEGER NOT NULL DEFAULT 0,
  reserved_micros INTEGER NOT NULL DEFAULT 0,
  steps INTEGER NOT NULL DEFAULT 0,
  hops INTEGER NOT NULL DEFAULT 0,
  input_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  micros INTEGER NOT NULL DEFAULT 0,
  UNIQUE (run, key)
);

CREATE TABLE requests (
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  request_id TEXT NOT NULL UNIQUE,
  run INTEGER NOT NULL,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  status TEXT NOT NULL DEFAULT 'open',
  facts TEXT NOT NULL,
  sealed BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  resolved_at INTEGER,
  resolved_by TEXT,
  answer BLOB,
  UNIQUE (run, key)
);
CREATE INDEX requests_open ON requests (num) WHERE status = 'open';

CREATE TABLE events (
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  run INTEGER NOT NULL,
  name TEXT NOT NULL,
  at INTEGER NOT NULL,
  sealed BLOB NOT NULL
);
CREATE INDEX events_run ON events (run);

CREATE TABLE dead_letters (
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  run INTEGER,
  run_id TEXT,
  source TEXT NOT NULL,
  line INTEGER NOT NULL,
  reason TEXT NOT NULL,
  message TEXT NOT NULL,
  at INTEGER NOT NULL,
  sealed BLOB
);
CREATE INDEX dead_letters_run ON dead_letters (run);

CREATE TABLE deltas (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  run INTEGER NOT NULL,
  key TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  sealed BLOB NOT NULL
);
CREATE INDEX deltas_run ON deltas (run, seq);
