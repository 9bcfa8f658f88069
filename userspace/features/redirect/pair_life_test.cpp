// SPDX-License-Identifier: GPL-2.0-only
//
// The life of a pair, checked exhaustively: every order of the steps of its senders, its readers, the timer,
// whoever makes it leave, and the joiner. A step is what bpf/sockops/redirect*.h does at once: a read, a
// compare-and-swap, a deletion. Each state must keep what applications are promised (I10):
//
//  - a reader that waits for an edge while bytes are readable has one coming;
//  - bytes of one thread arrive in their order;
//  - none is lost: no end leaves the map with redirected bytes unread, or with some on their way to it.
//
// The kernel that is modelled is the worst one: its recv ends at the end of the redirected bytes, and its
// FIONREAD does not count what TCP has for a joined socket. Readers are the two kinds that such a kernel hurts:
// those that take a short read for an empty socket, and those that read as much as FIONREAD says.
//
// What was mended once is taken out again below, part by part: then the same search finds what had gone wrong.
#include <gtest/gtest.h>

#include <array>
#include <bitset>
#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
#include <vector>

#include <fmt/format.h>

namespace netctl::redirect {
namespace {

/// Messages, oldest first, four bits each: the thread, times four, and its serial number from 1 on.
using Messages = std::uint32_t;

Messages appended(Messages all, unsigned message) {
    unsigned at = 0;
    while ((all >> at & 15U) != 0)
        at += 4;
    return all | message << at;
}

/// What is left out of the programs, by bit.
enum Mutation : unsigned {
    remove_alone,    ///< an end is deleted when its own queue is empty (finding C12)
    no_rest,         ///< rd_join does not ask whether anything is unread (finding F1)
    no_second_look,  ///< nor again behind the insertion
    no_wake,         ///< the joiner wakes nobody behind a pair that it took back
    no_passed_by,    ///< a send that began before joining is not noticed
    no_interruption, ///< a message does not keep others from closing the gate
    no_references,   ///< the gate closes without a look at who is sending
    turn_unread,     ///< a direction turns though its reader has not read what came by TCP
    no_end_of_turn,  ///< what finds room in the queue is redirected behind what found none
    mutations,
};
using Mutations = std::bitset<mutations>;

enum Place : std::uint8_t { apart, joined, leaving, left };
enum Gate : std::uint8_t { turned_0 = 1, turned_1 = 2, closing = 4, closed = 8 };
enum class Reads : std::uint8_t { short_is_empty, as_counted };

/// Where a process is in its work; what it remembers is beside it.
enum Pc : std::uint8_t {
    rest,
    // a send
    plain_write,
    map_begin,
    map_enter,
    map_decide,
    map_turn,
    map_turn_recheck,
    map_turn_leave,
    map_verdict,
    map_enqueue,
    pass_write,
    callback,
    callback_delete_0,
    callback_delete_1,
    callback_recheck,
    callback_leave,
    callback_tell,
    transmit,
    // a read
    count_first,
    in_recv,
    // closing the gate; then where `then` says
    gate_mark,
    gate_idle_0,
    gate_idle_1,
    gate_drained_0,
    gate_drained_1,
    gate_close,
    // taking out
    out_delete_0,
    out_delete_1,
    out_free,
    // joining
    join_insert_0,
    join_insert_1,
    join_rest,
    join_count_0,
    join_count_1,
    join_mark,
    join_look,
    join_settle,
    join_recheck,
    undo_delete_0,
    undo_delete_1,
    undo_free,
    undo_wake,
};

struct Process {
    std::uint8_t pc = rest;
    std::uint8_t then = rest; ///< behind the gate, if it was closed
    std::uint8_t otherwise = rest;
    std::uint8_t gate = 0; ///< as it was when we marked it
    std::uint8_t sent = 0;
    std::uint8_t psock = 0; ///< holds that of its end
    std::uint8_t is_turned = 0;
    std::uint8_t pair = 0; ///< that it works on: a later joining is in another slot
};

// Processes: two threads that send on end 0, one on end 1; a reader on each; timer; joiner.
enum Who : unsigned { sender_a, sender_b, sender_c, reader_0, reader_1, timer, joiner, processes };

struct State {
    std::array<Messages, 2> queue{}, tcp{},
        wire{}; ///< redirected; arrived; on their way, by reader
    std::array<std::uint8_t, 2> written{}, copied{}, at_join{}; ///< messages by TCP
    std::array<std::uint8_t, 2> in_map{}, edge{}, wake{};
    std::array<std::uint8_t, 2> behind{}; ///< by reader: something went by TCP behind its queue
    std::array<std::array<std::uint8_t, 3>, 2> read{}; ///< by reader and sender: the last
    std::uint8_t place = apart, gate = 0, closer = 0, settled = 0, marked = 0, joins = 0;
    std::uint8_t padding[2] = {};
    std::array<Process, processes> process{};
};
static_assert(std::has_unique_object_representations_v<State>);

struct Scenario {
    bool joined = false;     ///< from the beginning; else the joiner may join them once or twice
    bool turned = false;     ///< and redirected, both ways
    bool leaves = false;     ///< somebody makes it leave at any time
    bool lacks_room = false; ///< any message may find the queue of its reader too long
    std::array<unsigned, 3> messages{};
    Reads reads = Reads::short_is_empty;
    Mutations without;
};

constexpr unsigned end_of(unsigned who) {
    return who == sender_c || who == reader_1 ? 1 : 0;
}

class Search {
  public:
    explicit Search(const Scenario& scenario) : scenario_(scenario) {}

