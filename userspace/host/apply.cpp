// SPDX-License-Identifier: GPL-2.0-only
#include "host/apply.hpp"

#include <algorithm>
#include <random>

#include <fmt/format.h>

#include "datapath/one_writing.hpp"
#include "host/all_or_none.hpp"
#include "host/guard.hpp"
#include "sys/detached.hpp"

namespace netctl::host {

namespace {

using datapath::OneWriting;

constexpr std::uint64_t second_ns = 1'000'000'000;

/// Its name begins with a letter, so that nobody takes it for a number.
std::uint64_t new_id() {
    return std::random_device()() | 0xa0000000U;
}

Error not_waiting(const std::string& id) {
    return Error::failed(id.empty()
                             ? std::string("no apply waits to be confirmed")
                             : fmt::format("the apply {} does not wait to be confirmed", id));
}

/// The journal that waits to be confirmed and has this name, or any.
Result<Journal> waiting(const datapath::Root& root, const std::string& id) {
    auto journal = NETCTL_TRY(read_journal(root));
    if (!journal || (!id.empty() && journal_name(journal->id) != id))
        return not_waiting(id);
    return std::move(*journal);
}

/// Undoes steps that were done, the last first. What could not be undone.
std::vector<std::string> undo(const std::vector<Step>& done, const RootOptions& root) {
    std::vector<std::string> left;
    for (auto step = done.rbegin(); step != done.rend(); ++step)
        if (const auto undone = carry_out(step->reversed(), root, true, {}); !undone)
            left.push_back(fmt::format("{}: {}", step->title, undone.error().what.string()));
    return left;
}

/// Leads back to where a journal says, and ends it. On an error `done` is what was done.
Result<std::vector<std::string>> go_back(const datapath::LockedRoot& root,
                                         const RootOptions& options, const Journal& journal,
                                         std::vector<Step>& done) {
    const HostConfig before = NETCTL_TRY(parse_config("the journal", journal.way_back));
    const HostConfig present = NETCTL_TRY(read_present(options));
    const Plan plan = NETCTL_TRY(make_plan(before, present, "", MissingInterface::note));
    std::vector<std::string> notes = plan.notes;
    for (const Step& step : plan.steps) {
        auto told = carry_out(step, options, true, {});
        if (!told)
            return std::move(told).error().within(step.title);
        done.push_back(step);
        notes.insert(notes.end(), told->begin(), told->end());
    }
    NETCTL_TRY(remove_journal(root));
    return notes;
}

std::uint64_t seconds_until(std::uint64_t deadline_ns) {
    const std::uint64_t now = boottime_ns();
    return deadline_ns > now ? (deadline_ns - now + second_ns - 1) / second_ns : 0;
}

/// Something that takes it back when the time is up, whatever becomes of us.
Result<> start_watch(const RootOptions& root, const std::string& id) {
    std::vector<std::string> words;
    if (!root.path.empty())
        words = {"--root", root.path};
    words.insert(words.end(), {"--quiet", "rollback", "--if-unconfirmed", id});
    return sys::start_detached("netctl-rollback-" + id, words);
}

/// Before the first change: writes down how it was, and has somebody watch the time if there is one.
Result<Journal> begin_journal(const OneWriting& writing, const RootOptions& root,
                              const HostConfig& before, std::size_t changes,
                              std::uint64_t confirm_s) {
    Journal journal;
    journal.state = NC_JOURNAL_APPLYING;
    journal.id = new_id();
    journal.changes = changes;
    if (confirm_s != 0)
        journal.deadline_ns = boottime_ns() + confirm_s * second_ns;
    journal.way_back = NETCTL_TRY(config_text(before));
    NETCTL_TRY(write_journal(writing.root(), journal));
    if (confirm_s == 0)
        return journal;
    if (auto watch = start_watch(root, journal_name(journal.id)); !watch) {
        NETCTL_TRY(remove_journal(writing.root()));
        return std::move(watch).error();
    }
    return journal;
}

Result<> refuse_if_one_waits(const datapath::Root& root) {
    const auto journal = NETCTL_TRY(read_journal(root));
    if (!journal)
        return {};
    return Error::failed(fmt::format("the apply {} waits to be confirmed, for {} s more",
                                     journal_name(journal->id),
                                     seconds_until(journal->deadline_ns)),
                         "`netctl confirm` or `netctl rollback` first");
}

/// An error that names what is not as it was when the plan was made.
Result<> check_planned(const Plan& plan, const std::map<std::string, std::string>& planned) {
    std::vector<std::string> moved;
    std::set<std::string> seen;
    for (const Step& step : plan.steps) {
        seen.insert(step.title);
        const auto was = planned.find(step.title);
        if (was == planned.end() || was->second != NETCTL_TRY(fingerprint(step)))
            moved.push_back(step.title);
    }
    for (const auto& [title, was] : planned)
        if (!seen.contains(title))
            moved.push_back(title);
    if (moved.empty())
        return {};
    return Error::failed(
        fmt::format("not as it was when the plan was made: {}", fmt::join(moved, ", ")),
        "plan again");
}

/// What is in force, without the elements of sets that are not named.
HostConfig without_elements(HostConfig config, const std::set<std::string>& but) {
    for (auto& [name, set] : config.sets)
        if (!but.contains(name)) {
            set.external = true;
            set.elements.clear();
            set.names.clear();
        }
    return config;
}

} // namespace

Result<Plan> plan(const HostConfig& wanted, const RootOptions& root, const std::string& netns) {
    const auto reading = NETCTL_TRY(datapath::OneReading::begin(root));
    return make_plan(wanted, NETCTL_TRY(read_present(root)), netns, MissingInterface::error);
}

Result<Applied> apply(const HostConfig& wanted, const RootOptions& root,
                      const ApplyOptions& options) {
    const OneWriting writing = NETCTL_TRY(OneWriting::begin(root));
    NETCTL_TRY(refuse_if_one_waits(writing.root()));
    const HostConfig present = NETCTL_TRY(read_present(root));
    Plan plan = NETCTL_TRY(
        make_plan(wanted, present, options.netns,
                  options.missing_is_fine ? MissingInterface::note : MissingInterface::error));
    Applied applied{.steps = {}, .objects = plan.objects, .notes = std::move(plan.notes), .id = {}};
    if (options.planned)
        NETCTL_TRY(check_planned(plan, *options.planned));
    if (plan.steps.empty())
        return applied;

    if (auto cut = check_ssh(present, after_steps(present, plan.steps));
        !cut && !options.dared && !options.rehearse) {
        if (options.confirm_s == 0)
            return std::move(cut).error();
        applied.notes.push_back(
            fmt::format("{}: it goes back in {} s", cut.error().what.string(), options.confirm_s));
    }

    const Journal journal = NETCTL_TRY(
        begin_journal(writing, root, way_back(plan.steps), plan.steps.size(), options.confirm_s));
    if (options.confirm_s != 0)
        applied.id = journal_name(journal.id);
    Outcome outcome = carry_out_all(plan.steps, root, options.dared || options.confirm_s != 0,
                                    options.rehearse ? HowFar::loading : HowFar::whole);
    if (outcome.error || !outcome.left.empty()) {
        Error error =
            outcome.error ? std::move(*outcome.error) : Error::failed("loading was tried");
        if (outcome.left.empty()) {
            NETCTL_TRY(remove_journal(writing.root()));
            if (error.hint.empty())
                error.hint = "nothing is changed";
            return error;
        }
        error.what += Text::format("\nand what was done before could not be taken back: {}",
                                   fmt::format("{}", fmt::join(outcome.left, "; ")));
        error.hint = "`netctl rollback` tries that again";
        return error;
    }
    applied.notes.insert(applied.notes.end(), outcome.notes.begin(), outcome.notes.end());
    applied.steps = std::move(plan.steps);
    // The commit of the whole: from here on a kill leaves all of it in force.
    if (options.confirm_s == 0)
        NETCTL_TRY(remove_journal(writing.root()));
    else
        NETCTL_TRY(update_journal(writing.root(), NC_JOURNAL_CONFIRMING, journal.deadline_ns));
    return applied;
}

Result<std::optional<Applied>> on_trial(const RootOptions& root, std::uint64_t seconds,
                                        const std::set<std::string>& sets,
                                        const std::function<Result<bool>()>& change) {
    const OneWriting writing = NETCTL_TRY(OneWriting::begin(root));
    NETCTL_TRY(refuse_if_one_waits(writing.root()));
    // What the change is about shows behind it. Until then the way back is all that there was, and no more.
    const HostConfig present = NETCTL_TRY(read_present(root));
    HostConfig before = without_elements(present, sets);
    before.prune = true;
    Journal journal = NETCTL_TRY(begin_journal(writing, root, before, 1, seconds));
    before = NETCTL_TRY(parse_config("the journal", journal.way_back));
    const auto changed = change();
    const HostConfig after = NETCTL_TRY(read_present(root));
    const Plan back = NETCTL_TRY(make_plan(before, after, "", MissingInterface::note));
    if (back.steps.empty()) {
        NETCTL_TRY(remove_journal(writing.root()));
        if (!changed.has_value())
            return changed.error();
        return std::optional<Applied>();
    }
    Applied applied{.steps = {}, .objects = 0, .notes = {}, .id = journal_name(journal.id)};
    if (const auto cut = check_ssh(present, after); !cut)
        applied.notes.push_back(cut.error().what.string());
    for (auto step = back.steps.rbegin(); step != back.steps.rend(); ++step)
        applied.steps.push_back(step->reversed());
    journal.state = NC_JOURNAL_CONFIRMING;
    journal.changes = applied.steps.size();
    journal.way_back = NETCTL_TRY(config_text(way_back(applied.steps)));
    NETCTL_TRY(write_journal(writing.root(), journal));
    if (!changed.has_value())
        return Error(changed.error())
            .within(
                fmt::format("it did a part, which goes back unless you confirm {}", applied.id));
    return std::optional(std::move(applied));
}

Result<std::optional<Pending>> pending(const RootOptions& options) {
    return pending(NETCTL_TRY(datapath::Root::open(options)));
}

Result<std::optional<Pending>> pending(const datapath::Root& root) {
    const auto journal = NETCTL_TRY(read_journal(root));
    if (!journal)
        return std::optional<Pending>();
    return std::optional(
        Pending{journal_name(journal->id), seconds_until(journal->deadline_ns), journal->changes});
}

Result<> confirm(const RootOptions& options, const std::string& id) {
    const OneWriting writing = NETCTL_TRY(OneWriting::begin(options));
    NETCTL_TRY(waiting(writing.root(), id));
    return remove_journal(writing.root());
}

Result<> extend(const RootOptions& options, const std::string& id, std::uint64_t seconds) {
    const OneWriting writing = NETCTL_TRY(OneWriting::begin(options));
    NETCTL_TRY(waiting(writing.root(), id));
    return update_journal(writing.root(), NC_JOURNAL_CONFIRMING,
                          boottime_ns() + seconds * second_ns);
}

Result<std::vector<std::string>> roll_back(const RootOptions& options, const std::string& id) {
    const OneWriting writing = NETCTL_TRY(OneWriting::begin(options));
    const Journal journal = NETCTL_TRY(waiting(writing.root(), id));
    // The commit: from here on a kill leaves a journal that the next command follows to its end.
    NETCTL_TRY(update_journal(writing.root(), NC_JOURNAL_APPLYING, journal.deadline_ns));
    std::vector<Step> done;
    auto notes = go_back(writing.root(), options, journal, done);
    if (notes)
        return notes;
    Error error = std::move(notes).error();
    const std::vector<std::string> left = undo(done, options);
    if (left.empty() && update_journal(writing.root(), journal.state, journal.deadline_ns)) {
        if (error.hint.empty())
            error.hint = "nothing is changed: the apply still waits to be confirmed";
        return error;
    }
    error.hint = "the next netctl command tries that again";
    return error;
}

Result<> forget(const RootOptions& options) {
    const OneWriting writing = NETCTL_TRY(OneWriting::begin(options));
    return remove_journal(writing.root());
}

Result<std::vector<std::string>> finish_pending(const RootOptions& options) {
    std::vector<std::string> told;
    if (!has_journal(options))
        return told;
    const auto waits = [](const Journal& journal) {
        return journal.state == NC_JOURNAL_CONFIRMING && seconds_until(journal.deadline_ns) != 0;
    };
    // The rule: nobody is kept waiting to learn that there is nothing to do.
    if (const auto seen = peek_journal(options); seen && waits(*seen))
        return told;
    const OneWriting writing = NETCTL_TRY(OneWriting::begin(options));
    const auto journal = NETCTL_TRY(read_journal(writing.root()));
    if (!journal || waits(*journal))
        return told;
    std::vector<Step> done;
    told = NETCTL_TRY(go_back(writing.root(), options, *journal, done));
    told.insert(
        told.begin(),
        journal->state == NC_JOURNAL_CONFIRMING
            ? fmt::format("the apply {} was not confirmed in time: {} as before",
                          journal_name(journal->id), "all is")
            : fmt::format("the apply {} did not come to its end: what it had done is undone",
                          journal_name(journal->id)));
    return told;
}

} // namespace netctl::host
