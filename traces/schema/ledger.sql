-- What has been projected. A batch's rows and its line here are one transaction.

CREATE TABLE ingest (  -- one projected batch; the newest line is the cursor
    incarnation VARCHAR NOT NULL,       -- the store the rows come from
    schema VARCHAR NOT NULL,            -- hash of the table definitions
    seq BIGINT NOT NULL,                -- the newest frame projected; 0 before the first
    digest VARCHAR NOT NULL,            -- hash of that frame
    at_ns BIGINT NOT NULL,              -- when its last entry was written, Unix ns
    frames INTEGER NOT NULL,            -- frames of the batch
    entries INTEGER NOT NULL            -- entries of the batch
);