    /// What is wrong in a state that can be reached; empty if nothing.
    std::string run() {
        State begin;
        if (scenario_.joined) {
            begin.place = joined;
            begin.marked = begin.settled = begin.in_map[0] = begin.in_map[1] = 1;
            begin.gate = scenario_.turned ? turned_0 | turned_1 : 0;
        }
        add(begin);
        while (wrong_.empty() && !todo_.empty()) {
            const State now = todo_.front();
            todo_.pop_front();
            if (scenario_.leaves && now.place == joined)
                try_step(now, [](State& s) { s.place = leaving; });
            for (unsigned end = 0; end < 2; end++)
                if (now.wire[end] != 0)
                    try_step(now, [&](State& s) { arrive(s, end); });
            for (unsigned who = 0; who < processes; who++) {
                try_step(now, [&](State& s) { step(s, who); });
                if (scenario_.lacks_room && now.process[who].pc == map_verdict)
                    try_step(now, [&](State& s) { finds_no_room(s, who); });
            }
        }
        return wrong_;
    }
    std::size_t states() const { return seen_.size(); }

  private:
    bool without(Mutation what) const { return scenario_.without[what]; }
    void fail(const char* what) {
        if (wrong_.empty())
            wrong_ = what;
    }

    template <class Change> void try_step(const State& now, const Change& change) {
        State next = now;
        change(next);
        if (std::memcmp(&next, &now, sizeof(now)) != 0)
            add(next);
    }
    /// Of 64 bits: two of a million states have the same once in 30 million searches.
    static std::uint64_t fingerprint(const State& state) {
        std::uint64_t hash = 0x9e3779b97f4a7c15;
        std::array<std::uint64_t, (sizeof(State) + 7) / 8> words{};
        std::memcpy(words.data(), &state, sizeof(state));
        for (const std::uint64_t word : words) {
            hash = (hash ^ word) * 0xff51afd7ed558ccd;
            hash ^= hash >> 32;
        }
        return hash;
    }
    void add(const State& state) {
        if (!seen_.insert(fingerprint(state)).second)
            return;
        for (unsigned end = 0; end < 2; end++)
            if (waits_for_nothing(state, end))
                fail("a reader waits, bytes are readable, and no edge is due");
        todo_.push_back(state);
    }

    // ---- the kernel ----

