"""The main job, as `make demo` runs it: a batch of research questions on Ray, then five questions to its traces.

    python demo.py [--limit N]

Uses the built-in offline model: nothing to configure, no network. Answers go to out/answers.jsonl.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE / "out"
RETINUE = [sys.executable, "-c", "from retinue.ingress.cli import console; console()"]

QUESTIONS = {
    "How did the runs end, and how long did they take?": """
        select agent, status, reason, count(*) as runs, round(avg(duration_ms), 1) as avg_ms
        from runs group by all order by runs desc, agent""",
    "Which actors did the work?": """
        select pid, node, left(actor_id, 12) as actor, count(*) as runs, count(distinct agent) as agents
        from runs where parent_run_id is not null group by all order by runs desc""",
    "Which tools were called, how often, how slow?": """
        select tool, count(*) as calls, count(*) filter (result <> 'ok') as not_ok,
               round(quantile_cont(duration_ms, 0.95), 1) as p95_ms
        from tool_calls group by tool order by calls desc""",
    "Which documents served most questions?": """
        select tool_arguments, count(*) as notes from (
          select unnest(cast(arguments::json->'documents' as varchar[])) as tool_arguments
          from tool_calls where tool = 'remember_sources') group by 1 order by notes desc, 1 limit 5""",
    "What did the gate decide?": """
        select stage, outcome, count(*) as decisions from policy_decisions group by all order by decisions desc""",
}


def retinue(*words: str) -> None:
    """Run a command and stop at its failure."""
    code = subprocess.run([*RETINUE, *words], cwd=HERE).returncode
    if code != 0:
        sys.exit(code)


def main() -> None:
    """Start a runtime, run the batch, ask the traces, score the answers, stop the runtime."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=300, help="how many questions (default: all 300)")
    limit = parser.parse_args().limit
    OUT.mkdir(exist_ok=True)
    retinue("up")
    try:
        batch = ["--input", "questions.jsonl", "--output", "out/answers.jsonl", "--limit", str(limit), "--force"]
        retinue("batch", "research", *batch)
        for question, sql in QUESTIONS.items():
            print(f"\n-- {question}", flush=True)
            retinue("sql", sql)
    finally:
        retinue("down")
    print("\n-- How good are the answers? (score.py, by kind of question)", flush=True)
    score = [sys.executable, "score.py", "out/answers.jsonl", "--gold", "gold.jsonl", "--documents", "documents"]
    sys.exit(subprocess.run(score, cwd=HERE).returncode)


if __name__ == "__main__":
    main()
