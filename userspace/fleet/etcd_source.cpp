// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/etcd_source.hpp"

#include <algorithm>
#include <ctime>
#include <poll.h>

#include <fmt/format.h>

#include "core/json.hpp"
#include "fleet/head.hpp"
#include "fleet/release.hpp"
#include "fleet/wire.hpp"
#include "sys/clock.hpp"

namespace netctl::fleet {

namespace {

constexpr std::size_t most_answer = std::size_t{64} << 20; ///< reports of a whole fleet
constexpr std::size_t small_answer = std::size_t{64} << 10;
constexpr std::uint64_t status_lease_s = 900;
constexpr std::uint64_t held_lease_s = 30;
constexpr std::int64_t keep_held_ms = 8000;
constexpr unsigned most_races = 20;

/// The key behind all that begin with this one.
std::string behind_prefix(std::string prefix) {
    prefix.back()++;
    return prefix;
}

std::int64_t steady_ms() {
    return static_cast<std::int64_t>(sys::now_ms());
}

Error no_message() {
    return Error::failed("etcd's answer cannot be read");
}

} // namespace

EtcdSource::EtcdSource(GrpcOptions options, const std::string& fleet)
    : client_(std::move(options)),
      prefix_("/netctl/v1/" + fleet + "/"),
      random_(std::random_device{}()) {}

Result<std::vector<EtcdSource::KeyValue>>
EtcdSource::range(const std::string& from, const std::string& to, std::size_t most) const {
    WireWriter request;
    request.bytes(1, from).bytes(2, to);
    const std::string answer =
        NETCTL_TRY(client_.call("etcdserverpb.KV/Range", request.text(), most));
    const auto message = read_wire(answer);
    if (!message)
        return no_message();
    std::vector<KeyValue> found;
    for (const std::string_view one : message->all(2)) {
        const auto pair = read_wire(one);
        if (!pair)
            return no_message();
        found.push_back(
            {std::string(pair->block(1)), std::string(pair->block(5)), pair->number(3)});
    }
    return found;
}

Result<std::optional<std::string>> EtcdSource::read(const std::string& name, std::size_t most) {
    auto found = NETCTL_TRY(range(prefix_ + name, {}, most + small_answer));
    if (found.empty())
        return std::optional<std::string>();
    if (found.front().value.size() > most)
        return Error::failed(Text::format("{}{} is larger than {} bytes", prefix_, name, most));
    return std::optional(std::move(found.front().value));
}

Result<> EtcdSource::write(const std::string& name, std::string_view bytes) {
    WireWriter request;
    request.bytes(1, prefix_ + name).bytes(2, bytes);
    NETCTL_TRY(client_.call("etcdserverpb.KV/Put", request.text(), small_answer));
    return {};
}

Result<bool> EtcdSource::put_if(const std::string& key, std::string_view bytes,
                                std::uint64_t mod_revision, std::uint64_t lease) const {
    constexpr unsigned target_mod = 2;
    WireWriter compare, put, operation, transaction;
    compare.number(2, target_mod).bytes(3, key);
    // Zero is what a key has that is not there.
    (void)(mod_revision != 0 ? compare.number(6, mod_revision) : compare.zero(6));
    put.bytes(1, key).bytes(2, bytes).number(3, lease);
    operation.message(2, put);
    transaction.message(1, compare).message(2, operation);
    const std::string answer =
        NETCTL_TRY(client_.call("etcdserverpb.KV/Txn", transaction.text(), small_answer));
    const auto message = read_wire(answer);
    if (!message)
        return no_message();
    return message->number(2) != 0;
}

Result<> EtcdSource::update(const std::string& name, std::size_t most, const Change& change) {
    for (unsigned race = 0; race < most_races; race++) {
        auto found = NETCTL_TRY(range(prefix_ + name, {}, most + small_answer));
        std::optional<std::string> old;
        if (!found.empty())
            old = std::move(found.front().value);
        const auto changed = NETCTL_TRY(change(old));
        if (!changed || NETCTL_TRY(put_if(prefix_ + name, *changed,
                                          found.empty() ? 0 : found.front().mod_revision, 0)))
            return {};
    }
    return Error::failed(Text::format("others change {}{} all the time", prefix_, name));
}

Result<std::uint64_t> EtcdSource::grant_lease(std::uint64_t seconds) const {
    const std::string answer = NETCTL_TRY(client_.call(
        "etcdserverpb.Lease/LeaseGrant", WireWriter().number(1, seconds).text(), small_answer));
    const auto message = read_wire(answer);
    if (!message || message->number(2) == 0)
        return no_message();
    return message->number(2);
}

Result<bool> EtcdSource::keep_lease(std::uint64_t lease) const {
    const std::string answer = NETCTL_TRY(client_.call(
        "etcdserverpb.Lease/LeaseKeepAlive", WireWriter().number(1, lease).text(), small_answer));
    const auto message = read_wire(answer);
    if (!message)
        return no_message();
    return message->number(3) != 0;
}

Result<Held> EtcdSource::hold(const std::string& task, const std::string& who) {
    const std::string key = prefix_ + "held-" + task;
    const std::uint64_t lease = NETCTL_TRY(grant_lease(held_lease_s));
    if (!NETCTL_TRY(put_if(key, who, 0, lease))) {
        const auto other = NETCTL_TRY(range(key, {}, small_answer));
        return Error::failed(Text::format("{} is driving the roll-out in {}",
                                          other.empty() ? "somebody else" : other.front().value,
                                          name()),
                             "one operator at a time; `rollout` without --follow only looks");
    }
    held_ms_ = steady_ms();
    // The key goes with its lease: at once in order, within half a minute if this process dies.
    const std::shared_ptr<std::uint64_t> held(
        new std::uint64_t(lease), [client = client_](const std::uint64_t* one) {
            (void)client.call("etcdserverpb.Lease/LeaseRevoke", WireWriter().number(1, *one).text(),
                              small_answer);
            delete one;
        });
    held_lease_ = held;
    return Held(held);
}

Result<> EtcdSource::write_status(const std::string& host, std::string_view text) {
    if (status_lease_ == 0 || !NETCTL_TRY(keep_lease(status_lease_)))
        status_lease_ = NETCTL_TRY(grant_lease(status_lease_s));
    WireWriter request;
    request.bytes(1, prefix_ + "status/" + host).bytes(2, text).number(3, status_lease_);
    NETCTL_TRY(client_.call("etcdserverpb.KV/Put", request.text(), small_answer));
    return {};
}

Result<std::vector<StatusEntry>> EtcdSource::statuses() {
    const std::string from = prefix_ + "status/";
    std::vector<StatusEntry> entries;
    for (KeyValue& one : NETCTL_TRY(range(from, behind_prefix(from), most_answer))) {
        const std::string host = one.key.substr(from.size());
        if (!is_host_name(host) || one.value.size() > most_status_bytes)
            continue;
        // By the host's own clock, since etcd has none to go by.
        StatusEntry entry{host, std::move(one.value), 0};
        const Json json = Json::parse(entry.text, nullptr, false);
        if (json.is_object() && json.contains("reported") && json["reported"].is_string())
            if (const auto time = parse_second(json["reported"].get<std::string>()))
                entry.age = std::max<std::int64_t>(std::time(nullptr) - *time, 0);
        entries.push_back(std::move(entry));
    }
    return entries;
}

Result<> EtcdSource::enrol(const std::string& host) {
    const std::string role = "netctl-fleet-" + host;
    const auto call = [&](const char* method, const WireWriter& request) -> Result<> {
        const auto answer =
            client_.call(fmt::format("etcdserverpb.Auth/{}", method), request.text(), small_answer);
        if (!answer && answer.error().what.find("already exist") == std::string::npos)
            return answer.error();
        return {};
    };
    const auto permit = [&](const std::string& from, const std::string& to, unsigned what) {
        const WireWriter permission = WireWriter().number(1, what).bytes(2, from).bytes(3, to);
        return call("RoleGrantPermission", WireWriter().bytes(1, role).message(2, permission));
    };
    constexpr unsigned reads = 0, reads_and_writes = 2;
    NETCTL_TRY(call("RoleAdd", WireWriter().bytes(1, role)));
    NETCTL_TRY(permit(prefix_ + "head", {}, reads));
    for (const char* part : {"body-", "rollout-"})
        NETCTL_TRY(permit(prefix_ + part, behind_prefix(prefix_ + part), reads));
    NETCTL_TRY(permit(prefix_ + "status/" + host, {}, reads_and_writes));
    // Without a password: it is who its certificate says.
    NETCTL_TRY(call("UserAdd", WireWriter().bytes(1, host).message(3, WireWriter().number(1, 1))));
    return call("UserGrantRole", WireWriter().bytes(1, host).bytes(2, role));
}

bool EtcdSource::open_watch() {
    const auto create = [](const std::string& from, const std::string& to) {
        return WireWriter().message(1, WireWriter().bytes(1, from).bytes(2, to)).text();
    };
    std::vector<std::string> messages{
        create(prefix_ + "head", {}),
        create(prefix_ + "rollout-", behind_prefix(prefix_ + "rollout-"))};
    if (watches_statuses_)
        messages.push_back(create(prefix_ + "status/", behind_prefix(prefix_ + "status/")));
    const std::vector<std::string>& urls = client_.options().urls;
    auto opened = GrpcStream::open(client_.options(), urls[endpoint_ % urls.size()],
                                   "etcdserverpb.Watch/Watch", messages, most_answer,
                                   [this](std::string_view) { changed_ = true; });
    if (!opened)
        return false;
    watch_.emplace(std::move(*opened));
    return true;
}

bool EtcdSource::wait(unsigned milliseconds) {
    if (const auto held = held_lease_.lock(); held && steady_ms() - held_ms_ > keep_held_ms) {
        (void)keep_lease(*held);
        held_ms_ = steady_ms();
    }
    changed_ = false;
    if (!watch_ && (steady_ms() < retry_ms_ || !open_watch())) {
        const auto left =
            static_cast<unsigned>(std::max<std::int64_t>(retry_ms_ - steady_ms(), 100));
        poll(nullptr, 0, static_cast<int>(std::min(milliseconds, left)));
        return false;
    }
    if (!watch_->wait(milliseconds)) {
        // All hosts lose their server at the same time: each comes back at a time of its own.
        watch_.reset();
        endpoint_++;
        failures_ = std::min(failures_ + 1, 6U);
        const std::int64_t most = 1000LL << failures_;
        retry_ms_ =
            steady_ms() + static_cast<std::int64_t>(random_() % static_cast<unsigned>(most));
        return true; // what it would have told is not known
    }
    if (changed_)
        failures_ = 0;
    return changed_;
}

} // namespace netctl::fleet
