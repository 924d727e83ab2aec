-- What runs had open with servers of capabilities, and what those asked.

CREATE TABLE session_changes (  -- a capability session moved, or its connection became another
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it moved
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    capability_session_id VARCHAR NOT NULL,  -- the session
    server VARCHAR NOT NULL,            -- the server, by its name in the configuration
    number INTEGER,                     -- its how-manieth session with this server in the run, from 0
    before VARCHAR,                     -- the status it had; null when it was opened; the same when only the connection changed
    status VARCHAR NOT NULL,            -- in_progress, waiting_for_input, waiting_for_approval, resumable, reinitialize_required or closed
    cause VARCHAR,                      -- why
    key VARCHAR,                        -- the step whose call moved it; null when no call did
    approval VARCHAR,                   -- pending, approved, denied or expired, for the newest approval of a call of it
    scope VARCHAR,                      -- who shares its connection: run, worker or shared
    transport VARCHAR,                  -- stdio or http
    protocol VARCHAR,                   -- the protocol version that was agreed
    wire_session_id VARCHAR,            -- the server's own id of the session, where there is one and it is tracked
    pins VARCHAR,                       -- digest of the tool definitions that were found
    expires_at TIMESTAMPTZ,             -- when it ends by what was disclosed
    expires_from VARCHAR,               -- who disclosed that
    opened_at TIMESTAMPTZ NOT NULL,     -- when it was opened
    closed_at TIMESTAMPTZ               -- when it was closed
);

CREATE TABLE continuations (  -- a call on a server was put on record as one that can go on; the token itself is not here
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    key VARCHAR NOT NULL,               -- the step of the call
    capability_session_id VARCHAR,      -- the session it belongs to
    server VARCHAR,                     -- the server, by its name in the configuration
    event VARCHAR NOT NULL,             -- paused (it asks), resumed (it was sent on), unsent (it was not, after all), kept or dropped (a token)
    issue INTEGER,                      -- of paused: how often the call was begun
    round INTEGER,                      -- of paused: how often it has asked since
    kinds VARCHAR[],                    -- of paused: form, url or sampling, for each question
    once BOOLEAN,                       -- whether the token must not be used twice
    expires_at TIMESTAMPTZ,             -- when the token ends by what was disclosed
    questions VARIANT                   -- of paused: what it asks, redacted
);
