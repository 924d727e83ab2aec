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