    static bool sending(const Process& p) { return p.pc != rest; }
    bool waits_for_nothing(const State& s, unsigned end) const {
        const Process& reader = s.process[end == 0 ? reader_0 : reader_1];
        if (reader.pc != rest || s.edge[end] != 0 || (s.queue[end] | s.tcp[end]) == 0)
            return false;
        if (s.wire[end] != 0 || s.wake[end] != 0)
            return false;
        if (s.process[joiner].pc != rest) // in the middle of rd_join, which tells whom to wake
            return false;
        return end == 1 ? !sending(s.process[sender_a]) && !sending(s.process[sender_b])
                        : !sending(s.process[sender_c]);
    }
    static void arrive(State& s, unsigned end) {
        s.tcp[end] = appended(s.tcp[end], s.wire[end] & 15U);
        s.wire[end] >>= 4;
        s.edge[end] = 1;
    }
    void erase(State& s, const Process& by, unsigned end) {
        if (by.pair == s.joins)
            remove(s, end);
    }
    void remove(State& s, unsigned end) {
        if (s.in_map[end] != 0 && s.queue[end] != 0)
            fail("an end left the map with redirected bytes unread");
        s.in_map[end] = 0;
    }
    void take(State& s, unsigned end, Messages& from) {
        for (; from != 0; from >>= 4) {
            const unsigned sender = from >> 2 & 3U, number = from & 3U;
            if (number != s.read[end][sender] + 1U)
                fail("bytes of one thread arrived out of order");
            s.read[end][sender] = static_cast<std::uint8_t>(number);
            if (&from == &s.tcp[end])
                s.copied[end]++;
        }
    }
    static bool idle(const State& s, unsigned end, unsigned me) {
        for (unsigned who = 0; who < processes; who++)
            if (who != me && who != timer && who != joiner && end_of(who) == end &&
                s.process[who].psock != 0)
                return false;
        return true;
    }
    /// The socket's lock: a send has it while it asks the program, and writes to TCP.
    static bool locked(const State& s, unsigned end) {
        const auto holds = [&](unsigned who) {
            const std::uint8_t pc = s.process[who].pc;
            return end_of(who) == end && pc != rest && pc != plain_write && pc != map_begin &&
                   pc != map_enter && pc != map_enqueue;
        };
        return holds(sender_a) || holds(sender_b) || holds(sender_c);
    }
    static bool at_rest(const State& s) {
        return s.copied[1] == s.written[0] && s.copied[0] == s.written[1] && !locked(s, 0) &&
               !locked(s, 1);
    }

    // ---- the programs ----

    static void close_gate(Process& p, Pc then, Pc otherwise) {
        p.pc = gate_mark;
        p.then = then;
        p.otherwise = otherwise;
    }
    void gate_step(State& s, unsigned who) {
        Process& p = s.process[who];
        const bool looks = !without(no_references);
        if (p.pair != s.joins) { // that gate is closed
            p.pc = p.then;
            return;
        }
        switch (p.pc) {
        case gate_mark:
            if ((s.gate & closed) != 0) {
                p.pc = p.then;
            } else if (s.queue[0] != 0 || s.queue[1] != 0) {
                p.pc = p.otherwise;
            } else {
                p.gate = s.gate |= closing;
                s.closer = static_cast<std::uint8_t>(who); // as the number of the try tells
                p.pc = gate_idle_0;
            }
            return;
        case gate_idle_0:
        case gate_idle_1: {
            const unsigned end = p.pc - gate_idle_0;
            const bool asks = looks && (s.gate & (turned_0 << end)) != 0;
            p.pc = asks && !idle(s, end, who) ? unmark(s, who) : p.pc + 1;
            return;
        }
        case gate_drained_0:
        case gate_drained_1:
            p.pc = s.queue[p.pc - gate_drained_0] != 0 ? unmark(s, who) : p.pc + 1;
            return;
        default:
            if ((s.gate & closed) != 0) {
                p.pc = p.then;
            } else if (s.gate == p.gate && s.closer == who) {
                s.gate = static_cast<std::uint8_t>((s.gate & ~closing) | closed);
                p.pc = p.then;
            } else {
                p.pc = p.otherwise;
            }
        }
    }
    static std::uint8_t unmark(State& s, unsigned who) {
        if (s.gate == s.process[who].gate && s.closer == who)
            s.gate &= static_cast<std::uint8_t>(~closing);
        return s.process[who].otherwise;
    }
    static void make_leave(State& s) {
        if (s.place == joined)
            s.place = leaving;
    }

    /// Messages are of any size: there may be room for one behind another that had none.
    static void finds_no_room(State& s, unsigned who) {
        const unsigned other = 1 - end_of(who);
        if (s.place != leaving || s.queue[other] == 0)
            return;
        s.behind[other] = s.wake[other] = 1; // the joiner is told
        s.process[who].pc = pass_write;
    }

    /// Behind the gate: both ends, then the pair is free.
    void out_step(State& s, Process& p, Pc then) {
        switch (p.pc) {
        case out_delete_0:
        case out_delete_1:
            erase(s, p, p.pc - out_delete_0);
            p.pc++;
            return;
        default:
            if (s.place == leaving && p.pair == s.joins)
                s.place = left;
            p.pc = then;
        }
    }
    /// As it once was: each end by itself.
    void remove_what_is_empty(State& s) {
        for (unsigned end = 0; end < 2; end++)
            if (s.queue[end] == 0 && idle(s, 1 - end, processes))
                remove(s, end);
        if (s.in_map[0] == 0 && s.in_map[1] == 0)
            s.place = left;
    }

