"""What is written about one engine: a table, what was wanted, and a plot."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Final

from bench.page import DOCS, Section, table
from bench.peers.load import ENGINES
from bench.peers.measure import PROCESSES, THREADS, Case, Figures, Found, measure
from bench.peers.model import OURS

__all__ = ["ENGINES", "section"]

ALONE: Final = {"sqlite": 0.85, "postgresql": 0.85, "redis": 0.85, "redis-memory": 0.85}
"""How much of the bare statement's rate one thread must reach; 0.9 elsewhere."""

CROWDED: Final = {
    "sqlite": 4.0,
    "postgresql": 8.0,
    "redis": 1.2,
    "redis-memory": 1.8,
    "dynamodb": 15.0,
    "simpledb": 50.0,
}
"""How many times as fast as the best peer 32 threads must be."""

SEVERAL: Final = {"sqlite": 3.0, "postgresql": 3.0, "redis": 1.5, "redis-memory": 1.5, "etcd": 20.0}
"""The same of four processes of eight threads."""

SYNCS: Final = {"sqlite": 6.0}
"""How many times as often as the disk syncs 1,000 tasks must add."""

Mark = tuple[str, float, float]
"""What, how much, and how much at least."""


def section(key: str, advance: Callable[[float], object]) -> Section:
    """Measure on the engine, draw, and write."""
    found = measure(key, advance)
    plot = _draw(key, found)
    heads = ("", "adds a second", "from – to", "p50, µs", "p99, µs", "requests an add")
    rows = [
        (f"{case}, {name}", *_cells(case, name, figures, found))
        for (case, name), figures in found.figures.items()
    ]
    marks = list(_marks(key, found)) if any(name == OURS for _, name in found.figures) else []
    wanted = [(what, f"{is_:.2f}", f"{least:.2f}") for what, is_, least in marks]
    text = (
        f"![Throughput over threads: {found.engine.title}]({plot})\n\n"
        + table((*heads, "slowest / mean", "errors", "exact"), rows)
        + ("\n\n" + table(("", "is", "at least"), wanted) if wanted else "")
    )
    failures = [
        f"{found.engine.title}: {what} {is_:.2f}, {least:.2f} wanted"
        for what, is_, least in marks
        if is_ < least
    ]
    failures += [
        f"{found.engine.title}: {case}, ours is not exact"
        for (case, name), figures in found.figures.items()
        if name == OURS and not figures.exact
    ]
    return Section(f"Peers on {found.engine.title}", text, failures)


def _cells(case: Case, name: str, figures: Figures, found: Found) -> Iterator[str]:
    yield f"{figures.rate:,.0f}"
    lowest, *_, highest = statistics.quantiles(figures.rates, n=10, method="inclusive")
    yield f"{lowest:,.0f} – {highest:,.0f}"
    yield f"{figures.median:,.0f}"
    yield f"{figures.high:,.0f}"
    wired = case == Case(threads=case.threads)
    requests = found.requests.get((case.threads, name)) if wired else None
    yield "" if requests is None else f"{requests:.3g}"
    yield f"{figures.share:.2f}" if case.threads > 1 or case.processes > 1 else ""
    yield ", ".join(f"{count:,} {error}" for error, count in figures.errors.items())
    yield "yes" if figures.exact else "**no**"


def _marks(key: str, found: Found) -> Iterator[Mark]:
    """What is wanted of ours here."""

    def ours(case: Case) -> Figures:
        return found.figures[case, OURS]

    def against(case: Case, *names: str) -> float:
        """Times the best of these peers, by default of all that count exactly, or not."""
        peers = [
            figures
            for (which, name), figures in found.figures.items()
            if which == case and name != OURS and (not names or name in names)
        ]
        return min(ours(case).over(peer) for peer in peers)

    alone, crowded = Case(), Case(threads=32)
    yield "1 thread, × the bare statement", against(alone, found.engine.bare), ALONE.get(key, 0.9)
    if key == "etcd":
        bare, locked = (each.name for each in found.engine.contenders[1:])
        yield "32 threads, × the loop", against(crowded, bare), 80
        yield "32 threads, × the loop with a lock", against(crowded, locked), 15
    else:
        yield "32 threads, × the best peer", against(crowded), CROWDED[key]
    rates = [ours(Case(threads=threads)).rate for threads in THREADS]
    rises = min(later / earlier for earlier, later in itertools.pairwise(rates))
    yield "from 1 to 128 threads, the least rise", rises, 1
    most = ours(Case(threads=THREADS[-1]))
    yield "128 threads, 3 × median / p99", 3 * most.median / most.high, 1
    yield "128 threads, the slowest / the mean", most.share, 0.5
    if key in SEVERAL:
        yield "4 processes × 8, × the best peer", against(Case(PROCESSES, 8)), SEVERAL[key]
    yield "4 processes × 8, the slowest / the mean", ours(Case(PROCESSES, 8)).share, 0.5
    tasks = [case for case, _ in found.figures if case.tasks]
    if tasks and key in SYNCS:
        disk = sorted(found.syncs)[len(found.syncs) // 2]
        yield (
            f"{tasks[0]}, × fdatasync ({disk:,.0f} a second)",
            ours(tasks[0]).rate / disk,
            SYNCS[key],
        )
    elif tasks:
        yield f"{tasks[0]}, × redis.asyncio `INCR`", against(tasks[0]), 5
    if (32, OURS) in found.requests:
        yield "32 threads, adds a request", 1 / found.requests[32, OURS], 8


def _draw(key: str, found: Found) -> str:
    """Draw throughput over threads, for print too: no colour tells anything."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": key, "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    styles = zip("os^Dv", ("-", "--", ":", "-.", "--"), strict=True)
    for contender, (marker, line) in zip(found.engine.contenders, styles, strict=False):
        rates = [found.figures[Case(threads=n), contender.name].rate for n in THREADS]
        colour = "black" if contender.name == OURS else "0.45"
        label = contender.name.replace("`", "")
        axes.plot(THREADS, rates, line, marker=marker, color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel="threads", ylabel="adds a second")
    axes.set_xticks(THREADS, [str(threads) for threads in THREADS])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.grid(color="0.9")
    axes.set_title(found.engine.title, loc="left")
    axes.legend(frameon=False)
    figure.savefig(DOCS / f"throughput-{key}.svg", metadata={"Date": None})
    pyplot.close(figure)
    return f"throughput-{key}.svg"
