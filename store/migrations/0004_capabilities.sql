-- Version 4: tenants' money, sessions with servers, memory, rollouts.

-- Tenants' money: what was spent and what is reserved, by window of time. A tenant without a limit has no row.
CREATE TABLE accounts (
  tenant_id TEXT NOT NULL,
  name TEXT NOT NULL,
  limit_micros INTEGER NOT NULL,
  spent INTEGER NOT NULL DEFAULT 0,
  reserved INTEGER NOT NULL DEFAULT 0,
  refused_at INTEGER,
  PRIMARY KEY (tenant_id, name)
) WITHOUT ROWID;

-- `account`: the window that answers for the run, where no parent does. `kept_micros`: what is held above it, for it or,
-- after its end, for what is still open below it. `charged`: what of its spending is on the books already.
ALTER TABLE runs ADD COLUMN account TEXT;
ALTER TABLE runs ADD COLUMN kept_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN charged INTEGER NOT NULL DEFAULT 0;

CREATE INDEX accounts_exhausted ON accounts (tenant_id, name) WHERE refused_at IS NOT NULL OR spent >= limit_micros;

-- The capability sessions of runs; `sealed` holds what their calls can be continued with.
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

-- What runs remember. Scope, owner and provenance are plain; content, key and tags are sealed, and gone when `sealed`
-- is NULL: replaced, forgotten or expired. `name` is the keyed hash of the key.
CREATE TABLE memories (
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  memory_id TEXT NOT NULL UNIQUE,
  tenant_id TEXT NOT NULL,
  scope TEXT NOT NULL,
  owner TEXT NOT NULL,
  name TEXT,
  state TEXT NOT NULL,
  at INTEGER NOT NULL,
  expires_at INTEGER,
  run_id TEXT NOT NULL,
  step TEXT NOT NULL,
  agent TEXT NOT NULL,
  version TEXT NOT NULL,
  principal TEXT NOT NULL,
  words INTEGER NOT NULL,
  ended_at INTEGER,
  ended_by TEXT,
  sealed BLOB
);
CREATE UNIQUE INDEX memories_named ON memories (tenant_id, scope, owner, name) WHERE state = 'kept';
CREATE INDEX memories_kept ON memories (tenant_id, scope, owner, num) WHERE state = 'kept';
CREATE INDEX memories_expiring ON memories (tenant_id, scope, owner, expires_at) WHERE state = 'kept';
CREATE INDEX memories_of_run ON memories (run_id);
CREATE INDEX memories_ended ON memories (ended_by) WHERE ended_by IS NOT NULL;

-- Their words, as keyed hashes: they can be looked up by who has the tenant's key, and read by nobody.
CREATE TABLE memory_terms (
  term TEXT NOT NULL,
  memory INTEGER NOT NULL,
  times INTEGER NOT NULL,
  PRIMARY KEY (term, memory)
) WITHOUT ROWID;
CREATE INDEX memory_terms_of ON memory_terms (memory);

-- How far versions have been let out: one row a change, the newest of a (kind, name, version) holds.
CREATE TABLE rollouts (
  num INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  version TEXT NOT NULL,
  stage TEXT NOT NULL,
  share INTEGER NOT NULL,
  at INTEGER NOT NULL,
  by TEXT NOT NULL,
  reason TEXT NOT NULL
);
CREATE INDEX rollouts_name ON rollouts (kind, name, version, num);
