-- The sandboxes of runs: where each stood, and what was run in them. What programs wrote is not here.

CREATE TABLE sandbox_moves (  -- a sandbox moved, or its owner had something to say of it
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it moved
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    sandbox_id VARCHAR NOT NULL,        -- the sandbox
    place VARCHAR,                      -- the id that the run's steps know it by; in a fork of a run that of the original's
    name VARCHAR,                       -- its name within the run
    event VARCHAR NOT NULL,             -- opened, attached, snapshot, adopted, restored, moved, lost_exec, not_kept, lost or closed
    cause VARCHAR,                      -- why, redacted
    key VARCHAR,                        -- the step whose call moved it; null when no call did
    operation VARCHAR,                  -- of lost_exec: what was in flight when the owner died
    began_at TIMESTAMPTZ,               -- of lost_exec: when that had begun
    manifest VARCHAR,                   -- what it was made from
    manifest_version VARCHAR,           -- digest of all that the manifest says and takes in
    profile VARCHAR,                    -- the permission profile
    profile_digest VARCHAR,             -- digest of the profile
    backend VARCHAR,                    -- what confines it
    confinement JSON,                   -- how well each demand of the profile is held
    status VARCHAR NOT NULL,            -- open, lost or closed
    generation BIGINT,                  -- changes of the workspace so far
    head_generation BIGINT,             -- the generation that its newest snapshot holds
    base_snapshot_id VARCHAR,           -- the snapshot that it began with
    head_snapshot_id VARCHAR,           -- its newest snapshot
    entries BIGINT,                     -- files and folders in its newest snapshot, or as it was made
    bytes BIGINT,                       -- bytes of those files
    tier VARCHAR,                       -- how the workspace was made of a snapshot
    node VARCHAR,                       -- where the workspace is
    epoch BIGINT,                       -- the epoch of the owner that has it
    can_resume BOOLEAN,                 -- whether it can be gone on with
    can_snapshot BOOLEAN,               -- whether it can be kept
    must_recreate BOOLEAN,              -- whether it can only be resumed where it is
    omitted VARCHAR[],                  -- what its snapshot leaves out
    forked_from VARCHAR,                -- the sandbox that it was forked from
    opened_at TIMESTAMPTZ,              -- when it was opened
    closed_at TIMESTAMPTZ               -- when it was closed
);

CREATE TABLE sandbox_execs (  -- a program was run or refused in a sandbox, or was in flight when its owner died
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it ended, or was reported as lost
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    place VARCHAR,                      -- the sandbox, by the id that the run's steps know it by; null where an agent's call was cut off
    key VARCHAR,                        -- the step
    call_id VARCHAR,                    -- the model's id of the call
    turn INTEGER,                       -- the model call concerned
    tool VARCHAR,                       -- sandbox.exec, shell or python
    argv VARCHAR[],                     -- the program and its arguments; null where they are not known any more, redacted
    cwd VARCHAR,                        -- the folder in the workspace
    result VARCHAR,                     -- ok, refused, error, unknown or canceled; null of a lost one
    error_code VARCHAR,                 -- short stable word for the error
    exit_code BIGINT,                   -- how the program ended by itself
    signal BIGINT,                      -- the signal that ended it
    limits VARCHAR[],                   -- limits that were hit, such as timeout, memory or disk
    stdout_bytes BIGINT,                -- bytes that it wrote to stdout
    stderr_bytes BIGINT,                -- bytes that it wrote to stderr
    micros BIGINT,                      -- microseconds that it ran
    generation BIGINT,                  -- the generation of the workspace that it made
    replayable BOOLEAN,                 -- whether it may be run again to bring the workspace back
    lost BOOLEAN NOT NULL               -- whether it was in flight when the run's owner died
);
