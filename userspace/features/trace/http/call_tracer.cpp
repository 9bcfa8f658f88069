// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/call_tracer.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace netctl::trace {

namespace {

/// Long enough for the other end of a closed connection to tell its side.
constexpr Time closed_memory = 5 * second;
/// A Unix socket whose other end is gone, and which is not read, tells nothing of its own end.
constexpr Time half_closed_memory = 60 * second;
/// What is left of a body in TLS has to be longer to be worth a word to the kernel.
constexpr std::uint64_t worth_skipping = 256 * 1024;
/// A connection's first byte as its two ends know it: of what was acknowledged, the SYN may be counted, or the FIN.
constexpr std::int32_t origin_tolerance = 2;

Address address_of(std::uint8_t family, const std::uint8_t (&bytes)[16]) {
    constexpr std::array<std::uint8_t, 12> mapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    Address address;
    if (family == 6 && std::memcmp(bytes, mapped.data(), mapped.size()) == 0) {
        std::memcpy(address.bytes.data(), bytes + 12, 4); // an IPv6 socket that speaks IPv4
        return address;
    }
    address.family = family == 6 ? Family::ipv6 : Family::ipv4;
    std::memcpy(address.bytes.data(), bytes, address.family == Family::ipv6 ? 16 : 4);
    return address;
}

bool is_loopback(const Address& address) {
    if (address.family == Family::ipv4)
        return address.bytes[0] == 127;
    return std::all_of(address.bytes.begin(), address.bytes.end() - 1,
                       [](std::uint8_t byte) { return byte == 0; }) &&
           address.bytes[15] == 1;
}

std::string name_of(const char (&comm)[16]) {
    return std::string(comm, strnlen(comm, sizeof comm));
}

} // namespace

std::size_t CallTracer::PairHash::operator()(const PairKey& key) const {
    std::uint64_t hash = key.netns;
    const auto mix = [&](std::uint64_t value) {
        hash ^= value;
        hash *= 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    };
    for (const Endpoint* end : {&key.local, &key.remote}) {
        std::uint64_t words[2];
        std::memcpy(words, end->address.bytes.data(), sizeof words);
        mix(words[0]);
        mix(words[1] ^ end->port);
    }
    return hash;
}

CallTracer::PairKey CallTracer::key_of(const Connection& connection, bool mirrored) {
    const bool loopback = is_loopback(connection.remote.address);
    return {mirrored ? connection.remote : connection.local,
            mirrored ? connection.local : connection.remote, loopback ? connection.netns : 0};
}

CallTracer::Connection& CallTracer::connection_of(std::uint64_t cookie, Time now) {
    std::unique_ptr<Connection>& slot = connections_[cookie];
    if (!slot) {
        ++changes_;
        slot = std::make_unique<Connection>(budget_);
        slot->share.set(connection_cost);
        Connection* connection = slot.get();
        connection->cookie = cookie;
        connection->http = std::make_unique<HttpConnection>(
            *options_, *parser_counters_, budget_,
            [this, connection](Transaction& transaction) { emit(*connection, transaction); });
    }
    slot->last = now;
    return *slot;
}

const CallTracer::Connection* CallTracer::other_end(Connection& connection,
                                                    const Transaction& transaction) const {
    if (connection.other_as_of == changes_)
        return connection.other;
    connection.other = nullptr;
    if (!connection.placed)
        return nullptr;
    bool undecided = false;
    if (connection.unix_path) {
        const auto found = connections_.find(connection.partner);
        if (found != connections_.end())
            connection.other = found->second.get();
        connection.other_as_of = changes_;
        return connection.other;
    }
    const auto [begin, end] = ends_.equal_range(key_of(connection, true));
    for (auto one = begin; one != end; ++one) {
        const auto found = connections_.find(one->second);
        if (found == connections_.end())
            continue;
        Connection& other = *found->second;
        if (other.tls != connection.tls)
            continue;
        const bool proven =
            connection.partner == other.cookie ||
            (connection.tls
                 ? same_origins(connection, other)
                 : transaction.asked_at && other.http->has_request_at(*transaction.asked_at));
        if (other.netns != connection.netns) {
            if (!proven) {
                undecided = true;
                continue;
            }
            connection.partner = other.cookie;
            other.partner = connection.cookie;
        }
        // Of two in one namespace, one is closed.
        if (!connection.other || connection.other->closed || proven)
            connection.other = &other;
    }
    if (connection.other || !undecided)
        connection.other_as_of = changes_;
    return connection.other;
}

void CallTracer::emit(Connection& connection, Transaction& transaction) {
    transaction.client_view = connection.http->client() == HttpConnection::a;
    const Connection* other = other_end(connection, transaction);
    if (transaction.client_view && !both_sides_ && other && !other->skipped &&
        other->http->roles_known()) {
        ++counters_->mirrored;
        // The server's side counts it as well.
        if (!transaction.request.seen)
            --parser_counters_->unasked;
        if (transaction.waiting)
            --(transaction.stalled ? parser_counters_->stalled : parser_counters_->unfinished);
        else if (!transaction.response.seen)
            --parser_counters_->unanswered;
        return;
    }
    if (connection.held)
        return;
    counters_->unplaced += !connection.placed;
    transaction.tls = connection.tls;
    transaction.placed = connection.placed;
    transaction.unix_path = connection.unix_path;
    static const Process none;
    const Process& theirs = other ? other->process : none;
    if (transaction.client_view) {
        transaction.client = connection.local;
        transaction.server = connection.remote;
        transaction.client_process = connection.process;
        transaction.server_process = theirs;
    } else {
        transaction.client = connection.remote;
        transaction.server = connection.local;
        transaction.client_process = theirs;
        transaction.server_process = connection.process;
    }
    emit_(transaction);
}