    void send_step(State& s, unsigned who) {
        Process& p = s.process[who];
        const unsigned me = end_of(who), other = 1 - me;
        const auto message = static_cast<unsigned>(who << 2 | p.sent);
        const auto turned = static_cast<std::uint8_t>(turned_0 << me);
        const bool passes_by = s.written[me] != s.at_join[me] && !without(no_passed_by);
        switch (p.pc) {
        case rest:
            if (p.sent == scenario_.messages[who])
                return;
            p.sent++;
            p.pc = s.in_map[me] != 0 ? map_begin : plain_write;
            return;
        case map_begin: // tcp_bpf_sendmsg
            p.psock = s.in_map[me];
            p.pc = p.psock != 0 ? map_enter : plain_write; // out meanwhile: plain
            return;
        case map_enter: // has the lock from here on; the beginning of rd_msg
            if (locked(s, me))
                return;
            p.pair = s.joins;
            if (s.marked == 0) {
                p.pc = pass_write;
                return;
            }
            if (!without(no_interruption))
                s.gate &= static_cast<std::uint8_t>(~closing);
            p.is_turned = (s.gate & turned) != 0;
            p.pc = (s.gate & closed) != 0 ? pass_write : map_decide;
            return;
        case map_decide:
            if (s.place != joined && without(remove_alone))
                p.pc = s.queue[other] == 0 || p.is_turned == 0 ? pass_write : map_verdict;
            else if (s.place != joined && s.behind[other] != 0 && !without(no_end_of_turn))
                close_gate(p, pass_write, pass_write);
            else if (s.place != joined)
                close_gate(p, pass_write, p.is_turned != 0 ? map_verdict : map_turn);
            else
                p.pc = p.is_turned != 0 ? map_verdict : map_turn;
            return;
        case map_turn:
            if (s.copied[other] != s.written[me] && !without(turn_unread)) {
                if (s.place != joined) { // and cannot close the gate: the joiner is told
                    s.behind[other] = s.wake[other] = 1;
                    p.pc = pass_write;
                } else if (s.settled == 0) {
                    close_gate(p, map_turn_recheck, map_turn_leave);
                } else {
                    p.pc = map_turn_leave;
                }
                return;
            }
            p.pc = p.pair != s.joins || (s.gate & closed) != 0 ? pass_write : map_verdict;
            if (p.pc == map_verdict)
                s.gate |= turned;
            return;
        case map_turn_recheck: // else rd_join finds the gate closed
            if (s.settled != 0 && p.pair == s.joins)
                make_leave(s);
            p.pc = pass_write;
            return;
        case map_turn_leave:
            make_leave(s);
            close_gate(p, pass_write, map_turn);
            return;
        case map_verdict: // the helper looks the other end up
            if (s.in_map[other] == 0)
                make_leave(s);
            p.pc = s.in_map[other] != 0 ? map_enqueue : pass_write;
            return;
        case map_enqueue:
            if (s.in_map[other] == 0)
                fail("a redirected message found its reader gone");
            s.queue[other] = appended(s.queue[other], message);
            s.edge[other] = 1;
            p.psock = 0;
            p.pc = rest;
            return;
        case plain_write:
            if (locked(s, me))
                return;
            s.written[me]++;
            p.pc = callback;
            return;
        case pass_write:
            s.written[me]++;
            p.pc = callback;
            return;
        case callback: // HDR_OPT_LEN
            p.pair = s.joins;
            if (s.marked == 0 || s.place == apart || s.place == left)
                p.pc = transmit;
            else if (s.place == leaving && without(remove_alone)) {
                remove_what_is_empty(s);
                p.pc = transmit;
            } else if (s.place == leaving)
                close_gate(p, out_delete_0, passes_by ? callback_tell : transmit);
            else if (!passes_by)
                p.pc = transmit;
            else if (s.settled == 0)
                close_gate(p, callback_delete_0, callback_leave);
            else
                p.pc = callback_leave;
            return;
        case callback_delete_0:
        case callback_delete_1:
            erase(s, p, p.pc - callback_delete_0);
            p.pc++;
            return;
        case callback_recheck: // else rd_join finds the gate closed
            p.pc = s.settled != 0 ? callback_leave : transmit;
            return;
        case callback_leave:
            if (p.pair == s.joins)
                make_leave(s);
            close_gate(p, out_delete_0, callback_tell);
            return;
        case callback_tell: // it stays in the map: the joiner wakes the reader when it is out
            if (p.pair == s.joins && !without(no_wake))
                s.wake[other] = 1;
            p.pc = transmit;
            return;
        case out_delete_0:
        case out_delete_1:
        case out_free: out_step(s, p, transmit); return;
        case transmit:
            s.wire[other] = appended(s.wire[other], message);
            p.psock = 0;
            p.pc = rest;
            return;
        default: gate_step(s, who);
        }
    }

