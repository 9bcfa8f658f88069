// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/prober.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <netinet/in.h>
#include <optional>
#include <poll.h>
#include <sys/socket.h>

#include <fmt/format.h>

#include "features/redirect/targets.hpp"
#include "sys/clock.hpp"

namespace netctl::redirect {

namespace {

/// Between looks at questions that are on their way.
constexpr int look_ms = 20;

constexpr std::uint64_t if_there = 2; // BPF_EXIST

/// Silence may be a moment's; so often in a row it is not.
constexpr std::uint32_t silent_at_most = 2;

socklen_t fill(sockaddr_storage& to, const Target& target) {
    if (target.address.family == Family::ipv4) {
        auto& v4 = reinterpret_cast<sockaddr_in&>(to);
        v4.sin_family = AF_INET;
        v4.sin_port = htons(target.port);
        std::memcpy(&v4.sin_addr, target.address.bytes.data(), 4);
        return sizeof v4;
    }
    auto& v6 = reinterpret_cast<sockaddr_in6&>(to);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(target.port);
    std::memcpy(&v6.sin6_addr, target.address.bytes.data(), 16);
    return sizeof v6;
}

/// The question could not be asked, for a reason that is this host's own: nothing is known of the target.
bool is_our_own(int error) {
    return error == EPERM || error == EACCES || error == EADDRNOTAVAIL || error == ENOBUFS ||
           error == ENOMEM || error == EMFILE || error == ENFILE;
}

} // namespace

int http_status(const std::string& answer) {
    // RFC 9112, 4: HTTP-version SP 3DIGIT SP
    constexpr std::string_view form = "HTTP/#.# ###";
    for (std::size_t i = 0; i < std::min(answer.size(), form.size()); i++) {
        const bool digit = answer[i] >= '0' && answer[i] <= '9';
        if (form[i] == '#' ? !digit : answer[i] != form[i])
            return -1;
    }
    return answer.size() < form.size() ? 0 : std::stoi(answer.substr(form.size() - 3, 3));
}

Result<> Prober::step() {
    NETCTL_TRY(look_for_targets());
    for (auto& [key, probe] : probes_) {
        if (probe.fd)
            NETCTL_TRY(listen(key, probe));
        else if (sys::now_ms() >= probe.next_ms)
            NETCTL_TRY(begin(key, probe));
    }
    return {};
}

int Prober::idle_ms(int most) const {
    const std::uint64_t now = sys::now_ms();
    for (const auto& [key, probe] : probes_) {
        if (probe.fd)
            most = std::min(most, look_ms);
        else if (probe.next_ms <= now)
            return 0;
        else
            most = static_cast<int>(
                std::min<std::uint64_t>(static_cast<std::uint64_t>(most), probe.next_ms - now));
    }
    return most;
}

Result<> Prober::look_for_targets() {
    if (!datapath_->to_health())
        return {};
    std::map<Key, Probe> found;
    std::optional<ToList> list; // read if somebody is new
    const bpf::MapKeys keys = NETCTL_TRY(datapath_->to_health().keys());
    for (const std::uint8_t* bytes : keys) {
        nc_rd_to_target_key raw{};
        std::memcpy(&raw, bytes, sizeof raw);
        const Key key(raw.rule, raw.number);
        if (const auto known = probes_.find(key); known != probes_.end()) {
            found.insert(probes_.extract(known));
            continue;
        }
        if (!list)
            list = NETCTL_TRY(datapath_->read_bank<nc_rd_to>());
        const auto entry = std::ranges::find(list->rules, raw.rule, &nc_rd_to::id);
        if (entry == list->rules.end())
            continue; // not yet, or no more
        const auto rule = rule_in(*list, static_cast<std::size_t>(entry - list->rules.begin()));
        if (!rule || !rule->actions.back().health ||
            raw.number >= rule->actions.back().targets.size())
            continue; // another tool's
        Probe& probe = found[key];
        probe.target = rule->actions.back().targets[raw.number];
        probe.health = *rule->actions.back().health;
    }
    probes_ = std::move(found);
    return {};
}

Result<> Prober::begin(const Key& key, Probe& probe) {
    const std::uint64_t now = sys::now_ms(), every_ms = std::uint64_t{1000} * probe.health.every_s;
    probe.next_ms = now + every_ms;
    probe.end_ms = now + every_ms;
    probe.sent = false;
    probe.answer.clear();
    sockaddr_storage to{};
    const socklen_t size = fill(to, probe.target);
    Fd fd(socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
    if (!fd)
        return note(key, probe, {errno});
    // It asks the target itself, whatever rules say of the target's address.
    nc_rd_to_mine mine{};
    mine.leave_alone = 1;
    const int number = fd.get();
    NETCTL_TRY(datapath_->to_mine().update(&number, &mine));
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&to), size) != 0 && errno != EINPROGRESS)
        return note(key, probe, {errno});
    probe.fd = std::move(fd);
    return listen(key, probe);
}

