"""What Redis is asked to do in one atomic step: Lua scripts, and how requests are written. Pure.

A script that fails leaves its earlier writes in place. So each of these writes
nothing before the last check that can fail: the first write is one that Redis
refuses where it refuses any (no memory, a replica, no permission).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from truecount.record import make

__all__ = [
    *("ADD", "LIMIT", "NEXT", "READ", "REMOVE", "REPLACE"),
    *("Request", "Script", "command", "packed", "text_of"),
]

LIMIT: Final = 2**52
"""Lua's numbers are doubles: sums of two numbers below this are exact."""


class Request(NamedTuple):
    """A request that concerns ``key``, as it is sent, and the script that it runs, if any.

    ``key`` decides which node of a cluster it goes to.
    """

    key: bytes
    packed: bytes
    script: Script | None = None


def command(*parts: bytes) -> bytes:
    """A command, as it travels."""
    return b"*%d\r\n%b" % (len(parts), packed(*parts))


def packed(*parts: bytes) -> bytes:
    """Parts of a command, as they travel."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


class Script:
    """A Lua script. Redis is sent its hash, and the text only when it does not know that."""

    def __init__(self, text: str) -> None:
        encoded = text.encode()
        self.digest = hashlib.sha1(encoded, usedforsecurity=False).hexdigest().encode()
        self._by_hash = packed(b"EVALSHA", self.digest)
        self._by_text = packed(b"EVAL", encoded)

    def call(self, keys: Sequence[bytes], *arguments: bytes) -> Request:
        """The request to run it on ``keys``, which lie in one slot."""
        tail = packed(b"%d" % len(keys), *keys, *arguments)
        return make(Request, (keys[0], self.head(len(keys) + len(arguments)) + tail, self))

    def head(self, count: int) -> bytes:
        """How a request begins that has ``count`` keys and arguments."""
        return b"*%d\r\n%b" % (3 + count, self._by_hash)

    def in_full(self, request: bytes) -> bytes:
        """What to send where Redis has lost the script: ``request`` with its text."""
        return request.replace(self._by_hash, self._by_text, 1)


def text_of(value: object) -> bytes:
    """``value`` as an argument."""
    return str(value).encode()


ADD: Final = Script(f"""
local writer, number, since, total, lowest, highest, expected, now, keep = string.match(ARGV[1],
    '^(%S+) (%d+) (%d+) (%-?%d+) (%-?%d+) (%-?%d+) (%-?%d*) (%d+) (%d+)$')
local key, mine, beyond = KEYS[1], 'w:' .. writer, writer .. ' ' .. number
local there = redis.call('HMGET', key, 'truecount', 'value', 'last', mine)
local state, value, last, line = there[1], there[2], there[3], there[4]
if not (state and value and last) then return beyond end
local newest = line
if last ~= writer then newest = redis.call('HGET', key, 'w:' .. last) end
if not newest then return beyond end

local known, revision, time, after, low, high = string.match(newest,
    '^(%d+) (%d+) (%d+) %-?%d+ (%-?%d+) %S+ (%-?%d*) (%-?%d*)$')
if expected ~= '-' and expected ~= value then return beyond end
if after ~= value or #value > 17 or #revision > 17 or #time > 17 then return beyond end
local v, r = tonumber(value), tonumber(revision)
if v >= {LIMIT} or v <= -{LIMIT} or r >= {LIMIT} then return beyond end

local horizon = string.match(state, '^1 live (%d+)$')
if not horizon or #horizon > 17 then return beyond end
local h = tonumber(horizon)
if not line then
    if h > tonumber(since) or h > r then return beyond end
else
    if last ~= writer then known = string.match(line, '^(%d+) ') end
    if not known or #known > 17 or tonumber(known) >= tonumber(number) then return beyond end
end
if low ~= '-' then
    local minimum = #low <= 17 and tonumber(low)
    if not minimum or minimum <= -{LIMIT} or v + tonumber(lowest) < minimum then return beyond end
end
if high ~= '-' then
    local maximum = #high <= 17 and tonumber(high)
    if not maximum or maximum >= {LIMIT} or v + tonumber(highest) > maximum then return beyond end
end

