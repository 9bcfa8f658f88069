// SPDX-License-Identifier: GPL-2.0-only
#include <chrono>
#include <map>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "core/json.hpp"
#include "host/host.hpp"
#include "host/status.hpp"
#include "sys/stop.hpp"

namespace netctl::host {

namespace {

/// What was judged between two looks, by feature, place and namespace.
class Rates {
  public:
    /// A second, since the last look; nothing the first time.
    std::optional<double> of(const HookStatus& hook) const {
        const auto before = last_.find(key(hook));
        if (before == last_.end() || seconds_ <= 0 || hook.judged < before->second)
            return {};
        return static_cast<double>(hook.judged - before->second) / seconds_;
    }
    /// Before the new status is rendered: how long it is since the last one.
    void look(std::chrono::steady_clock::time_point now) {
        seconds_ = last_.empty() ? 0 : std::chrono::duration<double>(now - when_).count();
        when_ = now;
    }
    void remember(const HostStatus& status) {
        last_.clear();
        for (const HookStatus& hook : status.hooks)
            last_[key(hook)] = hook.judged;
    }

  private:
    static std::string key(const HookStatus& hook) {
        return fmt::format("{}\n{}\n{}", hook.feature, hook.place, hook.netns);
    }
    std::map<std::string, std::uint64_t> last_;
    std::chrono::steady_clock::time_point when_{};
    double seconds_ = 0;
};

Json pending_json(const std::optional<Pending>& pending) {
    if (!pending)
        return {};
    return {{"id", pending->id},
            {"seconds_left", pending->seconds_left},
            {"change_count", pending->changes}};
}

Json status_json(const HostStatus& status, const Rates& rates) {
    Json hooks = Json::array(), sets = Json::array();
    for (const HookStatus& hook : status.hooks) {
        const auto rate = rates.of(hook);
        hooks.push_back({{"feature", hook.feature},
                         {"place", hook.place},
                         {"netns", hook.netns},
                         {"state", hook.state},
                         {"healthy", hook.troubles.empty()},
                         {"rule_count", hook.rules},
                         {"judged", hook.judged},
                         {"judged_per_second", rate ? Json(*rate) : Json()},
                         {"refused", hook.refused},
                         {"troubles", hook.troubles},
                         {"remarks", hook.remarks}});
    }
    for (const set::SetStatus& set : status.sets)
        sets.push_back({{"name", set.name},
                        {"type", datapath::to_string(set.type)},
                        {"elements", set.size.elements},
                        {"size", set.max_entries}});
    const std::optional<bool> healthy = status.healthy();
    return {{"healthy", healthy ? Json(*healthy) : Json()},
            {"hooks", hooks},
            {"sets", sets},
            {"unread", status.unread},
            {"pending", pending_json(status.pending)}};
}

Text status_text(const HostStatus& status, const Rates& rates) {
    Text waits;
    if (status.pending)
        waits = Text::format("{} {} in {} s, unless `netctl confirm {}` comes before\n",
                             status.pending->changes,
                             status.pending->changes == 1 ? "change goes back" : "changes go back",
                             status.pending->seconds_left, status.pending->id);
    if (status.hooks.empty() && status.sets.empty() && status.unread.empty() && waits.empty())
        return Text::format("nothing of netctl is in use\n");
    TextTable hooks({{"hook"},
                     {"place"},
                     {"state"},
                     {"rules", true},
                     {"judged", true},
                     {"a second", true},
                     {"refused", true}});
    Text words;
    for (const HookStatus& hook : status.hooks) {
        const Text place = hook.netns.empty()
                               ? Text(hook.place)
                               : Text::format("{} (netns {})", hook.place, hook.netns);
        const auto rate = rates.of(hook);
        hooks.row({hook.feature, place, hook.state, std::to_string(hook.rules),
                   std::to_string(hook.judged), rate ? fmt::format("{:.0f}", *rate) : "",
                   std::to_string(hook.refused)});
        for (const std::string& trouble : hook.troubles)
            words += Text::format("not well: {} {}: {}\n", hook.feature, place, trouble);
        for (const std::string& remark : hook.remarks)
            words += Text::format("{} {}: {}\n", hook.feature, place, remark);
    }
    for (const std::string& error : status.unread)
        words += Text::format("cannot be read: {}\n", error);
    TextTable sets({{"set"}, {"type"}, {"elements", true}, {"size", true}});
    for (const set::SetStatus& set : status.sets)
        sets.row({set.name, datapath::to_string(set.type), std::to_string(set.size.elements),
                  std::to_string(set.max_entries)});
    const std::optional<bool> healthy = status.healthy();
    Text text = Text::format("{}\n", !healthy   ? "not all of it could be read"
                                     : *healthy ? "healthy"
                                                : "NOT healthy");
    text += waits;
    if (!hooks.empty())
        text += Text::format("\n{}", hooks.render());
    if (!sets.empty())
        text += Text::format("\n{}", sets.render());
    if (!words.empty())
        text += Text::format("\n{}", words);
    return text;
}

/// The exit status: a question's.
int exit_status(const HostStatus& status) {
    const std::optional<bool> healthy = status.healthy();
    return !healthy ? 4 : *healthy ? 0 : 1;
}

/// What cannot be read at all says neither yes nor no.
Result<HostStatus> ask(const Context& context) {
    auto status = read_status(context.root);
    if (!status)
        return std::move(status).error().could_not_tell();
    return status;
}

Result<int> watch(const Context& context, unsigned every_ms) {
    sys::catch_stop_signals();
    Rates rates;
    int last = 0;
    while (!sys::stop_requested()) {
        const auto now = std::chrono::steady_clock::now();
        const HostStatus status = NETCTL_TRY(ask(context));
        rates.look(now);
        last = exit_status(status);
        if (!context.out.line(status_json(status, rates), status_text(status, rates)))
            break;
        rates.remember(status);
        const auto until = now + std::chrono::milliseconds(every_ms);
        while (!sys::stop_requested() && std::chrono::steady_clock::now() < until)
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return last;
}

Result<int> show(const Arguments& arguments, Context& context) {
    if (arguments.has("watch"))
        return watch(context, static_cast<unsigned>(
                                  1000 * NETCTL_TRY(arguments.number("watch", 1, 1, 3600))));
    const HostStatus status = NETCTL_TRY(ask(context));
    context.out.document(status_json(status, {}), status_text(status, {}));
    return exit_status(status);
}

Result<int> detach(const Arguments& arguments, Context& context) {
    if (!arguments.has("all"))
        return Error::usage("detach takes down everything of netctl: say so with --all",
                            "netctl xdp detach IFACE and its kin take down one");
    const Detached all = detach_all(context.root);
    for (const std::string& one : all.done)
        context.out.done(Text::format("{}: detached", one));
    if (all.failed.empty())
        return 0;
    for (std::size_t i = 0; i + 1 < all.failed.size(); ++i)
        context.out.note(all.failed[i]);
    const char* hint = all.done.empty()
                           ? "nothing was detached"
                           : "the others are detached; `netctl status` tells what is left";
    return Error::failed(all.failed.back(), hint);
}

} // namespace

Command status_command() {
    return {.name = "status",
            .summary = "show every hook that netctl holds, how it is, and the sets",
            .description = "Exit status 0: all is well; 1: something does not do what its rules "
                           "say; 4: that could not be told.",
            .options = {{"watch", "SECONDS", "again and again, with what was judged a second", {}}},
            .run = show};
}

Command detach_command() {
    return {.name = "detach",
            .summary =
                "take every program of netctl off: redirection, filters, the policy; sets stay",
            .options = {{"all", "", "of all interfaces and cgroups", {}}},
            .run = detach};
}

} // namespace netctl::host