void CallTracer::open(const nc_http_open& open, Time now) {
    Connection& connection = connection_of(open.record.cookie, now);
    if (connection.known)
        remove_end(connection);
    connection.tls = (open.record.flags & NC_HTTP_TLS) != 0;
    connection.held = (open.record.flags & NC_HTTP_UNPLACED) != 0;
    connection.placed = open.family != NC_HTTP_UNKNOWN_SOCKET;
    if (open.family == NC_HTTP_UNIX) {
        open_unix(connection, open);
    } else if (connection.placed) {
        connection.local = {address_of(open.family, open.local), open.local_port};
        connection.remote = {address_of(open.family, open.remote), open.remote_port};
    }
    connection.netns = open.netns;
    connection.origin = {open.origin_sent, open.origin_received};
    connection.process = {open.record.pid, name_of(open.comm),
                          containers_ ? containers_->of(open.cgroup_id) : nullptr};
    connection.skipped = (open.record.flags & NC_HTTP_SKIPPED) != 0;
    connection.known = true;
    connection.server = open.role == NC_HTTP_SERVER;
    connection.closed = false;
    for (const auto side : {NC_HTTP_SENT, NC_HTTP_RECEIVED})
        if (!connection.begun[side])
            connection.position[side] = open.begin[side];
    if (!connection.unix_path && connection.placed)
        ends_.emplace(key_of(connection, false), connection.cookie);
    if (connection.tls && connection.placed && sealed_)
        sealed_->decoded(connection.local, connection.remote);
    ++changes_;
}

/// Somebody's TLS: told apart from what is decoded at its other end, as far as that is known by now.
void CallTracer::sealed(const nc_http_open& open) {
    if (!sealed_)
        return;
    const Endpoint local{address_of(open.family, open.local), open.local_port};
    const Endpoint remote{address_of(open.family, open.remote), open.remote_port};
    Connection end(budget_);
    end.local = remote;
    end.remote = local;
    end.netns = open.netns;
    const auto [begin, last] = ends_.equal_range(key_of(end, false));
    for (auto one = begin; one != last; ++one) {
        const auto found = connections_.find(one->second);
        if (found != connections_.end() && found->second->tls && !found->second->closed)
            return;
    }
    sealed_->add(local, remote, {open.record.pid, name_of(open.comm), nullptr});
}

bool CallTracer::same_origins(const Connection& one, const Connection& other) {
    const auto near = [](std::uint32_t a, std::uint32_t b) {
        const auto difference = static_cast<std::int32_t>(a - b);
        return difference >= -origin_tolerance && difference <= origin_tolerance;
    };
    return near(one.origin[0], other.origin[1]) && near(one.origin[1], other.origin[0]);
}

void CallTracer::skip_body(Connection& connection) {
    if (!skip_ || !connection.tls)
        return;
    std::uint64_t until[2] = {connection.skipped_until[0], connection.skipped_until[1]};
    for (const auto side : {HttpConnection::a, HttpConnection::b}) {
        const std::uint64_t rest = connection.http->skippable(side);
        if (connection.http->opaque())
            until[side] = UINT64_MAX;
        else if (rest > worth_skipping && connection.position[side] >= until[side])
            until[side] = connection.position[side] + rest;
    }
    if (until[0] == connection.skipped_until[0] && until[1] == connection.skipped_until[1])
        return;
    connection.skipped_until = {until[0], until[1]};
    skip_(connection.cookie, until);
}

void CallTracer::open_unix(Connection& connection, const nc_http_open& open) {
    connection.unix_path.emplace(open.path,
                                 std::min<std::size_t>(open.path_length, sizeof open.path));
    // What a path is bound to ends at its first zero; an abstract name begins with one, and has its length.
    if (open.path[0] != '\0')
        connection.unix_path->resize(strnlen(open.path, connection.unix_path->size()));
    if (open.peer == 0)
        return;
    connection.partner = open.peer;
    const auto peer = connections_.find(open.peer);
    if (peer != connections_.end() && peer->second->unix_path)
        peer->second->partner = connection.cookie;
}

void CallTracer::remove_end(const Connection& connection) {
    const auto [begin, end] = ends_.equal_range(key_of(connection, false));
    const auto which =
        std::find_if(begin, end, [&](const auto& one) { return one.second == connection.cookie; });
    if (which != end)
        ends_.erase(which);
}