local gone
local surplus = line and 0 or redis.call('HLEN', key) - 3 - tonumber(keep) + 1
if surplus > 0 then
    gone = {{}}
    local all, lines = redis.call('HGETALL', key), {{}}
    for i = 1, #all, 2 do
        if string.sub(all[i], 1, 2) == 'w:' then
            local written = string.match(all[i + 1], '^%d+ (%d+) ')
            if not written or tonumber(written) > r then return beyond end
            lines[#lines + 1] = {{tonumber(written), all[i]}}
        end
    end
    if #lines < surplus then return beyond end
    table.sort(lines, function(a, b) return a[1] < b[1] end)
    for i = 1, surplus do
        gone[i] = lines[i][2]
        h = math.max(h, lines[i][1])
    end
end

if #time < #now or (#time == #now and time < now) then time = now end
after = string.format('%.0f', v + tonumber(total))
line = string.format('%s %.0f %s %s %s + %s %s', number, r + 1, time, value, after, low, high)
if last == writer then
    redis.call('HSET', key, 'value', after, mine, line)
else
    state = string.format('1 live %.0f', h)
    redis.call('HSET', key, 'truecount', state, 'value', after, 'last', writer, mine, line)
end
-- A line too many does no harm, should Redis refuse this.
if gone then redis.pcall('HDEL', key, unpack(gone)) end
return writer .. ' ' .. line .. ' ' .. state
""")
"""Adds up to 2**52 by itself: ``writer number since total lowest highest expected now keep``.

``expected`` is the value that it is to be added to, or ``-``.

Answers ``writer``, its new line and ``truecount`` when all of the batch was applied,
and ``writer number`` when there is more to it, having written nothing.
"""

NEXT: Final = Script("""
local key, mine = KEYS[1], ARGV[1]
local there = redis.call('HMGET', key, 'last', 'truecount', 'value', mine)
if there[1] ~= ARGV[2] or there[2] ~= ARGV[3] or there[3] ~= ARGV[4] or there[4] ~= ARGV[5] then
    return ARGV[8] .. ' -'
end
redis.call('HSET', key, 'value', ARGV[6], mine, ARGV[7])
return ARGV[8] .. ' +'
""")
"""Adds where the record is still the one that this writer left: what `ADD` would write.

The field of the writer's line; ``last``, ``truecount``, ``value`` and that line, as they
are; ``value`` and the line, as they shall be; ``writer number``, which is the answer, with
a ``+``, or a ``-`` when nothing was written.
"""

READ: Final = Script("""
-- Removes nothing, since nobody else has such a field. A replica, which may lag behind,
-- refuses it first of all; any other refusal is none of reading.
local denied = redis.pcall('HDEL', KEYS[1], ARGV[1])
if type(denied) == 'table' and string.sub(denied.err or '', 1, 9) == 'READONLY ' then
    return redis.error_reply(denied.err)
end
local record, receipts = redis.call('HGETALL', KEYS[1]), {}
for i = 2, #KEYS do receipts[i - 1] = redis.call('GET', KEYS[i]) end
if ARGV[2] == 'touch' and record[1] then
    -- WAIT waits for what its own connection has written.
    local last = redis.call('HGET', KEYS[1], 'last')
    if last then redis.call('HSET', KEYS[1], 'last', last) end
end
return {ARGV[1], record, receipts}
""")
"""Reads a record and receipts of keys, on the primary only; answers ``nonce`` before them.

``nonce``, and perhaps ``touch``: so that WAIT tells whether replicas have it.
"""

REPLACE: Final = Script("""
local key, name, writer = KEYS[1], ARGV[1], ARGV[2]
local holds
if writer == '' then
    holds = redis.call('EXISTS', key) == 0
else
    local there = redis.call('HMGET', key, 'truecount', 'value', 'last', 'w:' .. writer)
    local stamp = ARGV[5]
    holds = there[1] == ARGV[3] and there[2] == ARGV[4] and there[3] == writer
        and there[4] and string.sub(there[4], 1, #stamp) == stamp
end
if not holds then return {name, 0, redis.call('HGETALL', key)} end
for i = 2, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then return {name, 0} end
end

local ttl, sets = ARGV[6], 8 + ARGV[7]
local removes = sets + 1 + ARGV[sets]
-- Sets nothing, since nothing is there: whatever Redis may refuse, it refuses here.
for i = 2, #KEYS do redis.call('SET', KEYS[i], '', 'XX', 'PX', ttl) end
redis.call('HSET', key, unpack(ARGV, 8, sets - 1))
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[removes + i - 2], 'PX', ttl) end
-- A line too many does no harm, should Redis refuse this.
if removes > sets + 1 then redis.pcall('HDEL', key, unpack(ARGV, sets + 1, removes - 1)) end
return {name, 1}
""")
"""Writes a record, and receipts of keys, if the old one is there and those are not.

``name``; the old ``writer``, ``truecount``, ``value`` and ``number revision ``
(empty: absent); the milliseconds that keys are kept; how many arguments of HSET
follow, and these; how many fields to remove, and these; the receipts.
"""

REMOVE: Final = Script("""
local there = redis.call('HMGET', KEYS[1], 'truecount', 'last', 'w:' .. ARGV[2])
if there[1] ~= ARGV[1] or there[2] ~= ARGV[2] or there[3] ~= ARGV[3] then return 0 end
return redis.call('DEL', KEYS[1])
""")
"""Removes a tombstone, if it is still the same: ``truecount``, the writer, and its line."""
