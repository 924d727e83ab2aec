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