void CallTracer::record(std::span<const std::byte> bytes, Time clock_offset) {
    ++counters_->records;
    nc_http_record record;
    if (bytes.size() < sizeof record) {
        ++counters_->damaged;
        return;
    }
    std::memcpy(&record, bytes.data(), sizeof record);
    const Time now = record.time_ns + clock_offset;
    tick(now);
    if (record.kind == NC_HTTP_OPEN || record.kind == NC_HTTP_SEALED) {
        nc_http_open event;
        if (bytes.size() < sizeof event) {
            ++counters_->damaged;
            return;
        }
        std::memcpy(&event, bytes.data(), sizeof event);
        return record.kind == NC_HTTP_SEALED ? sealed(event) : open(event, now);
    }
    if (record.direction > NC_HTTP_RECEIVED || record.captured > record.length ||
        record.captured > bytes.size() - sizeof record) {
        ++counters_->damaged;
        return;
    }
    const auto side = record.direction == NC_HTTP_SENT ? HttpConnection::a : HttpConnection::b;
    switch (record.kind) {
    case NC_HTTP_DATA: {
        Connection& connection = connection_of(record.cookie, now);
        if (!connection.known)
            ++counters_->unknown;
        std::uint64_t& position = connection.position[side];
        if ((connection.begun[side] || connection.known) && record.position > position) {
            counters_->missing_bytes += record.position - position;
            connection.http->gap(side, record.position - position, now);
        }
        connection.begun[side] = true;
        position = record.position + record.length;
        const std::string_view piece(reinterpret_cast<const char*>(bytes.data() + sizeof record),
                                     record.captured);
        write(connection, record, piece, now);
        connection.http->data(side, piece,
                              Moment(now, static_cast<std::uint32_t>(record.position),
                                     static_cast<std::uint32_t>(record.answered)));
        connection.http->gap(side, record.length - record.captured, now);
        skip_body(connection);
        break;
    }
    case NC_HTTP_END: {
        const auto found = connections_.find(record.cookie);
        if (found != connections_.end()) {
            Connection& connection = *found->second;
            connection.last = now;
            write(connection, record, {}, now);
            connection.http->close(side, now);
            connection.ended[side] = true;
            connection.closed |= connection.unix_path && connection.ended[1 - side];
        }
        break;
    }
    case NC_HTTP_CLOSE: {
        const auto found = connections_.find(record.cookie);
        if (found == connections_.end())
            break;
        Connection& connection = *found->second;
        if (record.flags & NC_HTTP_FORGET) {
            erase(record.cookie);
            break;
        }
        // The last bytes may have passed unseen: sendfile's tail, if its record was lost.
        if (connection.begun[0] && record.position > connection.position[0])
            connection.http->gap(HttpConnection::a, record.position - connection.position[0], now);
        connection.http->close(now);
        connection.closed = true;
        connection.last = now;
        break;
    }
    default: ++counters_->damaged; break;
    }
}

void CallTracer::write(const Connection& connection, const nc_http_record& record,
                       std::string_view bytes, Time now) {
    if (capture_ && connection.known && connection.placed)
        capture_->write({&connection.local, &connection.remote, &connection.unix_path,
                         &connection.process, connection.server},
                        record, bytes, now);
}

void CallTracer::erase(std::uint64_t cookie) {
    const auto found = connections_.find(cookie);
    if (found == connections_.end())
        return;
    ++changes_;
    if (found->second->known)
        remove_end(*found->second);
    connections_.erase(found);
}

void CallTracer::tick(Time now) {
    if (now > swept_ + second)
        sweep(now);
}

void CallTracer::sweep(Time now) {
    swept_ = now;
    std::vector<std::uint64_t> old;
    for (const auto& [cookie, connection] : connections_) {
        if (!connection->closed)
            connection->http->tick(now, stalled_);
        if (connection->unix_path && !connection->closed &&
            (connection->ended[0] || connection->ended[1]) &&
            connection->last + half_closed_memory < now) {
            connection->http->close(connection->last);
            connection->closed = true;
        }
        if (connection->closed && connection->last + closed_memory < now)
            old.push_back(cookie);
    }
    for (const std::uint64_t cookie : old)
        erase(cookie);
    if (connections_.size() > connection_limit)
        evict(connections_.size() - connection_limit / 4 * 3, now);
    else if (budget_.exceeded())
        evict(connections_.size() / 8, now);
}

/// Those that were quiet for longest.
void CallTracer::evict(std::size_t count, Time now) {
    if (count == 0)
        return;
    std::vector<std::pair<Time, std::uint64_t>> ages;
    ages.reserve(connections_.size());
    for (const auto& [cookie, connection] : connections_)
        ages.emplace_back(connection->last, cookie);
    std::nth_element(ages.begin(), ages.begin() + static_cast<std::ptrdiff_t>(count), ages.end());
    for (std::size_t i = 0; i < count; ++i) {
        Connection& connection = *connections_[ages[i].second];
        if (!connection.closed)
            ++counters_->evicted;
        connection.http->abandon(now);
        erase(ages[i].second);
    }
}

void CallTracer::finish(Time now) {
    for (auto& [cookie, connection] : connections_)
        if (!connection->closed)
            connection->http->abandon(now);
    connections_.clear();
    ends_.clear();
}

} // namespace netctl::trace
