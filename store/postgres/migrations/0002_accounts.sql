-- Tenants' money: what was spent and what is reserved, by window of time. A tenant without a limit has no row.
CREATE TABLE accounts (
  tenant_id text NOT NULL,
  name text NOT NULL,
  limit_micros bigint NOT NULL,
  spent bigint NOT NULL DEFAULT 0,
  reserved bigint NOT NULL DEFAULT 0,
  refused_at bigint,
  PRIMARY KEY (tenant_id, name)
) WITH (fillfactor = 50);

-- `account`: the window that answers for the run, where no parent does. `kept_micros`: what is held above it, for it or,
-- after its end, for what is still open below it. `charged`: what of its spending is on the books already.
ALTER TABLE runs ADD COLUMN account text, ADD COLUMN kept_micros bigint NOT NULL DEFAULT 0,
  ADD COLUMN charged bigint NOT NULL DEFAULT 0;

CREATE INDEX accounts_exhausted ON accounts (tenant_id, name) WHERE refused_at IS NOT NULL OR spent >= limit_micros;
