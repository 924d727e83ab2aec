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