Result<> Prober::listen(const Key& key, Probe& probe) {
    const auto wait = [&]() -> Result<> {
        return sys::now_ms() < probe.end_ms ? Result<>() : note(key, probe, {ETIMEDOUT});
    };
    if (!probe.sent) {
        pollfd entry{probe.fd.get(), POLLOUT, 0};
        if (poll(&entry, 1, 0) == 0)
            return wait();
        int error = 0;
        socklen_t size = sizeof error;
        if (getsockopt(probe.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0)
            error = errno;
        if (error != 0 || probe.health.path.empty())
            return note(key, probe, {error});
        const std::string request =
            fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: netctl\r\nAccept: */*\r\n"
                        "Connection: close\r\n\r\n",
                        probe.health.path, to_string(probe.target));
        // It is short, and the socket's buffer empty.
        if (send(probe.fd.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
            static_cast<ssize_t>(request.size()))
            return note(key, probe, {errno});
        probe.sent = true;
    }
    char bytes[64];
    const ssize_t got = recv(probe.fd.get(), bytes, sizeof bytes, 0);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? wait() : note(key, probe, {errno});
    probe.answer.append(bytes, static_cast<std::size_t>(got));
    const int status = http_status(probe.answer);
    if (status < 0 || (got == 0 && status == 0))
        return note(key, probe, {EPROTO});
    if (status == 0)
        return wait();
    const bool good = status >= 200 && status < 400;
    return note(key, probe, good ? Outcome{} : Outcome{EPROTO, static_cast<unsigned>(status)});
}

Result<> Prober::note(const Key& key, Probe& probe, const Outcome& outcome) {
    probe.fd.reset();
    const nc_rd_to_target_key raw{key.first, key.second};
    nc_rd_to_health health{};
    if (!NETCTL_TRY(datapath_->to_health().lookup(&raw, &health)))
        return {}; // the rule is gone
    const std::uint32_t before = health.state;
    const auto now = static_cast<std::uint64_t>(sys::monotonic_now());
    health.asked++;
    health.asked_ns = now;
    health.error = static_cast<__u32>(outcome.error);
    health.answer = outcome.answer;
    if (outcome.error == 0) {
        health.in_a_row = 0;
        health.state = NC_RD_TO_UP;
    } else {
        health.in_a_row++;
        health.unanswered++;
        if (!is_our_own(outcome.error) &&
            (outcome.error != ETIMEDOUT || health.in_a_row >= silent_at_most))
            health.state = NC_RD_TO_DOWN;
    }
    if (health.state != before)
        health.since_ns = now;
    const auto written = datapath_->to_health().update(&raw, &health, if_there);
    if (!written)
        return written.error().code == ENOENT ? Result<>() : written; // gone just now
    if (health.state == before)
        return {};
    if (health.state == NC_RD_TO_DOWN)
        tell_(fmt::format("target {} of rule {} is down: {}", to_string(probe.target), key.first,
                          why_not(health)));
    else if (before == NC_RD_TO_DOWN)
        tell_(fmt::format("target {} of rule {} is up again", to_string(probe.target), key.first));
    return {};
}

} // namespace netctl::redirect
