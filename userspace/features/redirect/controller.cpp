// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/controller.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "bpf/dir_lock.hpp"
#include "core/abi_version.hpp"
#include "core/log.hpp"
#include "core/rule.hpp"
#include "core/transaction.hpp"
#include "datapath/root.hpp"
#include "features/redirect/joiner.hpp"
#include "features/redirect/prober.hpp"
#include "features/redirect/targets.hpp"

namespace netctl::redirect {

namespace {

/// Readers of a pin directory see all of it or nothing: it is filled under this name.
const std::string staging = "redirect%2enew";
const std::string directory = "redirect";

} // namespace

bpf::PinDir redirect_dir(const datapath::Root& root) {
    return root.dir().sub(directory);
}

Result<Datapath> open_enabled(const datapath::Root& root) {
    const bpf::PinDir dir = redirect_dir(root);
    if (!NETCTL_TRY(dir.look_for("link_sockops")))
        return Error::failed("redirection is not enabled", "netctl redirect enable");
    return Datapath::open(dir);
}

namespace {

constexpr const char* left_behind = "a command that was interrupted had left hooks, which redirect "
                                    "nothing: they are gone now";

/// Whether an enabling or disabling was killed: what it left is attached, maybe, and does nothing.
bool is_unfinished(const datapath::Root& root) {
    const bpf::PinDir dir = redirect_dir(root);
    return root.dir().has(staging) || (dir.exists() && !dir.has("link_sockops"));
}

/// Whether it is enabled on a cgroup that is gone; an error if on one that is there.
Result<bool> check_not_enabled(const datapath::Root& root) {
    if (!NETCTL_TRY(redirect_dir(root).look_for("link_sockops")))
        return false;
    const nc_rd_conf conf = NETCTL_TRY(NETCTL_TRY(open_enabled(root)).conf());
    const auto name = NETCTL_TRY(sys::look_for_cgroup(conf.cgroup));
    if (!name && (conf.flags & NC_RD_DRAINING) == 0)
        return true;
    return Error::failed(
        fmt::format("redirection is enabled already, on the cgroup {}", name.value_or("(gone)")),
        (conf.flags & NC_RD_DRAINING) != 0 ? "it is being disabled: netctl redirect disable"
                                           : "netctl redirect disable comes first");
}

/// Rules name cgroups by their number: those of a name that is there again get the present one.
template <class R> Result<> find_cgroups_again(const Datapath& datapath, Hook hook) {
    auto bank = NETCTL_TRY(datapath.read_bank<R>());
    bool changed = false;
    for (std::size_t i = 0; i < used(bank); i++) {
        const auto& text = bank.texts[i];
        const auto rule =
            parse_rule(std::string(text.data(), strnlen(text.data(), text.size())), hook);
        const Match* match = rule ? rule->find(Key::cgroup) : nullptr;
        const auto found = match != nullptr ? sys::find_cgroup(match->path)
                                            : Result<sys::Cgroup>(Error::failed("no cgroup"));
        if (!found || found->id == bank.rules[i].cgroup)
            continue;
        bank.rules[i].cgroup = found->id;
        changed = true;
    }
    return changed ? datapath.commit_bank(bank) : Result<>();
}

/// Of a root whose redirection is on a cgroup that is gone.
Result<> enable_anew(const datapath::LockedRoot& root, const sys::Cgroup& cgroup) {
    const bpf::PinDir dir = redirect_dir(root);
    const Datapath datapath = NETCTL_TRY(Datapath::open(dir));
    NETCTL_TRY(find_cgroups_again<nc_rd_rule>(datapath, Hook::redirect));
    NETCTL_TRY(find_cgroups_again<nc_rd_to>(datapath, Hook::to));
    NETCTL_TRY(Datapath::attach_anew(dir, cgroup));
    const auto to = NETCTL_TRY(datapath.read_bank<nc_rd_to>());
    if (std::ranges::any_of(to.rules, rewrites_datagrams) &&
        NETCTL_TRY(Datapath::can_serve_datagrams(dir)))
        NETCTL_TRY(Datapath::serve_datagrams(dir, cgroup)); // if they came when it was gone
    nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    conf.cgroup = cgroup.id;
    NETCTL_TRY(datapath.set_conf(conf));
    NETCTL_TRY(root.next_generation());
    return {};
}

} // namespace

Result<Controller::Enabled> Controller::enable(const EnableOptions& options) {
    NETCTL_TRY(check_cases(options.force)); // what is wrong with the words comes first
    Enabled enabled;
    const sys::Cgroup cgroup = NETCTL_TRY(sys::find_cgroup(options.cgroup));
    if (NETCTL_TRY(check_not_enabled(NETCTL_TRY(datapath::Root::open(root_))))) {
        const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
        if (NETCTL_TRY(check_not_enabled(root))) {
            NETCTL_TRY(enable_anew(root, cgroup));
            enabled.cgroup = cgroup.name;
            enabled.notes.emplace_back(
                "the cgroup that it was on is gone: it is on this one now, with the rules and "
                "settings that it had");
            return enabled;
        }
    }
    // Takes seconds, and nothing of the root: nobody waits for it.
    const Fitness fitness = NETCTL_TRY(prove_fit(options));
    enabled.notes.insert(enabled.notes.end(), fitness.notes.begin(), fitness.notes.end());
    const auto root = NETCTL_TRY(datapath::LockedRoot::acquire(root_));
    if (NETCTL_TRY(check_not_enabled(root)))
        return Error::failed("its cgroup went away meanwhile", "netctl redirect enable again");

    Datapath datapath = NETCTL_TRY(Datapath::load(fitness.tuning));
    nc_rd_conf conf{};
    conf.abi_version = abi_version();
    conf.flags = fitness.flags;
    conf.next_rule_id = conf.next_to_id = 1;
    conf.cgroup = cgroup.id;
    conf.generation = 1;
    NETCTL_TRY(datapath.set_conf(conf));

    const bpf::PinDir& parent = root.dir();
    const bpf::PinDir aside = parent.sub(staging);
    if (is_unfinished(root))
        enabled.notes.emplace_back(left_behind);
    NETCTL_TRY(aside.remove_all());              // of one that was killed half way
    NETCTL_TRY(redirect_dir(root).remove_all()); // of a disable that was
    Transaction transaction(enabled.notes);
    transaction.or_else(aside.path(), [aside] { return aside.remove_all(); });
    NETCTL_TRY(datapath.attach(cgroup));
    NETCTL_TRY(datapath.pin(aside));
    NETCTL_TRY(parent.rename(staging, directory));
    return std::move(transaction).commit([&](Aftermath& after) {
        after.value("the root's generation", root.next_generation(), std::uint64_t{0});
        enabled.cgroup = cgroup.name;
        return enabled;
    });
}

/// Three steps, each of one write: nothing joins any more (`draining`); nothing is rewritten any more, which is
/// the commit; it is not enabled any more. Killed in between it is draining, as status says, and can be repeated.
Result<bool> Controller::disable(unsigned timeout_ms) {
    std::vector<std::string> notes;
    std::optional<Datapath> draining;
    bool unfinished = false;
    Transaction transaction(notes);
    {
        const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
        const bpf::PinDir dir = redirect_dir(root);
        unfinished = is_unfinished(root);
        NETCTL_TRY(root.dir().sub(staging).remove_all());
        if (!dir.exists()) {
            if (unfinished)
                warn(left_behind);
            return unfinished;
        }
        if (NETCTL_TRY(
                dir.look_for("conf"))) { // else the last disable was killed behind the draining
            draining = NETCTL_TRY(Datapath::open(dir));
            nc_rd_conf conf = NETCTL_TRY(draining->conf());
            if ((conf.flags & NC_RD_DRAINING) == 0)
                transaction.or_else("that nothing joins any more", [&]() -> Result<> {
                    const auto locked = NETCTL_TRY(datapath::LockedRoot::open(root_));
                    nc_rd_conf now = NETCTL_TRY(draining->conf());
                    now.flags &= ~static_cast<__u32>(NC_RD_DRAINING);
                    return draining->set_conf(now);
                });
            conf.flags |= NC_RD_DRAINING;
            NETCTL_TRY(draining->set_conf(conf));
        }
    }
    // It takes as long as readers take, and meanwhile nobody has to wait for the root.
    if (draining) {
        wait_for_programs(); // nothing joins any more
        const std::size_t left = NETCTL_TRY(draining->leave_all(NC_RD_REASON_DRAINED, timeout_ms));
        if (left != 0) {
            std::move(transaction).commit([](Aftermath&) {}); // it stays so
            return Error::failed(
                fmt::format("{} connection{} hold{} redirected data that {} reader has not read "
                            "yet; all others are on TCP, and nothing joins any more",
                            left, left == 1 ? "" : "s", left == 1 ? "s" : "",
                            left == 1 ? "its" : "their"),
                "netctl redirect list names them; run netctl redirect disable again when they have "
                "read or are closed");
        }
    }
    const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
    const bpf::PinDir dir = redirect_dir(root);
    if (!dir.exists())
        return true; // somebody else has disabled it, too
    if (NETCTL_TRY(dir.look_for("conf"))) {
        const Datapath datapath = NETCTL_TRY(Datapath::open(dir));
        if ((NETCTL_TRY(datapath.conf()).flags & NC_RD_DRAINING) == 0)
            return Error::failed("somebody else has enabled redirection again meanwhile",
                                 "netctl redirect disable");
        NETCTL_TRY(datapath.commit_bank(Datapath::BankOf<nc_rd_to>{}));
    }
    std::move(transaction).commit([&](Aftermath& after) {
        // The hooks, the last of which tells that it is enabled; then `conf`, without which the rest is only pins.
        after.tidy("the hooks of the cgroup", Datapath::unpin_hooks(dir));
        after.tidy("conf", dir.unpin("conf"));
        after.tidy(dir.path(), dir.remove_all());
        after.value("the root's generation", root.next_generation(), std::uint64_t{0});
        if (unfinished)
            after.note(left_behind);
    });
    for (const std::string& note : notes)
        warn(note);
    return true;
}

Result<bool> Controller::joiner_runs() const {
    const auto root = NETCTL_TRY(datapath::Root::open(root_));
    return bpf::DirLock::is_held(redirect_dir(root));
}

Result<Status> Controller::status() const {
    const auto root = NETCTL_TRY(datapath::Root::open(root_));
    Status status;
    if (!NETCTL_TRY(redirect_dir(root).look_for("link_sockops"))) {
        status.unfinished = is_unfinished(root);
        return status;
    }
    const Datapath datapath = NETCTL_TRY(open_enabled(root));
    const nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    status.enabled = true;
    status.draining = (conf.flags & NC_RD_DRAINING) != 0;
    status.allow_blocking = (conf.flags & NC_RD_ALLOW_BLOCKING) != 0;
    status.cross_netns = (conf.flags & NC_RD_CROSS_NETNS) != 0;
    status.forced = (conf.flags & NC_RD_FORCED) != 0;
    status.mends_fionread = (conf.flags & NC_RD_MENDS_FIONREAD) != 0;
    status.joiner = bpf::DirLock::is_held(redirect_dir(root));
    const auto name = NETCTL_TRY(sys::look_for_cgroup(conf.cgroup));
    status.live = name.has_value();
    status.cgroup = name.value_or(fmt::format("#{}", conf.cgroup));
    status.rules = rules_in(NETCTL_TRY(datapath.read_bank<nc_rd_rule>()));
    const auto to = NETCTL_TRY(datapath.read_bank<nc_rd_to>());
    status.to_rules = rules_in(to);
    const AskedTargets counted = NETCTL_TRY(count_asked(datapath, to));
    status.to_asked = counted.asked;
    status.to_down = counted.down;
    for (const nc_rd_pair& pair : NETCTL_TRY(datapath.pairs())) {
        status.joined += pair.state == NC_RD_JOINED;
        status.leaving += pair.state == NC_RD_LEAVING;
    }
    status.stats = NETCTL_TRY(datapath.stats());
    status.to_stats = NETCTL_TRY(datapath.to_stats());
    return status;
}

Result<> Controller::run(bool wait, const std::function<bool()>& stop,
                         const std::function<void()>& ready,
                         const std::function<void(const std::string&)>& tell) {
    const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(200)); };
    while (!stop()) {
        std::optional<datapath::Root> root = NETCTL_TRY(datapath::Root::open(root_));
        const bpf::PinDir dir = redirect_dir(*root);
        if (!NETCTL_TRY(dir.look_for("link_sockops"))) {
            root.reset();
            if (!wait)
                return Error::failed("redirection is not enabled", "netctl redirect enable");
            pause();
            continue;
        }
        auto lock = bpf::DirLock::try_acquire(dir);
        if (!lock) {
            root.reset();
            if (lock.error().code == EWOULDBLOCK && !wait)
                return Error::failed("another joiner is running for this root");
            if (lock.error().code != EWOULDBLOCK)
                return std::move(lock).error();
            pause();
            continue;
        }
        Datapath datapath = NETCTL_TRY(Datapath::open(dir));
        root.reset(); // it goes on for long
        Joiner joiner = NETCTL_TRY(Joiner::open(datapath));
        Prober prober(datapath, tell);
        ready();
        while (!stop() && lock->still_at(dir)) {
            NETCTL_TRY(prober.step());
            NETCTL_TRY(joiner.poll(prober.idle_ms(200)));
            if (const std::string trouble = joiner.take_trouble(); !trouble.empty())
                tell(trouble);
        }
        if (!stop() && !wait)
            return {}; // disabled: our work is done
    }
    return {};
}

} // namespace netctl::redirect
