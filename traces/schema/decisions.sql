-- What a run saw, decided and was allowed to do.

CREATE TABLE decisions (  -- what the model decided, as the typed protocol reads it
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent that decided
    turn INTEGER,                       -- the model call it comes from, from 0
    type VARCHAR,                       -- answer, tool_calls, ask_human, handoff, reset, stop or invalid
    tools VARCHAR[],                    -- the capabilities it wants called
    decision VARIANT                    -- the decision, redacted
);

CREATE TABLE context_packets (  -- what the model was shown for one decision
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent
    turn INTEGER,                       -- the model call it was built for, from 0
    tokens BIGINT,                      -- estimated tokens of the packet
    token_limit BIGINT,                 -- the packet's budget
    items INTEGER,                      -- items considered
    omitted INTEGER,                    -- items left out
    messages JSON                       -- the messages, where they are recorded apart from the model call, redacted
);

CREATE TABLE context_items (  -- one item considered for a packet, shown or not
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent
    turn INTEGER,                       -- the model call the packet was built for
    number INTEGER NOT NULL,            -- its place in the packet's account, from 0
    source VARCHAR,                     -- its stable address, such as observation:o4
    kind VARCHAR,                       -- instructions, goal, input, observation, message, tool, evidence or state
    tokens BIGINT,                      -- estimated tokens
    included BOOLEAN,                   -- whether the model was shown it
    reason VARCHAR,                     -- why not
    fresh_at TIMESTAMPTZ                -- how fresh it is; null for what does not age
);

CREATE TABLE observations (  -- what the run has seen
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent
    turn INTEGER,                       -- the model call that led to it
    observation_id VARCHAR,             -- its id within the run
    kind VARCHAR,                       -- model, tool, policy, human or system
    result VARCHAR,                     -- ok, refused, error or unknown
    name VARCHAR,                       -- the capability concerned
    call_id VARCHAR,                    -- the model's id of the call
    summary VARCHAR,                    -- in words, redacted
    data VARIANT                        -- in full, redacted
);

CREATE TABLE validations (  -- a decision, argument or answer was checked
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent
    turn INTEGER,                       -- the model call concerned
    what VARCHAR,                       -- what was checked
    ok BOOLEAN,                         -- whether it passed
    errors VARCHAR[],                   -- what was wrong, redacted
    stage VARCHAR,                      -- of an answer: the stage it came to, result when nothing refused it
    stages VARCHAR[],                   -- the stages it went through, in order
    rules VARCHAR[],                    -- the business rules that failed
    warnings VARCHAR[],                 -- what rules said that refuse nothing, redacted
    checks VARIANT,                     -- what was looked at: good and of how many, by name
    confidence DOUBLE,                  -- the share of the weakest check; NULL when nothing was checked
    verdict VARCHAR,                    -- of a review: approved, edited or rejected
    decided_by VARCHAR                  -- who reviewed it
);

CREATE TABLE obligations (  -- what an agent owes: one row when it is added, settled, handed over, or left open
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent
    turn INTEGER,                       -- the turn in which it happened
    obligation_id VARCHAR,              -- its id within the run
    event VARCHAR,                      -- added, settled, handed_over or left_open
    declared_by VARCHAR,                -- model or runtime
    since INTEGER,                      -- the turn it is owed since
    settled_by VARCHAR,                 -- the observation or turn that settled it
    text VARCHAR                        -- what is owed, redacted
);

CREATE TABLE compactions (  -- the history of an agent was shortened; the same agent goes on
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent
    turn INTEGER,                       -- the turn before which it happened
    number INTEGER,                     -- how many there were in the run, from 1
    messages INTEGER,                   -- messages that are no longer shown
    first_turn INTEGER,                 -- the oldest turn concerned
    last_turn INTEGER,                  -- the newest turn concerned
    tokens_before BIGINT,               -- estimated tokens that a packet would have taken
    tokens_after BIGINT,                -- estimated tokens of the packet that was built instead
    token_limit BIGINT,                 -- the packet's budget
    dropped VARCHAR[],                  -- hashes of these messages
    recap VARIANT                       -- the structured summary that stands for them, redacted
);

CREATE TABLE resets (  -- a fresh agent continues the same run from an artifact
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent
    turn INTEGER,                       -- the turn in which it was decided
    number INTEGER,                     -- how many there were in the run, from 1
    decided_by VARCHAR,                 -- model or policy
    messages INTEGER,                   -- messages that the fresh agent does not see
    obligations INTEGER,                -- obligations that were open
    artifact VARIANT                    -- what it starts from, redacted
);

CREATE TABLE policy_decisions (  -- the gate decided a stage
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow
    key VARCHAR,                        -- the step's key, where a step was decided
    turn INTEGER,                       -- the model call concerned
    call_id VARCHAR,                    -- the model's id of the call concerned
    stage VARCHAR,                      -- request, context, model, capability, output, memory, sandbox or egress
    resource VARCHAR,                   -- the capability, model, agent or manifest concerned
    host VARCHAR,                       -- of egress: the host and port that a program wanted to reach
    outcome VARCHAR,                    -- allow, deny or approval_required
    reason VARCHAR,                     -- why, redacted
    rules VARCHAR[],                    -- ids of the rules that decided
    hits JSON,                          -- each rule with its outcome and reason
    policy_digest VARCHAR,              -- hash of the rules in force
    micros BIGINT                       -- microseconds it took
);

CREATE TABLE events (  -- everything else worth knowing: stages, signals, what other code recorded
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow
    turn INTEGER,                       -- the model call concerned
    topic VARCHAR NOT NULL,             -- what it is about
    name VARCHAR,                       -- the stage or signal
    facts VARIANT,                      -- what was noted
    content VARIANT                     -- what was said, redacted
);
