// SPDX-License-Identifier: GPL-2.0-only
//
// The verbs of `rule` and of `to`: lists of the same kind, kept in two banks each.
#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <type_traits>

#include <fmt/format.h>

#include "core/transaction.hpp"
#include "datapath/connect_order.hpp"
#include "datapath/root.hpp"
#include "features/redirect/controller.hpp"
#include "features/redirect/targets.hpp"

namespace netctl::redirect {

namespace {

/// The part of an array that a bank uses.
auto part(auto& array, std::size_t from, std::size_t to) {
    return std::span(array).subspan(from, to - from);
}

/// Puts a rule's entries at a place, and moves those behind it on. There is room for them.
template <class R>
void insert(Datapath::BankOf<R>& bank, std::size_t place, const std::vector<R>& entries,
            const std::string& text) {
    const std::size_t count = used(bank), end = count + entries.size();
    const auto old_rules = part(bank.rules, place, count);
    std::move_backward(old_rules.begin(), old_rules.end(), part(bank.rules, place, end).end());
    const auto old_texts = part(bank.texts, place, count);
    std::move_backward(old_texts.begin(), old_texts.end(), part(bank.texts, place, end).end());
    for (std::size_t i = 0; i < entries.size(); i++) {
        bank.rules[place + i] = entries[i];
        bank.texts[place + i].fill(0);
        std::copy(text.begin(), text.end(), bank.texts[place + i].begin());
    }
}

/// Takes out all entries of a rule. False if there is no rule of this number.
template <class R> bool erase(Datapath::BankOf<R>& bank, std::uint32_t id) {
    const std::size_t count = used(bank);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < count; i++) {
        if (bank.rules[i].id == id)
            continue;
        bank.rules[kept] = bank.rules[i];
        bank.texts[kept] = bank.texts[i];
        kept++;
    }
    std::ranges::fill(part(bank.rules, kept, count), R{});
    std::ranges::fill(part(bank.texts, kept, count), std::array<char, 256>{});
    return kept != count;
}

/// What the user should know although all went well: shown when the command is done with it.
struct Notes {
    std::vector<std::string> texts;
    ~Notes() {
        for (const std::string& text : texts)
            warn(text);
    }
};

/// What comes behind a change of rules.
void settle(const Datapath& datapath, bool leave, const datapath::LockedRoot& root,
            Aftermath& after) {
    if (leave)
        after.value("connections that joined by the former rules",
                    datapath.leave_all(NC_RD_REASON_DRAINED, 0), std::size_t{0});
    after.value("the root's generation", root.next_generation(), std::uint64_t{0});
}

/// Whether joined connections were let in by this kind of rule.
template <class R> constexpr bool lets_join = std::is_same_v<R, nc_rd_rule>;

} // namespace

/// What a list of joined connections needs besides itself: nothing.
template <class R> class Belongings {
  public:
    static Result<Belongings> open(const Datapath&, const datapath::Root&,
                                   const Datapath::BankOf<R>&) {
        return Belongings();
    }
    Result<> before(const Datapath::BankOf<R>&, Transaction&) { return {}; }
    void behind(Aftermath&) const {}
};

/// What a list of `to` needs besides: its targets; and the hooks for datagrams of sockets that are not connected, while a
/// rule is about UDP.
template <> class Belongings<nc_rd_to> {
  public:
    /// `list` is in force. Takes away what an interrupted command left, and no rule needs.
    static Result<Belongings> open(const Datapath& datapath, const datapath::Root& root,
                                   const ToList& list) {
        Belongings made(datapath, redirect_dir(root), list);
        if (!wants_hooks(list))
            NETCTL_TRY(Datapath::serve_datagrams(made.dir_, std::nullopt));
        NETCTL_TRY(remove_other_targets(datapath, list));
        return made;
    }
    /// Before `list` is in force: what it needs is there.
    Result<> before(const ToList& list, Transaction& transaction) {
        new_ = list;
        transaction.or_else("the targets of the rules",
                            [this] { return remove_other_targets(*datapath_, old_); });
        NETCTL_TRY(add_targets(*datapath_, list));
        if (!wants_hooks(list))
            return {};
        const bool served = wants_hooks(old_);
        if (!NETCTL_TRY(Datapath::can_serve_datagrams(dir_)))
            return served
                       ? Result<>() // they do what they did
                       : Error::failed("redirection was enabled by an older netctl, which "
                                       "rewrites no datagrams of sockets that are not connected",
                                       "add 'proto tcp'; or netctl redirect disable, and enable");
        const auto name = NETCTL_TRY(sys::look_for_cgroup(NETCTL_TRY(datapath_->conf()).cgroup));
        if (!name)
            return {}; // gone; `enable` attaches them to another
        if (!served)
            transaction.or_else("hooks for datagrams", [dir = dir_] {
                return Datapath::serve_datagrams(dir, std::nullopt);
            });
        return Datapath::serve_datagrams(dir_, NETCTL_TRY(sys::find_cgroup(*name)));
    }
    /// When it is: takes away what nothing needs any more.
    void behind(Aftermath& after) const {
        if (wants_hooks(old_) && !wants_hooks(new_))
            after.tidy("the hooks for datagrams", Datapath::serve_datagrams(dir_, std::nullopt));
        after.tidy("targets of former rules", remove_other_targets(*datapath_, new_));
    }

  private:
    Belongings(const Datapath& datapath, const bpf::PinDir& dir, const ToList& list)
        : datapath_(&datapath), dir_(dir), old_(list) {}
    static bool wants_hooks(const ToList& list) {
        return std::ranges::any_of(list.rules, rewrites_datagrams);
    }
    const Datapath* datapath_;
    bpf::PinDir dir_;
    ToList old_, new_;
};