    void read_step(State& s, unsigned who) {
        Process& p = s.process[who];
        const unsigned me = end_of(who);
        const bool counts = scenario_.reads == Reads::as_counted;
        switch (p.pc) {
        case rest:
            if (s.edge[me] == 0)
                return;
            s.edge[me] = 0;
            p.pc = counts ? count_first : in_recv;
            p.psock = counts ? 0 : s.in_map[me];
            return;
        case count_first:
            p.pc = (s.in_map[me] != 0 ? s.queue[me] : s.tcp[me]) != 0 ? in_recv : rest;
            p.psock = p.pc == in_recv ? s.in_map[me] : 0;
            return;
        default: // in_recv: of the map, if it began there
            if (locked(s, me))
                return;
            take(s, me, p.psock != 0 && s.queue[me] != 0 ? s.queue[me] : s.tcp[me]);
            p.psock = 0;
            p.pc = counts ? count_first : rest;
        }
    }

    void timer_step(State& s) {
        Process& p = s.process[timer];
        if (p.pc != rest) {
            if (p.pc == out_delete_0 || p.pc == out_delete_1 || p.pc == out_free)
                out_step(s, p, rest);
            else
                gate_step(s, timer);
        } else if (s.place == leaving) {
            p.pair = s.joins;
            if (without(remove_alone))
                remove_what_is_empty(s);
            else
                close_gate(p, out_delete_0, rest);
        }
        if (p.pc == rest)
            p = {};
    }

    void join_step(State& s) {
        Process& p = s.process[joiner];
        switch (p.pc) {
        case rest:
            // Wakes those that it was told of; in the map they would be told by FIONREAD that nothing is there.
            for (unsigned end = 0; end < 2; end++)
                if (s.wake[end] != 0 && s.in_map[end] == 0 && s.queue[end] == 0) {
                    s.wake[end] = 0;
                    s.edge[end] = 1;
                }
            if (s.place != apart || s.joins == (scenario_.leaves ? 1 : 2) || scenario_.joined)
                return;
            if (!at_rest(s) && !without(no_rest))
                return;
            p.pair = ++s.joins;
            s.gate = s.settled = s.marked = 0;
            p.pc = join_insert_0;
            return;
        case join_insert_0:
        case join_insert_1:
            s.in_map[p.pc - join_insert_0] = 1;
            p.pc++;
            return;
        case join_rest: // the last of the looks: to look again is to look later
            p.pc = at_rest(s) || without(no_rest) ? join_count_0 : undo_delete_0;
            return;
        case join_count_0:
        case join_count_1:
            s.at_join[p.pc - join_count_0] = s.written[p.pc - join_count_0];
            p.pc++;
            return;
        case join_mark:
            s.marked = 1;
            s.place = joined;
            p.pc = join_look;
            return;
        case join_look: {
            const bool rests = at_rest(s) && idle(s, 0, processes) && idle(s, 1, processes);
            if (rests || without(no_rest) || without(no_second_look))
                p.pc = join_settle;
            else
                close_gate(p, undo_delete_0, undo_wake);
            return;
        }
        case join_settle:
            s.settled = 1;
            p.pc = join_recheck;
            return;
        case join_recheck: p.pc = (s.gate & closed) != 0 ? undo_delete_0 : rest; return;
        case undo_delete_0:
        case undo_delete_1:
            erase(s, p, p.pc - undo_delete_0);
            p.pc++;
            return;
        case undo_free:
            if (s.place == joined) {
                s.marked = 0;
                s.place = apart;
            }
            p.pc = undo_wake;
            return;
        case undo_wake: // rd_join says which, or the pair leaves with that in its mind
            s.settled = 1;
            for (unsigned end = 0; end < 2; end++)
                if (s.copied[end] != s.written[1 - end]) {
                    s.wake[end] = !without(no_wake);
                    make_leave(s);
                }
            p = {};
            return;
        default: gate_step(s, joiner);
        }
        if (p.pc == rest)
            p = {};
    }