namespace {

template <class R>
std::vector<Controller::ListedRule> listed_rules(const Datapath::BankOf<R>& bank) {
    std::vector<Controller::ListedRule> all;
    for (std::size_t i = 0; i < used(bank); i++) {
        if (!all.empty() && all.back().id == bank.rules[i].id)
            continue; // another entry of the same rule
        const auto& text = bank.texts[i];
        const std::string ours(text.data(), strnlen(text.data(), text.size()));
        all.push_back({bank.rules[i].id, ours.empty() ? to_string(rule_of(bank.rules[i])) : ours});
    }
    return all;
}

} // namespace

template <class R> Result<std::vector<Controller::ListedRule>> Controller::list_of() const {
    const auto root = NETCTL_TRY(datapath::Root::open(root_));
    return listed_rules(NETCTL_TRY(NETCTL_TRY(open_enabled(root)).read_bank<R>()));
}

template <class R>
Result<std::uint32_t> Controller::add_to_list(std::vector<R> entries, const std::string& text,
                                              bool first) {
    Notes notes;
    const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
    const Datapath datapath = NETCTL_TRY(open_enabled(root));
    if (!lets_join<R> &&
        NETCTL_TRY(datapath::judge_first(root)) == datapath::ConnectOrder::rewritten_first)
        return datapath::judged_too_late();
    nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    auto bank = NETCTL_TRY(datapath.read_bank<R>());
    auto belongings = NETCTL_TRY(Belongings<R>::open(datapath, root, bank));
    const std::size_t count = used(bank), longest = bank.texts[0].size() - 1;
    if (text.size() > longest)
        return Error::usage(fmt::format("the rule is longer than {} characters", longest));
    if (entries.size() > bank.rules.size() - count)
        return Error::failed(fmt::format("the rule takes {} of {} places, and {} are free",
                                         entries.size(), bank.rules.size(),
                                         bank.rules.size() - count),
                             "each element of a list takes one; prefixes and ranges need fewer");
    const std::uint32_t id = (conf.*ListConf<R>::next_id)++;
    for (R& entry : entries)
        entry.id = id;
    insert(bank, first ? 0 : count, entries, text);
    Transaction transaction(notes.texts);
    NETCTL_TRY(belongings.before(bank, transaction));
    NETCTL_TRY(datapath.commit_bank(bank, conf)); // with the next id: one write
    return std::move(transaction).commit([&](Aftermath& after) {
        belongings.behind(after);
        settle(datapath, lets_join<R> && first && count != 0, root, after);
        return id;
    });
}

template <class R> Result<> Controller::delete_from_list(std::uint32_t id, const char* where) {
    Notes notes;
    const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
    const Datapath datapath = NETCTL_TRY(open_enabled(root));
    auto bank = NETCTL_TRY(datapath.read_bank<R>());
    auto belongings = NETCTL_TRY(Belongings<R>::open(datapath, root, bank));
    if (!erase(bank, id))
        return Error::failed(fmt::format("there is no rule {}", id), where);
    Transaction transaction(notes.texts);
    NETCTL_TRY(belongings.before(bank, transaction));
    NETCTL_TRY(datapath.commit_bank(bank));
    std::move(transaction).commit([&](Aftermath& after) {
        belongings.behind(after);
        settle(datapath, lets_join<R>, root, after);
    });
    return {};
}

/// Whether this kernel lets rules ask for an executable.
Result<> Controller::check_learnable(const std::vector<Rule>& rules) const {
    const auto conf_now = [&]() -> Result<nc_rd_conf> {
        const auto root = NETCTL_TRY(datapath::Root::open(root_));
        return NETCTL_TRY(open_enabled(root)).conf();
    };
    const nc_rd_conf conf = NETCTL_TRY(conf_now());
    const bool asked =
        std::ranges::any_of(rules, [](const Rule& rule) { return rule.find(Key::exe) != nullptr; });
    if (asked && (conf.flags & NC_RD_NEVER_PASS) != 0)
        return Error::unsupported(
            "this kernel's FIONREAD miscounts what passes while a joined connection's executables "
            "are being learnt (self-test: fionread-passed), so rules cannot ask for 'exe'",
            "use dport, dst or cgroup; or enable with --force fionread-passed");
    return {};
}