    void step(State& s, unsigned who) {
        if (who <= sender_c)
            send_step(s, who);
        else if (who <= reader_1)
            read_step(s, who);
        else if (who == timer)
            timer_step(s);
        else
            join_step(s);
        Process& p = s.process[who];
        if (p.pc == rest)
            p.gate = p.then = p.otherwise = p.is_turned = p.pair = 0;
    }

    Scenario scenario_;
    std::unordered_set<std::uint64_t> seen_;
    std::deque<State> todo_;
    std::string wrong_;
};

/// With two messages one way and one the other; or one of each of two threads, where `threads`.
Scenario leaving_pair(bool turned, Reads reads, bool threads = false) {
    Scenario made;
    made.joined = made.leaves = true;
    made.turned = turned;
    made.messages = threads ? std::array<unsigned, 3>{1, 1, 1} : std::array<unsigned, 3>{2, 0, 1};
    made.reads = reads;
    return made;
}
Scenario joining_pair(bool leaves, Reads reads) {
    Scenario made;
    made.leaves = leaves;
    made.messages = {2, 0, 0};
    made.reads = reads;
    return made;
}

Scenario pair_far_behind(Reads reads) {
    Scenario made = leaving_pair(true, reads);
    made.lacks_room = true;
    made.messages = {3, 0, 1};
    return made;
}

const std::vector<Scenario>& scenarios() {
    static const std::vector<Scenario> all = [] {
        std::vector<Scenario> made;
        for (const Reads reads : {Reads::short_is_empty, Reads::as_counted})
            for (const bool flag : {false, true}) {
                made.push_back(leaving_pair(flag, reads));
                made.push_back(joining_pair(flag, reads));
            }
        made.push_back(pair_far_behind(Reads::short_is_empty));
        made.push_back(pair_far_behind(Reads::as_counted));
        made.push_back(leaving_pair(true, Reads::short_is_empty, true));
        return made;
    }();
    return all;
}

TEST(PairLife, KeepsItsPromisesInEveryOrderOfEvents) {
    for (const Scenario& scenario : scenarios()) {
        Search search(scenario);
        EXPECT_EQ(search.run(), "")
            << (scenario.joined ? "leaving" : "joining") << ", turned " << scenario.turned
            << ", leaves " << scenario.leaves << ", reads " << static_cast<int>(scenario.reads);
        EXPECT_GT(search.states(), 1000U); // it went somewhere
    }
}

/// What the search says first without one part of the programs, of pairs that are joined, or are to.
std::string without(Mutation part, bool joined) {
    for (Scenario scenario : scenarios()) {
        if (scenario.joined != joined)
            continue;
        scenario.without.set(part);
        if (std::string wrong = Search(scenario).run(); !wrong.empty())
            return wrong;
    }
    return {};
}

constexpr std::string_view hangs = "a reader waits, bytes are readable, and no edge is due";

TEST(PairLife, HangsIfAnEndLeavesAlone) {
    EXPECT_EQ(without(remove_alone, true), hangs);
}
TEST(PairLife, HangsIfItJoinsWithSomethingUnread) {
    EXPECT_EQ(without(no_rest, false), hangs);
}
TEST(PairLife, HangsIfNobodyLooksAgainBehindTheInsertion) {
    EXPECT_EQ(without(no_second_look, false), hangs);
}
TEST(PairLife, HangsIfNobodyIsWokenBehindAJoinThatWasTakenBack) {
    EXPECT_EQ(without(no_wake, false), hangs);
}
TEST(PairLife, HangsIfASendFromBeforeIsNotNoticed) {
    EXPECT_EQ(without(no_passed_by, false), hangs);
}
TEST(PairLife, NeedsEachMessageToInterruptTheClosing) {
    EXPECT_NE(without(no_interruption, true), "");
}
TEST(PairLife, NeedsALookAtWhoIsSending) {
    EXPECT_NE(without(no_references, true), "");
}
TEST(PairLife, NeedsTheEndOfTheTurnWhereAMessageFoundNoRoom) {
    EXPECT_EQ(without(no_end_of_turn, true), "bytes of one thread arrived out of order");
}
TEST(PairLife, NeedsAllReadBeforeADirectionTurns) {
    EXPECT_NE(without(turn_unread, false), "");
}

} // namespace
} // namespace netctl::redirect