template <class R>
Result<>
Controller::replace_list(const std::vector<std::pair<std::vector<R>, std::string>>& wanted) {
    Notes notes;
    const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
    const Datapath datapath = NETCTL_TRY(open_enabled(root));
    if (!lets_join<R> && !wanted.empty() &&
        NETCTL_TRY(datapath::judge_first(root)) == datapath::ConnectOrder::rewritten_first)
        return datapath::judged_too_late();
    nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    const auto before = NETCTL_TRY(datapath.read_bank<R>());
    auto belongings = NETCTL_TRY(Belongings<R>::open(datapath, root, before));
    std::multimap<std::string, std::uint32_t> ids; // that texts had
    for (std::size_t i = 0; i < used(before); i++)
        if (i == 0 || before.rules[i].id != before.rules[i - 1].id)
            ids.emplace(std::string(before.texts[i].data(),
                                    strnlen(before.texts[i].data(), before.texts[i].size())),
                        before.rules[i].id);
    Datapath::BankOf<R> bank;
    const std::size_t longest = bank.texts[0].size() - 1;
    for (const auto& [entries, text] : wanted) {
        const std::size_t count = used(bank);
        if (text.size() > longest)
            return Error::usage(fmt::format("the rule is longer than {} characters", longest));
        if (entries.size() > bank.rules.size() - count)
            return Error::failed(
                fmt::format("the rules take more than {} places", bank.rules.size()),
                "each element of a list takes one; prefixes and ranges need fewer");
        std::vector<R> own = entries;
        const auto known = ids.find(text);
        const std::uint32_t id =
            known != ids.end() ? known->second : (conf.*ListConf<R>::next_id)++;
        if (known != ids.end())
            ids.erase(known);
        for (R& entry : own)
            entry.id = id;
        insert(bank, count, own, text);
    }
    Transaction transaction(notes.texts);
    NETCTL_TRY(belongings.before(bank, transaction));
    NETCTL_TRY(datapath.commit_bank(bank, conf));
    std::move(transaction).commit([&](Aftermath& after) {
        belongings.behind(after);
        settle(datapath, lets_join<R>, root, after);
    });
    return {};
}

Result<> Controller::replace_rules(const std::vector<Rule>& rules) {
    std::vector<std::pair<std::vector<nc_rd_rule>, std::string>> wanted;
    for (const Rule& rule : rules)
        wanted.emplace_back(NETCTL_TRY(rule_entries(rule)), to_string(rule));
    NETCTL_TRY(check_learnable(rules));
    return replace_list(wanted);
}

Result<> Controller::replace_to(const std::vector<Rule>& rules) {
    std::vector<std::pair<std::vector<nc_rd_to>, std::string>> wanted;
    for (const Rule& rule : rules)
        wanted.emplace_back(NETCTL_TRY(to_entries(rule)), to_string(rule));
    return replace_list(wanted);
}

Result<std::vector<Controller::ListedRule>> Controller::rules() const {
    return list_of<nc_rd_rule>();
}

Result<std::vector<Controller::ListedRule>> Controller::to_rules() const {
    return list_of<nc_rd_to>();
}

Result<std::vector<Controller::ListedTo>> Controller::to_list() const {
    const auto root = NETCTL_TRY(datapath::Root::open(root_));
    const Datapath datapath = NETCTL_TRY(open_enabled(root));
    const auto bank = NETCTL_TRY(datapath.read_bank<nc_rd_to>());
    std::vector<ListedTo> all;
    for (ListedRule& rule : listed_rules(bank)) {
        const auto entry = std::ranges::find(bank.rules, rule.id, &nc_rd_to::id);
        ListedTo& listed = all.emplace_back(ListedTo{std::move(rule), {}, {}});
        for (const nc_rd_to_target& target : NETCTL_TRY(targets_of(datapath, *entry)))
            listed.targets.push_back(
                {{to_address(entry->family, target.address), target.port, target.weight},
                 target.connections,
                 target.datagrams,
                 {}});
        const auto health = NETCTL_TRY(health_of(datapath, *entry));
        for (std::size_t i = 0; i < std::min(health.size(), listed.targets.size()); i++)
            listed.targets[i].health = health[i];
        listed.failed = NETCTL_TRY(failed_of(datapath, *entry));
    }
    return all;
}

Result<std::uint32_t> Controller::add_rule(const Rule& rule, bool first) {
    const std::vector<nc_rd_rule> entries = NETCTL_TRY(rule_entries(rule));
    NETCTL_TRY(check_learnable({rule}));
    return add_to_list(entries, to_string(rule), first);
}

Result<std::uint32_t> Controller::add_to(const Rule& rule) {
    return add_to_list(NETCTL_TRY(to_entries(rule)), to_string(rule), false);
}

Result<> Controller::delete_rule(std::uint32_t id) {
    return delete_from_list<nc_rd_rule>(id, "netctl redirect rule list");
}

Result<> Controller::delete_to(std::uint32_t id) {
    return delete_from_list<nc_rd_to>(id, "netctl redirect to list");
}

Result<> Controller::flush_rules() {
    Notes notes;
    const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
    const Datapath datapath = NETCTL_TRY(open_enabled(root));
    Transaction transaction(notes.texts);
    NETCTL_TRY(datapath.commit_bank(Datapath::Bank{}));
    std::move(transaction).commit([&](Aftermath& after) { settle(datapath, true, root, after); });
    return {};
}

} // namespace netctl::redirect
